"""Keys with policies and temporary credentials at the gateway: invocations and S3."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from clary.core.identities import Principal
from clary.core.policy import parse
from clary.core.routing import EndpointRoute
from clary.core.sessions import ROLE_CREDENTIALS, Holder, Session, Sessions
from clary.errors import AwsError
from clary.gateway.access import Access
from clary.gateway.connection import Source
from clary.gateway.s3 import access
from clary.wire.sigv4 import Verifier

from .conftest import KEY, PARTITION, REGION, SECRET, Container, Gateway, Reply, answer, says

SESSIONS = Sessions(b"key")
FISH = f"arn:aws:sagemaker:us-east-1:{PARTITION.account_id}:endpoint/fish"


def policy(action: str, resource: str = "*", effect: str = "Allow", **more: Any) -> dict[str, Any]:
    return {"Statement": {"Effect": effect, "Action": action, "Resource": resource, **more}}


def publish(file: Path, users: list[dict[str, Any]] | None = None, roles: list[dict[str, Any]] | None = None) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps({"users": users or [], "roles": roles or []}))
    fresh.replace(file)


def user(*policies: dict[str, Any], name: str = "u") -> dict[str, Any]:
    key = f"AKIA{name}"
    return {"name": name, "id": "AIDA", "access_key_id": key, "secret_access_key": "s3cret", "policies": policies}


class Guarded:
    """The gateway under test, with a file of keys."""

    def __init__(self, gateway: Gateway, folder: Path) -> None:
        self.gateway = gateway
        self.file = folder / "keys.json"
        self.access = Access(PARTITION, (KEY, SECRET), self.file, SESSIONS)
        gateway.state._access = self.access
        gateway.state.verifier = Verifier(self.access, REGION, time.time, sessions=self.access.session)

    async def invoke(self, name: str, credentials: Credentials, **headers: str) -> Reply:
        return await self.send("POST", f"/endpoints/{name}/invocations", credentials, headers)

    async def send(
        self, method: str, path: str, credentials: Credentials, headers: dict[str, str], signer: Any = SigV4Auth
    ) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        host = f"127.0.0.1:{self.gateway.port}"
        request = AWSRequest(method, f"http://{host}{path}", headers=named, data=b"{}")
        signer(credentials, "s3" if signer is S3SigV4Auth else "sagemaker", REGION).add_auth(request)
        request.headers["Host"] = host
        lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        return await self.gateway.send(f"{method} {path} HTTP/1.1\r\n{lines}Content-Length: 2\r\n\r\n".encode() + b"{}")


@pytest.fixture
async def fish(gateway: Gateway) -> Container:
    return await gateway.serve("fish", says(answer(b"ok")))


@pytest.fixture
def guarded(gateway: Gateway, fish: Container, tmp_path: Path) -> Guarded:
    return Guarded(gateway, tmp_path)


USER = Credentials("AKIAu", "s3cret")
OWNER = Credentials(KEY, SECRET)


def code(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.headers.get("x-amzn-errortype", "")


async def test_a_key_may_invoke_what_its_policy_names_and_nothing_reaches_other_models(
    guarded: Guarded, gateway: Gateway
) -> None:
    other = await gateway.serve("other", says(answer(b"ok")))
    publish(guarded.file, [user(policy("sagemaker:InvokeEndpoint", FISH))])
    assert (await guarded.invoke("fish", USER)).status == 200
    refused = await guarded.invoke("other", USER)
    assert code(refused) == (403, "AccessDeniedException")
    assert json.loads(refused.body)["Message"] == (
        f"User: arn:aws:iam::{PARTITION.account_id}:user/u is not authorized to perform: sagemaker:InvokeEndpoint on "
        f"resource: {FISH[:-4]}other because no identity-based policy allows the sagemaker:InvokeEndpoint action"
    )
    assert other.requests == []
    assert (await guarded.invoke("other", OWNER)).status == 200


async def test_changes_hold_from_the_next_request_on(guarded: Guarded) -> None:
    assert code(await guarded.invoke("fish", USER)) == (403, "UnrecognizedClientException")
    publish(guarded.file, [user(policy("*"))])
    assert (await guarded.invoke("fish", USER)).status == 200
    publish(guarded.file, [user(policy("*"), policy("*", effect="Deny"))])
    refused = await guarded.invoke("fish", USER)
    assert "with an explicit deny in an identity-based policy" in json.loads(refused.body)["Message"]
    publish(guarded.file)
    assert code(await guarded.invoke("fish", USER)) == (403, "UnrecognizedClientException")


async def test_an_unreadable_file_leaves_the_default_key_alone(guarded: Guarded) -> None:
    publish(guarded.file, [user(policy("*"))])
    assert (await guarded.invoke("fish", USER)).status == 200
    for broken in ("{", "[]", '{"users": [{"name": 1}], "roles": []}'):
        guarded.file.with_suffix(".new").write_text(broken)
        guarded.file.with_suffix(".new").replace(guarded.file)
        assert code(await guarded.invoke("fish", USER)) == (403, "UnrecognizedClientException")
        assert (await guarded.invoke("fish", OWNER)).status == 200


async def test_a_policy_may_name_the_target_model(guarded: Guarded) -> None:
    condition = {"StringLike": {"sagemaker:TargetModel": "team-a/*"}}
    publish(guarded.file, [user(policy("sagemaker:InvokeEndpoint", Condition=condition))])
    allowed = await guarded.invoke("fish", USER, X_Amzn_SageMaker_Target_Model="team-a/m.tar.gz")
    assert allowed.headers["x-amzn-errortype"] == "ValidationError"  # not a multi-model endpoint, but past the policy
    for headers in ({}, {"X_Amzn_SageMaker_Target_Model": "team-b/m.tar.gz"}):
        assert code(await guarded.invoke("fish", USER, **headers)) == (403, "AccessDeniedException")


async def test_a_deny_by_tag_holds_because_the_gateway_knows_no_tags(guarded: Guarded) -> None:
    tagged = policy("*", effect="Deny", Condition={"StringEquals": {"aws:ResourceTag/secret": "yes"}})
    publish(guarded.file, [user(policy("*"), tagged)])
    assert code(await guarded.invoke("fish", USER)) == (403, "AccessDeniedException")


def granted(lasts: float = 900, sessions: Sessions = SESSIONS, **more: Any) -> Credentials:
    session = Session("ASIA1", "AROAR", "r", "night", time.time() + lasts, **more)
    token, secret = sessions.grant(session)
    return Credentials("ASIA1", secret, token)


ROLE = {"name": "r", "id": "AROAR", "policies": [policy("sagemaker:InvokeEndpoint", FISH)]}


async def test_temporary_credentials_may_do_what_their_role_may(guarded: Guarded) -> None:
    publish(guarded.file, roles=[ROLE])
    for _ in range(2):
        assert (await guarded.invoke("fish", granted())).status == 200
    limited = granted(policy=policy("s3:*"))
    assert "no session policy allows" in json.loads((await guarded.invoke("fish", limited)).body)["Message"]
    publish(guarded.file)
    assert code(await guarded.invoke("fish", granted())) == (403, "AccessDeniedException")


@pytest.mark.parametrize(
    ("credentials", "expected"),
    [
        (granted(lasts=-1), "ExpiredTokenException"),
        (granted(sessions=Sessions(b"another server's")), "UnrecognizedClientException"),
        (Credentials("ASIA1", granted().secret_key), "UnrecognizedClientException"),
        (Credentials("ASIA1", granted().secret_key, "nonsense"), "UnrecognizedClientException"),
        (Credentials("ASIA2", granted().secret_key, granted().token), "UnrecognizedClientException"),
        (Credentials("ASIA1", "not the secret", granted().token), "InvalidSignatureException"),
    ],
)
async def test_what_is_no_session_is_refused(guarded: Guarded, credentials: Credentials, expected: str) -> None:
    publish(guarded.file, roles=[ROLE])
    assert code(await guarded.invoke("fish", credentials)) == (403, expected)


class Request:
    """As much of a streamed request as the check looks at."""

    source = Source("127.0.0.1")

    def __init__(self, gateway_state: Any, method: str, target: str, headers: dict[bytes, bytes]) -> None:
        self.method = method
        self.path, _, self.query = target.partition("?")
        self.headers = headers
        self.state = gateway_state


class HasPartition:
    partition = PARTITION


def s3(method: str, target: str, *policies: dict[str, Any], bulk: bool = True, **headers: str) -> bool:
    """Tell whether it is allowed."""
    principal = Principal("arn:aws:iam::1:user/u", "AIDA", tuple(map(parse, policies)))
    lines = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    try:
        access.check(principal, Request(HasPartition(), method, target, lines), bulk=bulk)  # type: ignore[arg-type]
    except AwsError as error:
        assert (error.code, error.status) == ("AccessDenied", 403)
        return False
    return True


BUCKET, OBJECTS = "arn:aws:s3:::b", "arn:aws:s3:::b/*"


@pytest.mark.parametrize(
    ("method", "target", "action", "resource"),
    [
        ("GET", "/", "s3:ListAllMyBuckets", "*"),
        ("HEAD", "/b", "s3:ListBucket", BUCKET),
        ("GET", "/b?list-type=2&prefix=x", "s3:ListBucket", BUCKET),
        ("PUT", "/b", "s3:CreateBucket", BUCKET),
        ("DELETE", "/b", "s3:DeleteBucket", BUCKET),
        ("GET", "/b?location", "s3:GetBucketLocation", BUCKET),
        ("GET", "/b/k%20k", "s3:GetObject", "arn:aws:s3:::b/k k"),
        ("HEAD", "/b/k", "s3:GetObject", OBJECTS),
        ("PUT", "/b/k?x-id=PutObject", "s3:PutObject", OBJECTS),
        ("DELETE", "/b/k", "s3:DeleteObject", OBJECTS),
        ("POST", "/b/k?uploads", "s3:PutObject", OBJECTS),
        ("PUT", "/b/k?partNumber=1&uploadId=u", "s3:PutObject", OBJECTS),
        ("DELETE", "/b/k?uploadId=u", "s3:AbortMultipartUpload", OBJECTS),
        ("GET", "/b/k?tagging", "s3:GetObjectTagging", OBJECTS),
    ],
)
def test_an_s3_request_needs_its_own_action_on_its_own_arn(
    method: str, target: str, action: str, resource: str
) -> None:
    assert s3(method, target, policy(action, resource))
    assert not s3(method, target, policy("s3:*"), policy(action, resource, "Deny"))
    assert not s3(method, target, policy("s3:*", "arn:aws:s3:::other/*"))


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("PUT", "/b/k?acl"),
        ("GET", "/b/k?versionId=1"),
        ("PUT", "/b?policy"),
        ("GET", "//b/k"),
        ("GET", "/b%2Fk"),
        ("GET", "/b/%ff"),
        ("GET", "/b/k?tagging&uploadId=u"),
        ("PUT", "/b/k?x-amz-copy-source=/secret/k"),
        ("PATCH", "/b/k"),
    ],
)
def test_what_the_table_does_not_name_is_refused_whatever_the_policy(method: str, target: str) -> None:
    assert not s3(method, target, policy("*"))


def test_a_copy_needs_its_source_and_a_tagged_object_its_tags() -> None:
    write, read = policy("s3:PutObject", OBJECTS), policy("s3:GetObject", "arn:aws:s3:::from/*")
    for source in ("from/k", "/from/k", "from%2Fk"):
        assert s3("PUT", "/b/k", write, read, x_amz_copy_source=source)
        assert not s3("PUT", "/b/k", write, x_amz_copy_source=source)
        assert not s3("PUT", "/b/k", write, read, x_amz_copy_source=source + "?versionId=1")
        versions = policy("s3:GetObjectVersion", "arn:aws:s3:::from/*")  # alone it does not open the object itself
        assert not s3("PUT", "/b/k", write, versions, x_amz_copy_source=source + "?versionId=1")
        assert s3("PUT", "/b/k", write, read, versions, x_amz_copy_source=source + "?versionId=1")
    assert not s3("PUT", "/b/k", write, x_amz_tagging="a=b")
    assert s3("PUT", "/b/k", write, policy("s3:PutObjectTagging"), x_amz_tagging="a=b")
    assert not s3("PUT", "/b/k", write, x_amz_acl="public-read")


def test_listing_may_be_bound_to_a_prefix() -> None:
    bound = policy("s3:ListBucket", BUCKET, Condition={"StringLike": {"s3:prefix": "mine/*"}})
    assert s3("GET", "/b?prefix=mine/x", bound)
    assert not s3("GET", "/b?prefix=yours/x", bound)
    assert not s3("GET", "/b", bound)


def test_a_server_behind_is_given_nothing_that_it_may_take_for_something_else() -> None:
    assert s3("GET", "/b/a/../k", policy("*"))
    assert not s3("GET", "/b/a/../k", policy("*"), bulk=False)
    assert not s3("GET", "/b/a/%2e%2e/k", policy("*"), bulk=False)
    assert s3("POST", "/b?delete")  # its keys are asked for one by one
    assert not s3("POST", "/b?delete", policy("*"), bulk=False)


async def test_a_containers_token_is_good_for_as_long_as_its_instance_and_its_role(
    guarded: Guarded, gateway: Gateway
) -> None:
    arn = f"arn:aws:iam::{PARTITION.account_id}:role/r"
    token = SESSIONS.container_token(Holder(arn, "AROA1", "i-1"))

    async def ask(token: str = token) -> int:
        request = f"GET {ROLE_CREDENTIALS} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n"
        return (await gateway.send(request.encode())).status

    role = {"name": "r", "id": "AROA1", "policies": [], "trust": None}
    publish(guarded.file, roles=[role])
    assert await ask() == 403, "nobody knows of the instance"
    gateway.put(EndpointRoute("e", "Creating", (), instances=("i-1",)))
    assert await ask() == 200
    assert await ask(SESSIONS.container_token(Holder(arn, "AROA1", "i-2"))) == 403
    assert await ask(Sessions(b"other").container_token(Holder(arn, "AROA1", "i-1"))) == 403
    publish(guarded.file, roles=[{**role, "id": "AROA2"}])
    assert await ask() == 403, "another role of the same name"
    publish(guarded.file, roles=[role])
    gateway.put(EndpointRoute("e", "Deleting", ()))
    assert await ask() == 403


async def test_a_policy_may_name_addresses_and_programs(guarded: Guarded) -> None:
    for condition, status in (
        ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, 200),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, 403),
        ({"StringLike": {"aws:UserAgent": "Boto3/*"}}, 200),
        ({"Bool": {"aws:SecureTransport": "true"}}, 403),
    ):
        publish(guarded.file, [user(policy("sagemaker:InvokeEndpoint", Condition=condition))])
        assert (await guarded.invoke("fish", USER, User_Agent="Boto3/1.43")).status == status


def test_an_s3_request_is_asked_for_its_circumstances() -> None:
    near, far = ({"IpAddress": {"aws:SourceIp": each}} for each in ("127.0.0.1", "10.0.0.0/8"))
    write, read = policy("s3:PutObject", OBJECTS), policy("s3:GetObject", "arn:aws:s3:::from/*", Condition=far)
    assert s3("GET", "/b/k", policy("s3:GetObject", Condition=near))
    assert not s3("GET", "/b/k", policy("s3:GetObject", Condition=far))
    assert not s3("PUT", "/b/k", write, read, x_amz_copy_source="from/k")


@pytest.mark.parametrize(
    "query", ["prefix=mine/&prefix=yours/", "prefix=mine/&PREFIX=yours/", "uploadId=a&uploadId=b", "tagging&tagging"]
)
def test_of_two_values_for_one_name_nobody_knows_which_counts(query: str) -> None:
    level = "/b/k" if "prefix" not in query else "/b"
    assert not s3("GET", f"{level}?{query}", policy("*"))
    assert not s3("GET", f"{level}?{query}", policy("*"), bulk=False)
