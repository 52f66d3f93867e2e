"""S3's presigned URLs of signature version 2: what boto3 makes unless it is told otherwise, in us-east-1.

Source: the S3 API reference, "Signing and authenticating REST requests (AWS signature version 2)", query string request
authentication. Only this form is taken: every client signs its own requests by version 4.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote_to_bytes

from clary.errors import AwsError
from clary.wire.canonical import Request

MARK = b"AWSAccessKeyId="

# The parameters that name another operation or change the answer; all others are not covered by the signature.
_SIGNED_PARAMETERS = frozenset(
    (
        *("accelerate", "acl", "analytics", "cors", "defaultObjectAcl", "delete", "inventory", "lifecycle", "location"),
        *("logging", "metrics", "notification", "object-lock", "partNumber", "policy", "replication", "requestPayment"),
        *("restore", "select", "select-type", "storageClass", "tagging", "torrent", "uploadId", "uploads", "versionId"),
        *("versioning", "versions", "website", "response-cache-control", "response-content-disposition"),
        *("response-content-encoding", "response-content-language", "response-content-type", "response-expires"),
    )
)


def verify_presigned(request: Request, secrets: Mapping[str, str], now: float) -> str:
    """Tell which access key signed a URL.

    Raises AwsError InvalidAccessKeyId, SignatureDoesNotMatch or AccessDenied (403).
    """
    given = dict(parse_qsl(request.query.decode("latin-1"), keep_blank_values=True))
    access_key_id, expires = given.get("AWSAccessKeyId", ""), given.get("Expires", "")
    secret = secrets.get(access_key_id)
    if secret is None:
        message = "The AWS Access Key Id you provided does not exist in our records."
        raise AwsError(message, code="InvalidAccessKeyId", status=403)
    if not (expires.isascii() and expires.isdigit() and len(expires) < 12):
        message = "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters"
        raise AwsError(message, code="AccessDenied", status=403)
    expected = b64encode(hmac.digest(secret.encode(), _string_to_sign(request, given), "sha1"))
    if not hmac.compare_digest(expected, given.get("Signature", "").encode()):
        message = (
            "The request signature we calculated does not match the signature you provided. Check your key and "
            "signing method."
        )
        raise AwsError(message, code="SignatureDoesNotMatch", status=403)
    if now > int(expires):
        raise AwsError("Request has expired", code="AccessDenied", status=403)
    return access_key_id


def _string_to_sign(request: Request, given: Mapping[str, str]) -> bytes:
    # A presigning client puts headers that it signs into the query, where the one who uses the URL may leave them.
    in_query = {name.lower().encode(): value.encode() for name, value in given.items()}
    headers = {**in_query, **request.headers}
    lines = [request.method.encode(), headers.get(b"content-md5", b""), headers.get(b"content-type", b"")]
    lines.append(given["Expires"].encode())
    lines += [name + b":" + headers[name].strip() for name in sorted(headers) if name[:6] == b"x-amz-"]
    pairs = (pair.partition(b"=") for pair in request.query.split(b"&"))
    signed = sorted(
        (name, equals + unquote_to_bytes(value))
        for name, equals, value in pairs
        if name.decode("latin-1") in _SIGNED_PARAMETERS
    )
    resource = b"&".join(name + value for name, value in signed)
    lines.append(request.path + (b"?" + resource if resource else b""))
    return b"\n".join(lines)
