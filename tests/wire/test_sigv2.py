"""Presigned URLs of signature version 2, made by botocore."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from botocore.auth import HmacV1QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from clary.errors import AwsError
from clary.wire.sigv4 import Verifier

NOW = 1_440_938_160.0


def presigned(path: str, monkeypatch: pytest.MonkeyPatch, **headers: str) -> tuple[bytes, dict[bytes, bytes]]:
    request = AWSRequest("GET", f"http://s3{path}", headers=headers)
    monkeypatch.setattr("botocore.auth.time.time", lambda: NOW)
    HmacV1QueryAuth(Credentials("AK", "SK"), expires=60).add_auth(request)
    parts = urlsplit(request.url)
    return f"{parts.path}?{parts.query}".encode(), {b"host": b"s3"}


def verify(target: bytes, headers: dict[bytes, bytes], *, key: str = "AK", secret: str = "SK", after: float = 0) -> str:
    identity = Verifier({key: secret}, "us-east-1", lambda: NOW + after).verify("GET", target, headers, None)
    return identity.access_key_id


@pytest.mark.parametrize("path", ["/b/k", "/b/a%20b%2B", "/b/k?tagging", "/b/k?response-content-type=a%2Fb&x=1"])
def test_what_botocore_signs_is_accepted_until_it_expires(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, headers = presigned(path, monkeypatch)
    assert verify(target, headers, after=60) == "AK"
    with pytest.raises(AwsError, match="Request has expired"):
        verify(target, headers, after=61)


def test_a_url_that_was_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    target, headers = presigned("/b/k?versionId=1", monkeypatch)
    for changed, more in (
        (target.replace(b"/k", b"/l"), {}),
        (target.replace(b"versionId=1", b"versionId=2"), {}),
        (target + b"&uploads", {}),
        (target, {b"x-amz-copy-source": b"b/secret"}),
        (target, {b"content-type": b"text/plain"}),
        (target.replace(b"Expires=1", b"Expires=9"), {}),
    ):
        with pytest.raises(AwsError) as caught:
            verify(changed, headers | more)
        assert (caught.value.code, caught.value.status) == ("SignatureDoesNotMatch", 403)


def test_an_unknown_key_and_a_wrong_secret_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    target, headers = presigned("/b/k", monkeypatch)
    with pytest.raises(AwsError) as caught:
        verify(target, headers, key="OTHER")
    assert caught.value.code == "InvalidAccessKeyId"
    with pytest.raises(AwsError) as caught:
        verify(target, headers, secret="other")
    assert caught.value.code == "SignatureDoesNotMatch"


def test_it_opens_nothing_but_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    target, headers = presigned("/b/k", monkeypatch)
    with pytest.raises(AwsError, match="Missing Authentication Token"):
        Verifier({"AK": "SK"}, "us-east-1", lambda: NOW).verify("GET", target, headers, b"")
