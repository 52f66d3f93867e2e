"""What an S3 request needs to be allowed, for callers that may not do everything.

Source: the service authorization reference of Amazon S3. A request that this table does not name is refused: whoever
passes it on could not say what it would do.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote

from clary.core.identities import Principal
from clary.core.policy import Inquiry
from clary.errors import AwsError
from clary.gateway.access import circumstances
from clary.gateway.streamed import Streamed

# (method, what is named, subresource) -> action. HEAD is GET.
_ACTIONS: Mapping[tuple[str, str, str], str] = {
    ("GET", "service", ""): "s3:ListAllMyBuckets",
    ("GET", "bucket", ""): "s3:ListBucket",
    ("PUT", "bucket", ""): "s3:CreateBucket",
    ("DELETE", "bucket", ""): "s3:DeleteBucket",
    ("GET", "bucket", "location"): "s3:GetBucketLocation",
    ("GET", "bucket", "versioning"): "s3:GetBucketVersioning",
    ("GET", "bucket", "uploads"): "s3:ListBucketMultipartUploads",
    ("GET", "bucket", "policy"): "s3:GetBucketPolicy",
    ("GET", "bucket", "encryption"): "s3:GetEncryptionConfiguration",
    ("GET", "object", ""): "s3:GetObject",
    ("PUT", "object", ""): "s3:PutObject",
    ("DELETE", "object", ""): "s3:DeleteObject",
    ("GET", "object", "tagging"): "s3:GetObjectTagging",
    ("PUT", "object", "tagging"): "s3:PutObjectTagging",
    ("DELETE", "object", "tagging"): "s3:DeleteObjectTagging",
    ("POST", "object", "uploads"): "s3:PutObject",
    ("PUT", "object", "uploadId"): "s3:PutObject",
    ("GET", "object", "uploadId"): "s3:ListMultipartUploadParts",
    ("POST", "object", "uploadId"): "s3:PutObject",
    ("DELETE", "object", "uploadId"): "s3:AbortMultipartUpload",
}
BULK = ("POST", "bucket", "delete")
"""DeleteObjects: its keys are in the body, so that each is asked for where the body is read."""

_SUBRESOURCES = frozenset(name for _, _, name in (*_ACTIONS, BULK) if name)
# Parameters that change how an answer looks, not what is done.
_HARMLESS = frozenset(
    (
        *("continuation-token", "delimiter", "encoding-type", "fetch-owner", "key-marker", "list-type", "marker"),
        *("max-keys", "max-parts", "max-uploads", "part-number-marker", "partNumber", "prefix", "start-after"),
        *("upload-id-marker", "x-id", "AWSAccessKeyId", "Expires", "Signature"),
    )
)
_HARMLESS_FAMILIES = ("response-", "x-amz-checksum-", "x-amz-meta-", "x-amz-sdk-checksum-")
_SIGNATURE = frozenset(
    f"x-amz-{part}"
    for part in (
        *("algorithm", "content-sha256", "credential", "date", "expires"),
        *("security-token", "signature", "signedheaders", "user-agent"),
    )
)
# Beginnings of headers -> what they ask for beyond the write itself.
_BY_HEADER: Mapping[bytes, str] = {
    b"x-amz-acl": "s3:PutObjectAcl",
    b"x-amz-grant-": "s3:PutObjectAcl",
    b"x-amz-tagging": "s3:PutObjectTagging",
    b"x-amz-object-lock-": "s3:PutObjectRetention",
    b"x-amz-bypass-governance-": "s3:BypassGovernanceRetention",
}


def check(principal: Principal, request: Streamed, *, bulk: bool) -> None:
    """Raise AccessDenied (403) unless the caller may do what the request asks for.

    `bulk`: whoever carries it out asks `require_delete` for each key of a DeleteObjects.
    """
    bucket, key = _name(principal, request.path.removeprefix("/"), plain=not bulk)
    if (place := _place(request, bucket, key)) == BULK and bulk:
        return
    action = _ACTIONS.get(place)
    partition = request.state.partition.name
    if action is None:
        raise _undecidable(principal)
    params = dict(parse_qsl(request.query, keep_blank_values=True))
    around = circumstances(request.source, request.headers)
    context = {f"s3:{name}": (params[name],) for name in ("prefix", "delimiter") if name in params and not key}
    _require(principal, action, _arn(partition, bucket, key), {**around, **context})
    for name in request.headers:
        for start, more in _BY_HEADER.items():
            # A copy's `x-amz-tagging-directive` is no tagging.
            if name.startswith(start) and not name.endswith(b"-directive"):
                _require(principal, more, _arn(partition, bucket, key), around)
    if action == "s3:PutObject" and (source := request.headers.get(b"x-amz-copy-source")) is not None:
        path, question, _ = source.decode("latin-1").removeprefix("/").partition("?")
        place_read = _name(principal, path.replace("%2F", "/", 1) if "/" not in path else path, plain=not bulk)
        _require(principal, "s3:GetObject", _arn(partition, *place_read), around)
        if question:  # a version is asked for; an S3 without versions takes that for the object itself
            _require(principal, "s3:GetObjectVersion", _arn(partition, *place_read), around)


def require_delete(principal: Principal | None, request: Streamed, bucket: str, key: str) -> None:
    """Raise AccessDenied (403) unless the caller may delete the object, by the DeleteObjects that names it."""
    if principal is not None:
        around = circumstances(request.source, request.headers)
        _require(principal, "s3:DeleteObject", _arn(request.state.partition.name, bucket, key), around)


def _place(request: Streamed, bucket: str, key: str) -> tuple[str, str, str]:
    level = "object" if key else "bucket" if bucket else "service"
    given = [name.lower() for name, _ in parse_qsl(request.query, keep_blank_values=True)]
    if len(set(given)) < len(given):
        return "", "", ""  # of two values for one name the server behind may take the other one
    names = {name for name, _ in parse_qsl(request.query, keep_blank_values=True)}
    asked = names & _SUBRESOURCES
    others = {name.lower() for name in names - _SUBRESOURCES - _HARMLESS} - _SIGNATURE
    odd = [name for name in others if not name.startswith(_HARMLESS_FAMILIES)]
    if odd or len(asked) > 1:
        return "", "", ""
    method = "GET" if request.method == "HEAD" else request.method
    return method, level, next(iter(asked), "")


def _name(principal: Principal, path: str, *, plain: bool) -> tuple[str, str]:
    """Split `bucket/key`, each decoded. `plain`: the server behind may take `..` and empty names for something else."""
    parts = path.partition("/")
    try:
        bucket, key = unquote(parts[0], errors="strict"), unquote(parts[2], errors="strict")
    except UnicodeDecodeError:
        raise _undecidable(principal) from None
    if "/" in bucket or (key and not bucket) or (plain and {".", ".."} & set(key.split("/"))):
        raise _undecidable(principal)
    return bucket, key


def _undecidable(principal: Principal) -> AwsError:
    message = f"User: {principal.arn} is not authorized for a request that Clary cannot hold against policies."
    return AwsError(message, code="AccessDenied", status=403)


def _arn(partition: str, bucket: str, key: str) -> str:
    if not bucket:
        return "*"
    return f"arn:{partition}:s3:::{bucket}/{key}" if key else f"arn:{partition}:s3:::{bucket}"


def _require(principal: Principal, action: str, arn: str, context: Mapping[str, tuple[str, ...]]) -> None:
    unknown = ("aws:resourcetag/", "aws:requesttag/", "aws:tagkeys")
    principal.require(Inquiry(action, arn, context, unknown), code="AccessDenied")
