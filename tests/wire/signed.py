"""Requests as botocore's own signers sign them at one moment, and who verifies them then."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from clary.errors import AwsError
from clary.wire.sigv4 import Verifier

KEY, SECRET, REGION = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "us-east-1"
SIGNED_AT = datetime.datetime(2015, 8, 30, 12, 36, 0, tzinfo=datetime.UTC)
HOST = "http://example.amazonaws.com"


def make_verifier(*, after: float = 0.0, secret: str = SECRET, key: str = KEY) -> Verifier:
    return Verifier({key: secret}, REGION, lambda: SIGNED_AT.timestamp() + after)


class Signed:
    """A request as it would reach the server."""

    def __init__(self, request: AWSRequest) -> None:
        parts = urlsplit(request.url)
        self.method = request.method
        self.target = (parts.path + (f"?{parts.query}" if parts.query else "")).encode()
        self.headers = {name.lower().encode(): str(value).encode() for name, value in request.headers.items()}
        self.headers.setdefault(b"host", parts.netloc.encode())
        self.payload = request.body or b""

    def verify(self, verifier: Verifier | None = None) -> Any:
        return (verifier or make_verifier()).verify(self.method, self.target, self.headers, self.payload)


def sign(
    path: str = "/",
    *,
    method: str = "POST",
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    signer: type[SigV4Auth] = SigV4Auth,
    service: str = "sagemaker",
    region: str = REGION,
    token: str | None = None,
    **options: Any,
) -> Signed:
    if issubclass(signer, SigV4QueryAuth):
        body = b""  # botocore would move it into the query
    request = AWSRequest(method, HOST + path, data=body, headers=dict(headers or {}))
    signer(Credentials(KEY, SECRET, token), service, region, **options).add_auth(request)
    return Signed(request)


def refusal(signed: Signed, verifier: Verifier | None = None) -> AwsError:
    with pytest.raises(AwsError) as caught:
        signed.verify(verifier)
    return caught.value
