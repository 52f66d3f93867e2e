"""Why a signature is not accepted, in the words of S3 and of everyone else.

Statuses: JSON 1.1 services answer 400, REST services and S3 answer 403. AWS documents neither for each code; that split
is what its services are seen to do. A request speaks JSON 1.1 when it has an `X-Amz-Target`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from clary.errors import AwsError


class Refusal(NamedTuple):
    """One reason, in the words of S3 and of everyone else; without a wording of its own, S3 uses the others'."""

    code: str
    s3_code: str
    s3_status: int = 403
    s3_message: str = ""
    query_code: str = ""
    """The query protocol's, where it has one of its own."""

    def error(self, headers: Mapping[bytes, bytes], message: str, *, s3: bool) -> AwsError:
        if s3:
            return AwsError(self.s3_message or message, code=self.s3_code, status=self.s3_status)
        if self.query_code and headers.get(b"content-type", b"").startswith(b"application/x-www-form-urlencoded"):
            return AwsError(message, code=self.query_code, status=403)
        return AwsError(message, code=self.code, status=400 if b"x-amz-target" in headers else 403)


MISSING = Refusal("MissingAuthenticationTokenException", "AccessDenied")
MALFORMED = Refusal("IncompleteSignatureException", "AuthorizationHeaderMalformed", 400)
BAD_QUERY = Refusal("IncompleteSignatureException", "AuthorizationQueryParametersError", 400)
TWO_WAYS = Refusal("IncompleteSignatureException", "InvalidArgument", 400)
SCOPE = Refusal("InvalidSignatureException", "AuthorizationHeaderMalformed", 400)
UNSIGNED_HEADER = Refusal("InvalidSignatureException", "AccessDenied")
EXPIRED = Refusal("InvalidSignatureException", "AccessDenied", 403, "Request has expired")
SKEWED = Refusal(
    "InvalidSignatureException",
    "RequestTimeTooSkewed",
    403,
    "The difference between the request time and the current time is too large.",
)
UNKNOWN_KEY = Refusal(
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    403,
    "The AWS Access Key Id you provided does not exist in our records.",
    "InvalidClientTokenId",
)
BAD_TOKEN = Refusal(
    "UnrecognizedClientException",
    "InvalidToken",
    400,
    "The provided token is malformed or otherwise invalid.",
    "InvalidClientTokenId",
)
EXPIRED_TOKEN = Refusal("ExpiredTokenException", "ExpiredToken", 400, "The provided token has expired.", "ExpiredToken")
MISMATCH = Refusal(
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    403,
    "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
)
MISMATCH_MESSAGE = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)
