"""What Clary signs, its own verifier and botocore's rules accept."""

from __future__ import annotations

import pytest

from clary.errors import AwsError
from clary.wire.canonical import strict_resource
from clary.wire.signing import Signer
from clary.wire.sigv4 import UNSIGNED_PAYLOAD, Verifier

NOW = 1_440_938_160.0


@pytest.mark.parametrize("target", [b"/b/k", b"/b/a%20b%2B(c)", b"/b?list-type=2&prefix=a/b+c&uploads"])
def test_what_is_signed_is_accepted(target: bytes) -> None:
    path, _, query = target.partition(b"?")
    resource = strict_resource(path, query, s3=True)
    signer = Signer("AK", "SK", "eu-west-1", "s3", lambda: NOW)
    headers = signer.sign("GET", resource, {b"host": b"s3", b"range": b"bytes=0-1"}, UNSIGNED_PAYLOAD)
    sent = resource[0] + (b"?" + resource[1] if resource[1] else b"")
    verifier = Verifier({"AK": "SK"}, "eu-west-1", lambda: NOW)
    assert verifier.verify("GET", sent, headers, None).service == "s3"
    with pytest.raises(AwsError):
        verifier.verify("GET", sent, headers | {b"range": b"bytes=0-2"}, None)


def test_the_key_follows_the_date() -> None:
    now = [NOW]
    signer = Signer("AK", "SK", "us-east-1", "s3", lambda: now[0])
    verifier = Verifier({"AK": "SK"}, "us-east-1", lambda: now[0])
    for day in range(3):
        now[0] = NOW + day * 86400
        headers = signer.sign("GET", (b"/", b""), {b"host": b"s3"}, UNSIGNED_PAYLOAD)
        assert verifier.verify("GET", b"/", headers, None).timestamp.startswith("201508" if day < 2 else "201509")
