"""Payloads that are hashed, unsigned or come later, and presigned URLs, as S3's clients have them."""

from __future__ import annotations

from hashlib import sha256
from typing import Any
from unittest import mock

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4QueryAuth

from clary.errors import AwsError
from clary.wire.sigv4 import UNSIGNED_PAYLOAD
from tests.wire.signed import make_verifier, refusal, sign

pytestmark = pytest.mark.usefixtures("signing_time")


def test_other_services_than_s3_take_no_unsigned_payload() -> None:
    signed = sign(body=b"x", headers={"X-Amz-Content-SHA256": UNSIGNED_PAYLOAD})
    assert refusal(signed).code == "InvalidSignatureException"
    with pytest.raises(AwsError, match="correct service: 's3'"):
        make_verifier().verify("POST", b"/", sign().headers, None)


def test_a_declared_hash_that_is_right_is_accepted() -> None:
    assert sign(body=b"x", headers={"X-Amz-Content-SHA256": sha256(b"x").hexdigest()}).verify().service == "sagemaker"


def test_s3_takes_a_body_that_comes_later_and_hands_on_its_hash() -> None:
    signed = sign("/b/k", method="PUT", body=b"data", signer=S3SigV4Auth, service="s3")
    identity = make_verifier().verify(signed.method, signed.target, signed.headers, None)
    assert identity.payload_hash == sha256(b"data").hexdigest()


def test_s3_refuses_a_body_with_another_hash_than_declared() -> None:
    signed = sign("/b/k", method="PUT", body=b"data", signer=S3SigV4Auth, service="s3")
    signed.payload = b"other"
    error = refusal(signed)
    assert (error.code, error.status) == ("XAmzContentSHA256Mismatch", 400)


@pytest.mark.parametrize(
    "declared", [UNSIGNED_PAYLOAD, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"]
)
def test_s3_takes_unsigned_and_streamed_payloads(declared: str) -> None:
    with mock.patch.object(S3SigV4Auth, "payload", lambda *_: declared):
        signed = sign("/b/k", method="PUT", body=b"data", signer=S3SigV4Auth, service="s3")
    assert signed.verify().payload_hash == declared


@pytest.mark.parametrize("declared", ["", "nonsense"])
def test_s3_refuses_a_request_that_says_nothing_of_its_payload(declared: str) -> None:
    with mock.patch.object(S3SigV4Auth, "payload", lambda *_: declared):
        signed = sign("/b/k", method="PUT", body=b"data", signer=S3SigV4Auth, service="s3")
    assert refusal(signed).status == 400


def test_s3_clients_that_sign_by_awss_prose_are_accepted() -> None:
    """They send characters bare that AWS encodes, and sign the encoded form."""
    signed = sign("/b/a%28b%29?prefix=a%20b%2Fc", method="GET", signer=S3SigV4Auth, service="s3")
    signed.target = b"/b/a(b)?prefix=a+b/c"
    assert signed.verify().service == "s3"


def test_a_presigned_url_holds_until_it_expires() -> None:
    signed = sign("/b/k?x=1", method="GET", signer=S3SigV4QueryAuth, service="s3", expires=600)
    assert signed.verify(make_verifier(after=600)).payload_hash == UNSIGNED_PAYLOAD
    error = refusal(signed, make_verifier(after=601))
    assert (error.code, error.message, error.status) == ("AccessDenied", "Request has expired", 403)
    bearer = sign("/?Action=CallWithBearerToken", signer=SigV4QueryAuth, expires=43200)
    assert bearer.verify(make_verifier(after=43200)).service == "sagemaker"
    assert refusal(bearer, make_verifier(after=43201)).message.startswith("Signature expired: 20150830T123600Z")
    assert refusal(bearer, make_verifier(after=-400)).message.startswith("Signature not yet current")


@pytest.mark.parametrize("expires", ["0", "604801", "-1", "soon", "1" * 5000, "\u00b2"])
def test_a_presigned_url_is_good_for_a_week_at_most(expires: Any) -> None:
    signed = sign("/b/k", method="GET", signer=S3SigV4QueryAuth, service="s3", expires=expires)
    assert refusal(signed).code == "AuthorizationQueryParametersError"


def test_a_presigned_url_that_lacks_a_part_is_refused() -> None:
    signed = sign("/b/k", method="GET", signer=S3SigV4QueryAuth, service="s3")
    signed.target = signed.target.replace(b"X-Amz-Date", b"X-Amz-Dote")
    assert refusal(signed).code == "AuthorizationQueryParametersError"


def test_one_request_is_not_signed_in_two_ways() -> None:
    signed = sign("/b/k", method="GET", signer=S3SigV4QueryAuth, service="s3")
    signed.headers[b"authorization"] = sign("/b/k", signer=S3SigV4Auth, service="s3").headers[b"authorization"]
    assert refusal(signed).code == "InvalidArgument"
