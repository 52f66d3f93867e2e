"""The bundled S3: which operation a request is, and the operations on buckets. `docs/decisions` says why it is ours.

Path-style addressing only, since clients reach Clary by one address. What S3 has beyond objects, uploads and tags
(versions, policies, notifications) is answered as a bucket answers that never had any of it, or with NotImplemented.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from clary.errors import AwsError
from clary.gateway.s3 import access, multipart, objects, xml
from clary.gateway.s3.call import Call, in_thread, refuse
from clary.gateway.streamed import Streamed
from clary.objectstore.disk import Disk
from clary.objectstore.listing import Page, Query, list_objects
from clary.objectstore.multipart import Uploads

_PAGE = 1000

Operation = Callable[[Call], Awaitable[None]]


class S3:
    """Answers S3 requests from a folder of buckets."""

    def __init__(self, root: Path) -> None:
        self._disk = Disk(root)
        self._uploads = Uploads(self._disk)

    async def handle(self, request: Streamed) -> None:
        """Authenticate a request, carry it out and answer it; errors in S3's XML."""
        try:
            identity = request.state.authenticate(request.head, None)
            if (principal := request.state.principal(identity)) is not None:
                access.check(principal, request, bulk=True)
            bucket, key = _names(request.path)
            params = dict(parse_qsl(request.query, keep_blank_values=True))
            call = Call(request, identity, self._disk, self._uploads, bucket, key, params)
            await _operation(call)(call)
        except AwsError as failure:
            await refuse(request, failure)


def _names(path: str) -> tuple[str, str]:
    bucket, _, key = path.removeprefix("/").partition("/")
    try:
        return unquote(bucket, errors="strict"), unquote(key, errors="strict")
    except UnicodeDecodeError:
        raise AwsError("Couldn't parse the specified URI.", code="InvalidURI", status=400) from None


def _operation(call: Call) -> Operation:
    """Find what is asked for. Raises AwsError NotImplemented (501), or a bucket's answer to what it does not have."""
    level = "object" if call.key else "bucket" if call.bucket else "service"
    subresource = next((name for name in _SUBRESOURCES if name in call.params), "")
    method = "GET" if call.request.method == "HEAD" and not subresource else call.request.method
    if (method, level, subresource) == ("PUT", "object", "") and call.header("x-amz-copy-source"):
        return objects.copy_object
    if operation := _OPERATIONS.get((method, level, subresource)):
        return operation
    if method == "GET" and level == "bucket" and subresource in _ABSENT:
        code, message = _ABSENT[subresource]
        raise AwsError(message, code=code, status=404)
    message = "A header or query you provided implies functionality that is not implemented."
    raise AwsError(message, code="NotImplemented", status=501)


async def _list_buckets(call: Call) -> None:
    await call.answer(body=xml.buckets(await in_thread(call.disk.buckets)))


_OLD_NAMES = {"EU": "eu-west-1"}


async def _create_bucket(call: Call) -> None:
    document = await call.document()
    wanted = xml.parse(document).findtext("LocationConstraint", "") if document else ""
    here = call.request.state.partition.region
    if wanted and _OLD_NAMES.get(wanted, wanted) != here:
        # Taken for one of here, it would be found here later.
        incompatible = "is incompatible for the region specific endpoint this request was sent to."
        raise AwsError(
            f"The {wanted} location constraint {incompatible}", code="IllegalLocationConstraintException", status=400
        )
    await in_thread(call.disk.create_bucket, call.bucket)
    await call.answer(headers={"location": f"/{call.bucket}"})


async def _delete_bucket(call: Call) -> None:
    await in_thread(call.disk.delete_bucket, call.bucket)
    await call.answer(204)


async def _list_objects(call: Call) -> None:
    """HeadBucket, ListObjects and ListObjectsV2."""
    if call.request.method == "HEAD":
        await in_thread(call.disk.bucket, call.bucket)
        await call.answer(headers={"x-amz-bucket-region": call.request.state.partition.region})
        return
    params = call.params
    v2 = params.get("list-type") == "2"
    token = _decode_token(params.get("continuation-token", "")) if v2 else ""
    after = token or params.get("start-after" if v2 else "marker", "")
    limit = min(call.number("max-keys", _PAGE), _PAGE)
    query = Query(params.get("prefix", ""), params.get("delimiter", ""), after, limit)
    page = await in_thread(list_objects, call.disk, call.bucket, query) if limit else Page()
    encoded = params.get("encoding-type") == "url"
    heading = (_heading_v2 if v2 else _heading_v1)(page, params, encoded=encoded)
    await call.answer(body=xml.listing(page, query, call.bucket, heading, encoded=encoded))


def _heading_v1(page: Page, params: Mapping[str, str], *, encoded: bool) -> str:
    following = xml.key_text("NextMarker", page.next, encoded=encoded) if page.next else ""
    return xml.key_text("Marker", params.get("marker", ""), encoded=encoded) + following


def _heading_v2(page: Page, params: Mapping[str, str], *, encoded: bool) -> str:
    heading = xml.text("KeyCount", len(page.objects) + len(page.prefixes))
    if token := params.get("continuation-token"):
        heading += xml.text("ContinuationToken", token)
    if start := params.get("start-after"):
        heading += xml.key_text("StartAfter", start, encoded=encoded)
    if page.next:
        heading += xml.text("NextContinuationToken", base64.urlsafe_b64encode(page.next.encode()).decode())
    return heading


def _decode_token(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token).decode()
    except ValueError:
        message = "The continuation token provided is incorrect"
        raise AwsError(message, code="InvalidArgument", status=400) from None


async def _delete_objects(call: Call) -> None:
    tree = xml.parse(await call.document())
    keys = [node.findtext("Key", "") for node in tree.iterfind("Object")]
    if not keys or len(keys) > _PAGE:
        raise xml.malformed()
    await in_thread(call.disk.bucket, call.bucket)
    failures = await in_thread(lambda: [_delete_one(call, key) for key in keys])
    quiet = tree.findtext("Quiet", "").lower() == "true"
    deleted = [key for key, failure in zip(keys, failures, strict=True) if not failure and not quiet]
    results = [xml.element("Deleted", xml.text("Key", key)) for key in deleted]
    await call.answer(body=xml.document("DeleteResult", *results, *failures))


def _delete_one(call: Call, key: str) -> str:
    try:
        access.require_delete(call.request.state.principal(call.identity), call.request, call.bucket, key)
        call.disk.delete(call.bucket, key)
        return ""
    except AwsError as failure:
        code, message = xml.text("Code", failure.code), xml.text("Message", failure.message)
        return xml.element("Error", xml.text("Key", key), code, message)


def _constant(name: str, *content: str) -> Operation:
    """Make an operation whose answer is the same for every bucket that exists."""

    async def answer(call: Call) -> None:
        await in_thread(call.disk.bucket, call.bucket)
        await call.answer(body=xml.document(name, *content))

    return answer


async def _location(call: Call) -> None:
    await in_thread(call.disk.bucket, call.bucket)
    region = call.request.state.partition.region
    # us-east-1 is the region that S3 does not name.
    await call.answer(body=xml.document("LocationConstraint", "" if region == "us-east-1" else region))


_OPERATIONS: Mapping[tuple[str, str, str], Operation] = {
    ("GET", "service", ""): _list_buckets,
    ("GET", "bucket", ""): _list_objects,
    ("PUT", "bucket", ""): _create_bucket,
    ("DELETE", "bucket", ""): _delete_bucket,
    ("POST", "bucket", "delete"): _delete_objects,
    ("GET", "bucket", "location"): _location,
    ("GET", "bucket", "versioning"): _constant("VersioningConfiguration"),
    ("GET", "bucket", "uploads"): multipart.list_uploads,
    ("GET", "object", ""): objects.get_object,
    ("PUT", "object", ""): objects.put_object,
    ("DELETE", "object", ""): objects.delete_object,
    ("GET", "object", "tagging"): objects.get_tagging,
    ("PUT", "object", "tagging"): objects.put_tagging,
    ("DELETE", "object", "tagging"): objects.delete_tagging,
    ("POST", "object", "uploads"): multipart.create_upload,
    ("PUT", "object", "uploadId"): multipart.upload_part,
    ("GET", "object", "uploadId"): multipart.list_parts,
    ("POST", "object", "uploadId"): multipart.complete_upload,
    ("DELETE", "object", "uploadId"): multipart.abort_upload,
}

_ABSENT: Mapping[str, tuple[str, str]] = {
    "policy": ("NoSuchBucketPolicy", "The bucket policy does not exist"),
    "tagging": ("NoSuchTagSet", "The TagSet does not exist"),
    "lifecycle": ("NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist"),
    "cors": ("NoSuchCORSConfiguration", "The CORS configuration does not exist"),
    "website": ("NoSuchWebsiteConfiguration", "The specified bucket does not have a website configuration"),
    "encryption": (
        "ServerSideEncryptionConfigurationNotFoundError",
        "The server side encryption configuration was not found",
    ),
    "publicAccessBlock": (
        "NoSuchPublicAccessBlockConfiguration",
        "The public access block configuration was not found",
    ),
}

# The ones that are not operations above are here so that nobody's `?acl` is taken for a read or write of the object.
_SUBRESOURCES = (
    *dict.fromkeys(name for _, _, name in _OPERATIONS if name),
    *(name for name in _ABSENT if name != "tagging"),
    *("acl", "attributes", "versions", "versionId", "retention", "legal-hold", "torrent", "restore", "select"),
    *("accelerate", "analytics", "inventory", "logging", "metrics", "notification", "object-lock", "ownershipControls"),
    *("policyStatus", "replication", "requestPayment", "intelligent-tiering", "session", "renameObject"),
)
