"""Requests signed by botocore's own signers are accepted, and nothing else is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from hypothesis import given
from hypothesis import strategies as st

from clary.errors import AwsError
from clary.wire.sigv4 import Session, Verifier
from tests.wire.signed import KEY, REGION, SECRET, SIGNED_AT, Signed, make_verifier, refusal, sign

pytestmark = pytest.mark.usefixtures("signing_time")


def test_the_published_get_vanilla_example_is_accepted() -> None:
    """AWS's test suite `get-vanilla`: its signature is written here as AWS printed it."""
    signature = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
    authorization = (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders=host;x-amz-date, Signature={signature}"
    )
    headers = {
        b"host": b"example.amazonaws.com",
        b"x-amz-date": b"20150830T123600Z",
        b"authorization": authorization.encode(),
    }
    identity = make_verifier().verify("GET", b"/", headers, b"")
    assert (identity.access_key_id, identity.service, identity.region) == (KEY, "service", REGION)
    assert (identity.signature, identity.scope) == (signature, "20150830/us-east-1/service/aws4_request")


SERVICES = [(SigV4Auth, "sagemaker"), (S3SigV4Auth, "s3")]


@pytest.mark.parametrize(("signer", "service"), SERVICES)
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/endpoints/churn/invocations",
        "/endpoints/a%20b/invocations",
        "/a/../b//c/./d/",
        "/..",
        "/caf%C3%A9/%7Eme/%2F",
        "/?Param2=value2&Param1=value1",
        "/?list-type=2&prefix=a%2Fb%20c&delimiter=%2F",
        "/bucket?uploads",
        "/bucket?a=2&a=1&b",
    ],
)
def test_what_botocore_signs_is_accepted(signer: type[SigV4Auth], service: str, path: str) -> None:
    signed = sign(path, signer=signer, service=service, body=b"{}", headers={"Content-Type": "application/json"})
    assert signed.verify().service == service


SEGMENT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).map(lambda text: quote(text, safe="~"))
PATH = st.lists(SEGMENT | st.sampled_from([".", "..", ""]), max_size=6).map(lambda parts: "/" + "/".join(parts))
PAIR = st.tuples(SEGMENT, SEGMENT).map("=".join)
QUERY = st.lists(PAIR, max_size=4).map("&".join)
VALUE = st.text(st.sampled_from("ab \t,;=é日"), max_size=12)
SIGNERS = st.sampled_from([*SERVICES, (SigV4QueryAuth, "sagemaker"), (S3SigV4QueryAuth, "s3")])


@given(signer=SIGNERS, path=PATH, query=QUERY, value=VALUE, body=st.binary(max_size=20))
def test_odd_paths_queries_and_headers_are_accepted(
    signer: Any, path: str, query: str, value: str, body: bytes
) -> None:
    if path.startswith("//"):
        path = "/x" + path  # urlsplit, which botocore uses, would take it for a host
    made, service = signer
    target = f"{path}?{query}" if query else path
    headers = {"X-Amz-Meta-Note": value, "Accept": f" {value} "}
    assert sign(target, body=body, headers=headers, signer=made, service=service).verify().access_key_id == KEY


@given(signer=SIGNERS, data=st.data())
def test_tampering_with_any_part_is_refused(signer: Any, data: st.DataObject) -> None:
    made, service = signer
    signed = sign("/a/b?x=1", body=b"body", headers={"X-Amz-Meta-Note": "n"}, signer=made, service=service)
    part = data.draw(st.sampled_from(["method", "path", "query", "header", "unsigned header", "host", "payload"]))
    match part:
        case "method":
            signed.method = "PUT"
        case "path":
            signed.target = signed.target.replace(b"/a/b", b"/a/c")
        case "query":
            signed.target = signed.target.replace(b"x=1", b"x=2")
        case "header":
            signed.headers[b"x-amz-meta-note"] = b"m"
        case "unsigned header":
            signed.headers[b"x-amz-acl"] = b"public-read"
        case "host":
            signed.headers[b"host"] = b"elsewhere"
        case "payload" if made is S3SigV4QueryAuth:
            return  # S3's presigned URLs say UNSIGNED-PAYLOAD
        case "payload":
            signed.payload = b"other"
    assert refusal(signed).code in {
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "AccessDenied",
        "XAmzContentSHA256Mismatch",
    }


def test_a_request_is_verified_from_the_cache_as_strictly_as_the_first_time() -> None:
    verifier = make_verifier()
    sign(body=b"one").verify(verifier)
    sign(body=b"two").verify(verifier)
    forged = sign(body=b"three")
    forged.payload = b"four"
    assert refusal(forged, verifier).code == "InvalidSignatureException"


def verdict(signed: Signed, verifier: Verifier) -> Any:
    try:
        return signed.verify(verifier)[:7]
    except AwsError as error:
        return (error.code, error.message)


TAMPERING: Mapping[str, tuple[str, Any]] = {
    "nothing": ("payload", b"body"),
    "the method": ("method", "PUT"),
    "the path": ("target", b"/a%20c"),
    "the path, sent as it was signed": ("target", b"/a%2520b"),
    "the path, with a dot segment": ("target", b"/./a%20b"),
    "a query": ("target", b"/a%20b?x"),
    "the payload": ("payload", b"other"),
    "no payload": ("payload", b""),
    "a header": (b"x-amz-meta-note", b"m"),
    "a header, with spaces": (b"x-amz-meta-note", b" n  o "),
    "a header, with a line of another": (b"x-amz-meta-note", b"n o\nx-amz-more:"),
    "a header, made empty": (b"x-amz-meta-note", b""),
    "a header, left out": (b"x-amz-meta-note", None),
    "an unsigned x-amz header": (b"x-amz-acl", b"public-read"),
    "an unsigned header": (b"x-more", b"more"),
    "the host": (b"host", b"elsewhere"),
    "the date": (b"x-amz-date", b"20150830T123601Z"),
    "the date, of long ago": (b"x-amz-date", b"20150830T113600Z"),
    "the date, garbled": (b"x-amz-date", b"20150830T123600z"),
    "the date, left out": (b"x-amz-date", None),
    "a hash that is not the payload's": (b"x-amz-content-sha256", b"0" * 64),
    "a signature": (b"authorization", b"0" * 64),
}


@pytest.mark.parametrize("part", TAMPERING)
@pytest.mark.parametrize("headers", [{"X-Amz-Meta-Note": "n o"}, {"X-Amz-Meta-Note": " n   o ", "X-100%": "%b%"}])
def test_who_was_seen_before_is_judged_like_a_stranger(part: str, headers: Mapping[str, str]) -> None:
    seen = make_verifier()
    sign("/a%20b", body=b"before", headers=headers).verify(seen)
    signed = sign("/a%20b", body=b"body", headers=headers)
    place, value = TAMPERING[part]
    if isinstance(place, str):
        setattr(signed, place, value)
    elif place == b"authorization":
        signed.headers[place] = signed.headers[place][:-64] + value
    elif value is None:
        del signed.headers[place]
    else:
        signed.headers[place] = value
    stranger = verdict(signed, make_verifier())
    assert verdict(signed, seen) == verdict(signed, seen) == stranger
    harmless = ("nothing", "an unsigned header", "a header, with spaces", "the path, with a dot segment")
    assert (stranger[0] == KEY) == (part in harmless)


def test_what_is_remembered_is_bounded() -> None:
    verifier = make_verifier()
    for number in range(300):
        signed = sign(body=b"body")
        signed.headers[f"x-{number}".encode()] = b"unsigned"
        assert signed.verify(verifier).access_key_id == KEY
    (known,) = verifier._signers.values()
    assert len(known.covered) <= 128


def test_a_key_that_was_removed_is_refused_although_it_was_seen_before() -> None:
    secrets = {KEY: SECRET}
    verifier = Verifier(secrets, REGION, SIGNED_AT.timestamp)
    sign().verify(verifier)
    del secrets[KEY]
    assert refusal(sign(), verifier).code == "UnrecognizedClientException"


def test_a_request_without_credentials_is_refused() -> None:
    with pytest.raises(AwsError, match="Missing Authentication Token") as caught:
        make_verifier().verify("POST", b"/", {b"host": b"x"}, b"")
    assert (caught.value.code, caught.value.status) == ("MissingAuthenticationTokenException", 403)


def test_the_json_protocol_answers_400_and_rest_403() -> None:
    with pytest.raises(AwsError) as caught:
        make_verifier().verify("POST", b"/", {b"x-amz-target": b"SageMaker.ListEndpoints"}, b"")
    assert caught.value.status == 400
    signed = sign(headers={"X-Amz-Target": "SageMaker.ListEndpoints"})
    assert refusal(signed, make_verifier(secret="another")).status == 400
    assert refusal(sign(), make_verifier(secret="another")).status == 403


@pytest.mark.parametrize(
    ("signer", "service", "code"),
    [
        (SigV4Auth, "sagemaker", "UnrecognizedClientException"),
        (S3SigV4Auth, "s3", "InvalidAccessKeyId"),
        (S3SigV4QueryAuth, "s3", "InvalidAccessKeyId"),
    ],
)
def test_an_unknown_key_is_refused(signer: type[SigV4Auth], service: str, code: str) -> None:
    error = refusal(sign(signer=signer, service=service), make_verifier(key="OTHER"))
    assert (error.code, error.status) == (code, 403)


def test_a_wrong_secret_is_refused_in_awss_words() -> None:
    error = refusal(sign(), make_verifier(secret="another"))
    assert error.code == "InvalidSignatureException"
    assert error.message.startswith("The request signature we calculated does not match the signature you provided.")
    assert refusal(sign(signer=S3SigV4Auth, service="s3"), make_verifier(secret="no")).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (301, "Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z (20150830T124101Z - 5 min.)"),
        (
            -301,
            "Signature not yet current: 20150830T123600Z is still later than 20150830T123559Z "
            "(20150830T123059Z + 5 min.)",
        ),
    ],
)
def test_a_clock_that_is_off_is_refused(after: float, message: str) -> None:
    error = refusal(sign(), make_verifier(after=after))
    assert (error.code, error.message) == ("InvalidSignatureException", message)
    assert refusal(sign(signer=S3SigV4Auth, service="s3"), make_verifier(after=after)).code == "RequestTimeTooSkewed"
    sign().verify(make_verifier(after=after * 300 / 301))


def test_the_clock_moves_on() -> None:
    now = [SIGNED_AT.timestamp()]
    verifier = Verifier({KEY: SECRET}, REGION, lambda: now[0])
    sign().verify(verifier)
    now[0] += 301
    assert "Signature expired" in refusal(sign(), verifier).message


def test_a_scope_of_another_region_date_or_terminator_is_refused() -> None:
    assert "valid region, not 'eu-west-1'" in refusal(sign(region="eu-west-1")).message
    error = refusal(sign(region="eu-west-1", signer=S3SigV4Auth, service="s3"))
    assert (error.code, error.status) == ("AuthorizationHeaderMalformed", 400)
    for old, new in ((b"/20150830/", b"/20150831/"), (b"aws4_request", b"aws5_request")):
        signed = sign()
        signed.headers[b"authorization"] = signed.headers[b"authorization"].replace(old, new)
        assert refusal(signed).code == "InvalidSignatureException"


@pytest.mark.parametrize(
    "authorization",
    [
        b"",
        b"Bearer abc",
        b"AWS4-HMAC-SHA256",
        b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/sagemaker/aws4_request, Signature=00",
        b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE, SignedHeaders=host, Signature=00",
        b"AWS4-HMAC-SHA256 Credential=\xff, SignedHeaders=\xff, Signature=\xff",
    ],
)
def test_a_malformed_authorization_is_refused(authorization: bytes) -> None:
    signed = sign()
    signed.headers[b"authorization"] = authorization
    assert refusal(signed).code == "IncompleteSignatureException"


def test_a_missing_or_garbled_date_is_refused() -> None:
    signed = sign()
    del signed.headers[b"x-amz-date"]
    assert refusal(signed).code == "IncompleteSignatureException"
    signed.headers[b"x-amz-date"] = b"20150830Tgarbled"
    assert refusal(signed).code == "IncompleteSignatureException"
    del signed.headers[b"x-amz-date"]
    for date in (b"soon", b"Fri, 31 Dec 9999 23:59:59 -2359"):
        signed.headers[b"date"] = date
        assert refusal(signed).code == "IncompleteSignatureException"


def test_a_date_header_may_stand_in_for_x_amz_date() -> None:
    signed = sign(headers={"Date": "to be replaced"})
    assert b"x-amz-date" not in signed.headers
    assert signed.verify().timestamp == "20150830T123600Z"


def test_the_parts_of_the_authorization_may_come_in_another_order_and_without_spaces() -> None:
    signed, verifier = sign(), make_verifier()
    credential, headers, signature = signed.headers[b"authorization"].partition(b" ")[2].split(b", ")
    signed.headers[b"authorization"] = b"AWS4-HMAC-SHA256 " + b",".join((signature, headers, credential))
    signed.verify(verifier)
    signed.verify(verifier)


def test_an_unsigned_host_is_refused() -> None:
    signed = sign()
    signed.headers[b"authorization"] = signed.headers[b"authorization"].replace(b"=host;", b"=")
    assert "'Host'" in refusal(signed).message


def test_what_steers_an_invocation_is_signed() -> None:
    assert sign(headers={"X-Amzn-SageMaker-Target-Variant": "a"}).verify().access_key_id == KEY
    signed = sign()
    signed.headers[b"x-amzn-sagemaker-target-variant"] = b"slipped in"
    assert refusal(signed).message == "There were headers present in the request which were not signed"
    signed = sign()
    signed.headers[b"x-amzn-trace-id"] = b"added by those on the way"
    assert signed.verify().access_key_id == KEY


def test_what_no_body_can_avert_is_foreseen() -> None:
    def foreseen(signed: Signed, verifier: Verifier | None = None) -> str:
        with pytest.raises(AwsError) as caught:
            (verifier or make_verifier()).foresee(signed.method, signed.target, signed.headers)
        assert caught.value.message == refusal(signed, verifier).message
        return caught.value.code

    good, presigned, bad = sign(body=b"{}"), sign(signer=SigV4QueryAuth, expires=60), sign()
    for signed in (good, presigned):
        make_verifier().foresee(signed.method, signed.target, signed.headers)
        assert foreseen(signed, make_verifier(key="AKIAOTHER")) == "UnrecognizedClientException"
        assert foreseen(signed, make_verifier(after=4000)) == "InvalidSignatureException"
    bad.headers[b"authorization"] = b"x"
    assert foreseen(bad) == "IncompleteSignatureException"
    del bad.headers[b"authorization"]
    assert foreseen(bad) == "MissingAuthenticationTokenException"


def test_a_session_token_is_tolerated_only_when_it_is_signed() -> None:
    assert sign(token="left-over").verify().access_key_id == KEY
    signed = sign()
    signed.headers[b"x-amz-security-token"] = b"slipped in"
    assert refusal(signed).code == "InvalidSignatureException"
    assert sign("/b/k", method="GET", token="t", signer=S3SigV4QueryAuth, service="s3").verify().service == "s3"


def sessions(key: str, token: str) -> Session | None:
    """Know one session, which lasts 100 seconds."""
    return Session(SECRET, SIGNED_AT.timestamp() + 100) if (key, token) == (KEY, "good") else None


def session_verifier(after: float = 0.0) -> Verifier:
    return Verifier({}, REGION, lambda: SIGNED_AT.timestamp() + after, sessions=sessions)


FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}


def test_a_token_tells_of_an_access_key_that_nobody_knows() -> None:
    verifier = session_verifier()
    for _ in range(2):  # parsed, then remembered
        assert sign(token="good").verify(verifier).token == "good"
    presigned = sign("/b/k", method="GET", token="good", signer=S3SigV4QueryAuth, service="s3")
    assert presigned.verify(verifier).token == "good"
    assert sign(token="good").verify().token == ""  # beside a known key it means nothing


def test_a_session_ends_also_for_who_was_seen_before() -> None:
    now = [SIGNED_AT.timestamp()]
    verifier = Verifier({}, REGION, lambda: now[0], sessions=sessions)
    signed = sign(token="good")
    signed.verify(verifier)
    now[0] += 100
    error = refusal(signed, verifier)
    assert (error.code, error.message) == (
        "ExpiredTokenException",
        "The security token included in the request is expired",
    )


def test_a_remembered_session_is_not_lent_to_another_token() -> None:
    verifier = session_verifier()
    sign(token="good").verify(verifier)
    assert refusal(sign(token="bad"), verifier).code == "UnrecognizedClientException"
    assert refusal(sign(), verifier).code == "UnrecognizedClientException"


@pytest.mark.parametrize(
    ("options", "bad", "late", "status"),
    [
        ({"headers": {"X-Amz-Target": "x"}}, "UnrecognizedClientException", "ExpiredTokenException", 400),
        ({}, "UnrecognizedClientException", "ExpiredTokenException", 403),
        ({"headers": FORM, "service": "sts"}, "InvalidClientTokenId", "ExpiredToken", 403),
        ({"signer": S3SigV4Auth, "service": "s3"}, "InvalidToken", "ExpiredToken", 400),
    ],
)
def test_each_protocol_has_its_words_for_a_bad_token(options: Any, bad: str, late: str, status: int) -> None:
    error = refusal(sign(token="bad", **options), session_verifier())
    assert (error.code, error.status) == (bad, status)
    error = refusal(sign(token="good", **options), session_verifier(after=101))
    assert (error.code, error.status) == (late, status)
