"""Bearer tokens as AWS's SDKs make them: a presigned URL in Base64, so whoever knows the secret can verify one offline.

`sagemaker-api-key-` and then the Base64 of `sagemaker.amazonaws.com/?Action=CallWithBearerToken&X-Amz-...&Version=1`,
presigned for POST; the version comes after the signature and is not covered by it (sagemaker-core, token_generator).
"""

from __future__ import annotations

import base64
import binascii
from urllib.parse import parse_qs

from clary.errors import AwsError
from clary.wire.sigv4 import Identity, Verifier, seconds

PREFIX = b"sagemaker-api-key-"
LONGEST = 12 * 3600
"""Seconds for which a token may hold at most."""

_ACTION = ["CallWithBearerToken"]
_VERSION = b"&Version=1"


def verify(verifier: Verifier, token: bytes) -> Identity:
    """Tell who made a token. Raises AwsError under AWS's own codes for a forgery, and for one that is over."""
    try:
        if not token.startswith(PREFIX):
            raise ValueError("not a token of this kind")
        url = base64.b64decode(token[len(PREFIX) :], validate=True).removeprefix(b"https://")
        place, mark, query = url.removesuffix(_VERSION).partition(b"?")
        host, _, path = place.partition(b"/")
        given = parse_qs(query.decode("ascii"), strict_parsing=True)
        # One of each: of a name that came twice, others may read the other value.
        once = all(len(values) == 1 for values in given.values())
        well_made = once and bool(mark) and not path and given.get("Action") == _ACTION
        holds = seconds(given.get("X-Amz-Expires", ["0"])[0])
    except (binascii.Error, ValueError):
        raise _refusal("The bearer token is malformed.") from None
    if not well_made:
        raise _refusal("The bearer token is malformed.")
    if not 0 <= holds <= LONGEST:
        raise _refusal(f"The bearer token holds for longer than {LONGEST} seconds.")
    identity = verifier.verify("POST", b"/?" + query, {b"host": host}, b"")
    if identity.service != "sagemaker":
        raise _refusal(f"The bearer token was signed for '{identity.service}', not for 'sagemaker'.")
    return identity


def _refusal(message: str) -> AwsError:
    return AwsError(message, code="UnrecognizedClientException", status=403)
