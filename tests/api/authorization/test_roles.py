"""Roles: who may pass one, what an execution role must be able to do, and AssumeRole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clary.errors import AccessDeniedException, AwsError, ValidationException
from tests.api.authorization.conftest import MODEL, NOW, OWNER, PACKAGE, ROLE, Guarded, assume, policy
from tests.api.conftest import ACCOUNT, ARN


async def test_an_execution_role_needs_passrole_for_sagemaker(guarded: Guarded) -> None:
    await guarded.user(policy("sagemaker:*"))
    assert f"iam:PassRole on resource: {ROLE} because" in await guarded.denial(
        "u", "CreateModel", **MODEL, ExecutionRoleArn=ROLE
    )
    for number, (service, allowed) in enumerate((("sagemaker", True), ("ec2", False))):
        condition = {"StringEquals": {"iam:PassedToService": f"{service}.amazonaws.com"}}
        await guarded.user(policy("sagemaker:*"), policy("iam:PassRole", ROLE, Condition=condition), name=service)
        members = {**MODEL, "ModelName": f"m{number}", "ExecutionRoleArn": ROLE}
        if allowed:
            await guarded(service, "CreateModel", **members)
        else:
            await guarded.denial(service, "CreateModel", **members)


async def test_an_execution_role_must_be_there_once_there_are_roles(guarded: Guarded) -> None:
    await guarded("owner", "CreateModel", **MODEL, ExecutionRoleArn=ROLE + "s")
    await guarded.role()
    await guarded("owner", "CreateModel", **{**MODEL, "ModelName": "m2"}, ExecutionRoleArn=ROLE)
    with pytest.raises(ValidationException) as refused:
        await guarded("owner", "CreateModel", **{**MODEL, "ModelName": "m3"}, ExecutionRoleArn=ROLE + "s")
    assert refused.value.message == (
        f'The execution role ARN "{ROLE}s" is invalid. Please ensure that the role exists and that its trust '
        'relationship policy allows the action "sts:AssumeRole" for the service principal "sagemaker.amazonaws.com".'
    )


async def test_an_execution_role_must_be_able_to_read_the_model(guarded: Guarded) -> None:
    may_read = guarded.identities.may_read
    assert may_read(ROLE, "s3://b/models/m.tar.gz", False)  # there are no roles
    await guarded.role(policy("s3:GetObject", "arn:aws:s3:::b/models/*"))
    assert may_read(ROLE, "s3://b/models/m.tar.gz", False)
    assert not may_read(ROLE, "s3://b/m.tar.gz", False)
    assert not may_read(ROLE, "s3://b/models/", True)
    assert may_read(ROLE, "file:///m.tar.gz", False)
    assert may_read("", "s3://b/m.tar.gz", False)


async def test_assume_role_grants_what_the_role_may_for_as_long_as_was_asked(guarded: Guarded) -> None:
    await guarded.role(policy("sagemaker:List*"))
    await guarded.user(policy("sts:AssumeRole", ROLE))
    granted = await assume(guarded, "u", DurationSeconds=900, Policy=json.dumps(policy("sagemaker:ListModels")))
    assert granted["Credentials"]["Expiration"] == NOW + 900
    session, secret = guarded.sessions.read(granted["Credentials"]["SessionToken"]) or pytest.fail("unreadable")
    assert (session.access_key_id, secret) == (
        granted["Credentials"]["AccessKeyId"],
        granted["Credentials"]["SecretAccessKey"],
    )
    await guarded("session", "ListModels")
    with pytest.raises(AccessDeniedException, match="no session policy allows"):
        await guarded("session", "ListEndpoints")
    assert (await assume(guarded, "u"))["Credentials"]["Expiration"] == NOW + 3600


@pytest.mark.parametrize(
    ("who", "members", "code"),
    [
        ("u", {}, "AccessDenied"),
        ("owner", {"RoleArn": ROLE + "s"}, "AccessDenied"),
        ("owner", {"Policy": "{"}, "MalformedPolicyDocument"),
        ("owner", {"Tags": [{"Key": "a", "Value": "b"}]}, "ValidationError"),
    ],
)
async def test_assume_role_is_refused(guarded: Guarded, who: str, members: dict[str, Any], code: str) -> None:
    await guarded.role()
    await guarded.user(policy("sagemaker:*"))
    with pytest.raises(AwsError) as refused:
        await guarded(who, "AssumeRole", **{"RoleArn": ROLE, "RoleSessionName": "s", **members})
    assert refused.value.code == code
    if who == "u":
        assert refused.value.message == (
            f"User: arn:aws:iam::{ACCOUNT}:user/u is not authorized to perform: sts:AssumeRole on resource: {ROLE}"
        )


async def test_without_a_role_the_callers_own_permissions_stand_before_the_data(guarded: Guarded) -> None:
    await guarded.user(policy(["sagemaker:*"]), policy("s3:GetObject", "arn:aws:s3:::mine/*"))

    def model(url: str) -> dict[str, Any]:
        return {"ModelName": "m", "PrimaryContainer": {"Image": "image", "ModelDataUrl": url}}

    assert "s3:GetObject on resource: arn:aws:s3:::secret/m.tar.gz" in await guarded.denial(
        "u", "CreateModel", **model("s3://secret/m.tar.gz")
    )
    for url in ("https://secret.s3.amazonaws.com/m.tar.gz", "file:///m.tar.gz"):
        assert "must be given as s3://bucket/key" in await guarded.denial("u", "CreateModel", **model(url))
    await guarded("u", "CreateModel", **model("s3://mine/m.tar.gz"))


async def test_a_role_that_may_only_list_may_not_read_what_is_below_a_prefix(guarded: Guarded) -> None:
    await guarded.role(policy("s3:ListBucket"))
    assert not guarded.identities.may_read(ROLE, "s3://secret/dir/", True)
    assert not guarded.identities.may_read(ROLE, "s3://secret/dir/m.tar.gz", False)


async def test_the_role_of_a_validation_is_passed_too(guarded: Guarded) -> None:
    await guarded("owner", "CreateModelPackageGroup", ModelPackageGroupName="g")
    await guarded.user(policy("sagemaker:*"))
    validated = {**PACKAGE, "ValidationSpecification": {"ValidationRole": ROLE, "ValidationProfiles": []}}
    assert f"iam:PassRole on resource: {ROLE} because" in await guarded.denial("u", "CreateModelPackage", **validated)
    await guarded.identities.manage(OWNER, {"Do": "CreateRole", "Name": "other"})
    with pytest.raises(ValidationException, match=f'The execution role ARN "{ROLE}" is invalid'):
        await guarded("owner", "CreateModelPackage", **validated)


async def test_a_role_that_lost_its_permission_or_its_trust_is_named(guarded: Guarded) -> None:
    refusal = guarded.identities.refusal
    get, enumerate_ = "s3:GetObject", "s3:ListBucket"
    assert refusal(ROLE, get, "s3://b/m.tar.gz") is None  # there are no roles
    await guarded.role(policy("s3:*", ["arn:aws:s3:::b", "arn:aws:s3:::b/*"]))
    assert refusal(ROLE, get, "s3://b/m.tar.gz") is None
    assert refusal(ROLE, enumerate_, "s3://b/m/") is None
    assert refusal(ROLE, get, "file:///m.tar.gz") is None
    assert refusal(ROLE, get, "s3://lists/l") == f"The role {ROLE} may not read s3://lists/l"
    assert refusal(ROLE, enumerate_, "s3://secret/") == f"The role {ROLE} may not list s3://secret/"
    assert refusal(ROLE, get, "https://elsewhere.example/b/m.tar.gz") is not None
    assert refusal(ROLE + "s", get, "s3://b/m.tar.gz") is not None
    await guarded.identities.manage(OWNER, {"Do": "DeleteRole", "Name": "r"})
    lambda_ = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    await guarded.role(policy("s3:*"), Trust={"Statement": lambda_})
    assert refusal(ROLE, get, "s3://b/m.tar.gz") == f"The role {ROLE} may not read s3://b/m.tar.gz"


async def test_a_deny_below_a_prefix_holds_for_the_prefix(guarded: Guarded) -> None:
    deny = {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/models/secret/*"}
    whole = {"Statement": [policy("*")["Statement"], deny]}
    await guarded.role(whole)
    may_read = guarded.identities.may_read
    assert [may_read(ROLE, f"s3://b/{key}", True) for key in ("", "models/", "models/secret/x/", "other/")] == [
        *(False, False, False, True)
    ]
    await guarded.user(whole)
    source = {"S3DataType": "S3Prefix", "CompressionType": "None", "S3Uri": "s3://b/models/"}
    container = {"Image": "image", "ModelDataSource": {"S3DataSource": source}}
    assert "s3:GetObject on resource: arn:aws:s3:::b/models/* with an explicit deny" in await guarded.denial(
        "u", "CreateModel", ModelName="m", PrimaryContainer=container
    )


async def test_a_role_that_nobody_made_replaces_nobodys_permissions(guarded: Guarded) -> None:
    deny = {"Effect": "Deny", "Action": "s3:*", "Resource": "*"}
    await guarded.user(policy("*"), {"Statement": deny})
    container = {"Image": "image", "ModelDataUrl": "s3://b/m.tar.gz"}
    request = {"ModelName": "m", "PrimaryContainer": container, "ExecutionRoleArn": ROLE}
    assert "s3:GetObject on resource: arn:aws:s3:::b/m.tar.gz" in await guarded.denial("u", "CreateModel", **request)
    await guarded.role(policy("s3:*"))
    await guarded("u", "CreateModel", **request)


async def test_a_role_may_have_a_path_and_ask_for_what_it_is_assumed(guarded: Guarded) -> None:
    hosting = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    models = {"ArnLike": {"aws:SourceArn": f"{ARN}:model/*"}}
    await guarded.role(policy("s3:*"), Path="/service-role/", Trust={"Statement": {**hosting, "Condition": models}})
    listed = await guarded.identities.manage(OWNER, {"Do": "ListRoles"})
    arn = f"arn:aws:iam::{ACCOUNT}:role/service-role/r"
    assert [role["Arn"] for role in listed["Roles"]] == [arn]
    await guarded("owner", "CreateModel", **MODEL, ExecutionRoleArn=arn)
    assert guarded.identities.may_read(arn, "s3://b/m.tar.gz", False)
    for operation, role in (("CreateEndpointConfig", arn), ("CreateModel", ROLE)):
        members = {**MODEL, "EndpointConfigName": "c", "ExecutionRoleArn": role}
        with pytest.raises(ValidationException, match="The execution role ARN"):
            await guarded("owner", operation, **members)
