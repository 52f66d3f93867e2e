"""Bearer tokens, made as the SDK makes them with botocore's signer."""

from __future__ import annotations

import base64
import time
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from clary.errors import AwsError
from clary.wire import bearer
from clary.wire.sigv4 import Session, Verifier

KEY, SECRET, REGION, TOKEN = "AKIATEST", "secret", "us-east-1", "session token"


def token(
    *,
    key: str = KEY,
    secret: str = SECRET,
    region: str = REGION,
    service: str = "sagemaker",
    action: str = "CallWithBearerToken",
    expires: int = 43200,
    session: str | None = None,
    method: str = "POST",
) -> bytes:
    host = "sagemaker.amazonaws.com"
    request = AWSRequest(method, f"https://{host}/", headers={"host": host}, params={"Action": action})
    SigV4QueryAuth(Credentials(key, secret, session), service, region, expires=expires).add_auth(request)
    parts = urlsplit(request.url)
    return wrapped(f"{parts.netloc}{parts.path}?{parts.query}&Version=1")


def wrapped(url: str) -> bytes:
    return bearer.PREFIX + base64.b64encode(url.encode())


def unwrapped(made: bytes) -> str:
    return base64.b64decode(made.removeprefix(bearer.PREFIX)).decode()


@pytest.fixture
def verifier() -> Verifier:
    return Verifier({KEY: SECRET}, REGION, time.time)


def test_a_token_says_who_made_it(verifier: Verifier) -> None:
    identity = bearer.verify(verifier, token())
    assert (identity.access_key_id, identity.service) == (KEY, "sagemaker")
    assert bearer.verify(verifier, wrapped("https://" + unwrapped(token()))).access_key_id == KEY


def test_a_token_of_temporary_credentials_carries_theirs() -> None:
    sessions = {("ASIA", TOKEN): Session(SECRET, time.time() + 1000)}
    made = token(session=TOKEN)
    verifier = Verifier({}, REGION, time.time, sessions=lambda key, said: sessions.get(("ASIA", said)))
    assert bearer.verify(verifier, made).token == TOKEN


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (token(secret="wrong"), "InvalidSignatureException"),
        (token(region="eu-west-1"), "InvalidSignatureException"),
        (token(service="s3"), "SignatureDoesNotMatch"),
        (token(service="bedrock"), "UnrecognizedClientException"),
        (token(action="GetCallerIdentity"), "UnrecognizedClientException"),
        (token(method="GET"), "InvalidSignatureException"),
        (token(expires=43201), "UnrecognizedClientException"),
        (b"sk-something-else", "UnrecognizedClientException"),
        (bearer.PREFIX, "UnrecognizedClientException"),
        (bearer.PREFIX + b"!!!", "UnrecognizedClientException"),
        (wrapped("no url"), "UnrecognizedClientException"),
        (wrapped("host/path?Action=CallWithBearerToken"), "UnrecognizedClientException"),
        (wrapped("host/?Action=CallWithBearerToken&X-Amz-Expires=1"), "MissingAuthenticationTokenException"),
        (wrapped("host/?Action=CallWithBearerToken&X-Amz-Expires=" + "1" * 5000), "UnrecognizedClientException"),
        (wrapped("host/?Action=CallWithBearerToken&X-Amz-Expires=%C2%B2"), "UnrecognizedClientException"),
        (wrapped(unwrapped(token()).replace("?", "?X-Amz-Expires=1&")), "UnrecognizedClientException"),
        (bearer.PREFIX + base64.b64encode(b"\xff\xfe/?\xff=1"), "UnrecognizedClientException"),
    ],
)
def test_what_is_not_a_good_token_is_refused(verifier: Verifier, made: bytes, code: str) -> None:
    with pytest.raises(AwsError) as caught:
        bearer.verify(verifier, made)
    assert caught.value.code == code


def test_another_action_cannot_be_slipped_in(verifier: Verifier) -> None:
    url = unwrapped(token())
    for changed in (url.replace("?", "?Action=Other&"), url + "&Action=Other", url.replace("sagemaker.", "other.")):
        with pytest.raises(AwsError):
            bearer.verify(verifier, wrapped(changed))


def test_a_token_ends_when_it_says() -> None:
    late = Verifier({KEY: SECRET}, REGION, lambda: time.time() + 43300)
    with pytest.raises(AwsError, match="Signature expired"):
        bearer.verify(late, token())
