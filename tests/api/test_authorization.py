"""Who may call what of the hosting API, and which roles it may name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clary.api.app import operations
from clary.api.authorization import Guard, resources
from clary.api.cloudwatch.logs import Logs
from clary.api.identities import Identities
from clary.api.sts import Sts
from clary.core.resources import KINDS, Partition
from clary.core.sessions import Sessions
from clary.errors import AccessDeniedException, AwsError, ValidationException
from clary.logs.folder import LogFolder
from clary.store.store import Store

from .conftest import ACCOUNT, ARN, CALLER, variant

PARTITION = Partition(ACCOUNT, "us-east-1")
OWNER = replace(CALLER, access_key_id="OWNER")
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"
NOW = 1_700_000_000.0
VPC = {"VpcConfig": {"Subnets": ["s"], "SecurityGroupIds": ["g"]}}
MODEL = {"ModelName": "m", "PrimaryContainer": {"Image": "image"}}


def policy(action: str | list[str], resource: str | list[str] = "*", **more: Any) -> dict[str, Any]:
    return {"Statement": {"Effect": "Allow", "Action": action, "Resource": resource, **more}}


class Guarded:
    """Handlers behind the guard, and users by name."""

    def __init__(self, store: Store, file: Path) -> None:
        self.store = store
        self.sessions = Sessions(b"key")
        self.identities = Identities(store, PARTITION, "OWNER", self.sessions, file)
        handlers = operations(store, PARTITION, lambda name: None)
        handlers |= Sts(self.identities, lambda: NOW).operations()
        self.handlers = Guard(self.identities, store, PARTITION).before(handlers)
        self.callers = {"owner": OWNER}

    async def user(self, *policies: dict[str, Any], name: str = "u") -> None:
        made = await self.identities.manage(OWNER, {"Do": "CreateKey", "Name": name, "Policies": list(policies)})
        self.callers[name] = replace(CALLER, access_key_id=made["AccessKeyId"])

    async def role(self, *policies: dict[str, Any], **more: Any) -> None:
        await self.identities.manage(OWNER, {"Do": "CreateRole", "Name": "r", "Policies": list(policies), **more})

    async def __call__(self, who: str, operation: str, **members: Any) -> dict[str, Any]:
        service = "sts" if operation in ("AssumeRole", "GetCallerIdentity") else "sagemaker"
        return await self.handlers[service, operation](self.callers[who], members) or {}

    async def denial(self, who: str, operation: str, **members: Any) -> str:
        with pytest.raises(AccessDeniedException) as denied:
            await self(who, operation, **members)
        assert denied.value.status == 400
        return denied.value.message.removeprefix(
            f"User: arn:aws:iam::{ACCOUNT}:user/{who} is not authorized to perform: "
        )


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    store = await Store.open(tmp_path / "clary.db")
    yield Guarded(store, tmp_path / "run" / "keys.json")
    await store.close()


async def test_a_user_may_do_what_a_policy_names_and_is_told_what_it_may_not(guarded: Guarded) -> None:
    await guarded.user(policy(["sagemaker:CreateModel", "sagemaker:DescribeModel"], f"{ARN}:model/m*"))
    await guarded("u", "CreateModel", **MODEL)
    assert (await guarded("u", "DescribeModel", ModelName="m"))["ModelArn"] == f"{ARN}:model/m"
    assert await guarded.denial("u", "DeleteModel", ModelName="m") == (
        f"sagemaker:DeleteModel on resource: {ARN}:model/m because no identity-based policy allows the "
        "sagemaker:DeleteModel action"
    )
    assert "sagemaker:DescribeModel on resource: " in await guarded.denial("u", "DescribeModel", ModelName="other")
    assert "sagemaker:ListModels on resource: * because" in await guarded.denial("u", "ListModels")
    await guarded("owner", "DeleteModel", ModelName="m")


async def test_names_in_another_case_do_not_slip_past_a_deny(guarded: Guarded) -> None:
    deny = {"Effect": "Deny", "Action": "*", "Resource": [f"{ARN}:endpoint/Fish", f"{ARN}:model/m"]}
    await guarded.user({"Statement": [policy("*")["Statement"], deny]})
    await guarded("owner", "CreateModel", **MODEL)
    await guarded("owner", "CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[variant()])
    await guarded("owner", "CreateEndpoint", EndpointName="Fish", EndpointConfigName="c")
    for name in ("Fish", "fISH", f"{ARN}:endpoint/FISH", f"{ARN}:endpoint/FISH".upper()):
        assert "explicit deny" in await guarded.denial("u", "DeleteEndpoint", EndpointName=name)
    for arn in (f"{ARN}:model/m", f"{ARN}:MODEL/M"):
        assert "explicit deny" in await guarded.denial("u", "AddTags", ResourceArn=arn, Tags=[])


async def test_tags_at_creation_need_addtags_and_may_be_asked_for(guarded: Guarded) -> None:
    tags = [{"Key": "team", "Value": "search"}]
    await guarded.user(policy("sagemaker:CreateModel"))
    assert "sagemaker:AddTags on resource: " in await guarded.denial("u", "CreateModel", **MODEL, Tags=tags)
    asked = {"StringEquals": {"aws:RequestTag/team": "search"}, "ForAllValues:StringEquals": {"aws:TagKeys": ["team"]}}
    await guarded.user(policy("sagemaker:*", Condition=asked), name="v")
    await guarded.denial("v", "CreateModel", **MODEL)
    await guarded.denial("v", "CreateModel", **MODEL, Tags=[*tags, {"Key": "more", "Value": ""}])
    await guarded("v", "CreateModel", **MODEL, Tags=tags)


async def test_tags_of_a_resource_may_be_asked_for(guarded: Guarded) -> None:
    await guarded("owner", "CreateModel", **MODEL, Tags=[{"Key": "Team", "Value": "search"}])
    await guarded.user(policy("sagemaker:*", Condition={"StringEquals": {"aws:ResourceTag/team": "search"}}))
    await guarded.user(
        policy("sagemaker:*", Condition={"StringEquals": {"sagemaker:ResourceTag/Team": "ads"}}), name="v"
    )
    await guarded("u", "DescribeModel", ModelName="m")
    await guarded.denial("v", "DescribeModel", ModelName="m")


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


@pytest.mark.parametrize(
    ("condition", "members"),
    [
        ({"ForAnyValue:StringEquals": {"sagemaker:VpcSubnets": "s"}}, VPC),
        ({"StringEquals": {"sagemaker:VpcSecurityGroupIds": "g"}, "Null": {"sagemaker:VpcSubnets": "false"}}, VPC),
        ({"Bool": {"sagemaker:NetworkIsolation": "true"}}, {"EnableNetworkIsolation": True}),
    ],
)
async def test_conditions_on_models(guarded: Guarded, condition: Any, members: dict[str, Any]) -> None:
    await guarded.user(policy("sagemaker:*", Condition=condition))
    await guarded.denial("u", "CreateModel", **MODEL)
    await guarded("u", "CreateModel", **MODEL, **members)


async def test_conditions_on_configurations_and_the_configuration_of_an_endpoint(guarded: Guarded) -> None:
    await guarded("owner", "CreateModel", **MODEL)
    instances = {
        "ForAllValues:StringLike": {"sagemaker:InstanceTypes": "ml.m5.*"},
        "ArnLike": {"sagemaker:ModelArn": f"{ARN}:model/m"},
    }
    await guarded.user(policy("sagemaker:CreateEndpointConfig", Condition=instances))
    small, large = variant(), variant(InstanceType="ml.p4d.24xlarge")
    await guarded.denial("u", "CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[large])
    await guarded("u", "CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[small])
    await guarded.user(policy("sagemaker:CreateEndpoint", f"{ARN}:endpoint/*"), name="v")
    assert f"on resource: {ARN}:endpoint-config/c" in await guarded.denial(
        "v", "CreateEndpoint", EndpointName="e", EndpointConfigName="c"
    )


async def test_every_operation_is_about_something_or_is_a_list(guarded: Guarded) -> None:
    names = {"ModelPackageArnList": ["arn:x"], "ResourceArn": "arn:x", "ModelPackageArn": "arn:x"}
    names |= {kind.name_member: "n" for kind in KINDS}
    hosting = [name for service, name in guarded.handlers if service == "sagemaker"]
    vague = {name for name in hosting if "*" in resources(name, names, PARTITION)}
    assert vague == {name for name in hosting if name.startswith("List")} - {"ListTags", "ListModelPackages"}
    assert resources("ListModelPackages", {}, PARTITION) == ["*"]
    assert resources("CreateModelPackage", {"ModelPackageGroupName": "g"}, PARTITION) == [f"{ARN}:model-package/g/*"]


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


async def test_everybody_is_told_who_they_are(guarded: Guarded) -> None:
    await guarded.user()
    assert (await guarded("owner", "GetCallerIdentity"))["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/clary"
    told = await guarded("u", "GetCallerIdentity")
    assert (told["Arn"], told["UserId"][:4]) == (f"arn:aws:iam::{ACCOUNT}:user/u", "AIDA")
    await guarded.role()
    await assume(guarded, "owner")
    assert (await guarded("session", "GetCallerIdentity"))["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/r/night"


async def assume(guarded: Guarded, who: str, **more: Any) -> dict[str, Any]:
    granted = await guarded(who, "AssumeRole", RoleArn=ROLE, RoleSessionName="night", **more)
    keys = granted["Credentials"]
    caller = replace(CALLER, access_key_id=keys["AccessKeyId"], session_token=keys["SessionToken"])
    guarded.callers["session"] = caller
    return granted


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


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"Do": "CreateKey", "Name": "a/b"}, "ValidationException"),
        ({"Do": "CreateKey"}, "ValidationException"),
        ({"Do": "CreateKey", "Name": "clary"}, "EntityAlreadyExists"),
        ({"Do": "CreateKey", "Name": "n", "Policies": "x"}, "ValidationException"),
        ({"Do": "CreateRole", "Name": "n", "Policies": [{}]}, "MalformedPolicyDocument"),
        ({"Do": "CreateRole", "Name": "n", "Path": "service-role"}, "ValidationException"),
        ({"Do": "CreateRole", "Name": "n", "Path": 1}, "ValidationException"),
        ({"Do": "CreateRole", "Name": "n", "Trust": {"Statement": []}}, "MalformedPolicyDocument"),
        ({"Do": "DeleteRole", "Name": "n"}, "NoSuchEntity"),
        ({"Do": "Sing"}, "ValidationException"),
    ],
)
async def test_bad_requests_to_manage_are_refused_and_change_nothing(
    guarded: Guarded, request_: dict[str, Any], code: str
) -> None:
    with pytest.raises(AwsError) as refused:
        await guarded.identities.manage(OWNER, request_)
    assert refused.value.code == code
    assert await guarded.identities.manage(OWNER, {"Do": "ListKeys"}) == {"Keys": []}
    assert await guarded.identities.manage(OWNER, {"Do": "ListRoles"}) == {"Roles": []}


async def test_only_the_default_key_manages_and_lists_show_no_secret(guarded: Guarded, tmp_path: Path) -> None:
    await guarded.user(policy("*"))
    with pytest.raises(AccessDeniedException, match="manage keys and roles"):
        await guarded.identities.manage(guarded.callers["u"], {"Do": "ListKeys"})
    secret = json.loads((tmp_path / "run" / "keys.json").read_text())["users"][0]["secret_access_key"]
    assert secret not in json.dumps(await guarded.identities.manage(OWNER, {"Do": "ListKeys"}))
    assert (tmp_path / "run" / "keys.json").stat().st_mode & 0o777 == 0o600
    await guarded.identities.manage(OWNER, {"Do": "DeleteKey", "Name": "u"})
    with pytest.raises(AwsError, match="security token"):
        await guarded("u", "ListModels")


async def test_without_signatures_everybody_is_the_default_key(guarded: Guarded) -> None:
    guarded.callers["anonymous"] = replace(CALLER, access_key_id="")
    await guarded("anonymous", "CreateModel", **MODEL)


@pytest.mark.parametrize("group", ["prod", f"{ARN}:model-package-group/prod"])
def test_a_group_is_the_same_by_its_name_and_by_its_arn(group: str) -> None:
    assert resources("CreateModelPackage", {"ModelPackageGroupName": group}, PARTITION) == [
        f"{ARN}:model-package/prod/*"
    ]


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


PACKAGE = {"ModelPackageGroupName": "g", "InferenceSpecification": {"Containers": [{"Image": "image"}]}}


@pytest.mark.parametrize(
    ("condition", "members", "allowed"),
    [
        ({"StringEquals": {"sagemaker:ModelApprovalStatus": "PendingManualApproval"}}, {}, True),
        ({"StringNotEquals": {"sagemaker:ModelApprovalStatus": "Approved"}}, {}, True),
        (
            {"StringNotEquals": {"sagemaker:ModelApprovalStatus": "Approved"}},
            {"ModelApprovalStatus": "Approved"},
            False,
        ),
        (
            {"StringEquals": {"sagemaker:CustomerMetadataProperties/Stage": "test"}},
            {"CustomerMetadataProperties": {"stage": "test"}},
            True,
        ),
        (
            {"StringEquals": {"sagemaker:CustomerMetadataProperties/Stage": "test"}},
            {"CustomerMetadataProperties": {"stage": "live"}},
            False,
        ),
        ({"StringEqualsIfExists": {"sagemaker:CustomerMetadataProperties/Stage": "test"}}, {}, True),
        ({"Null": {"sagemaker:CustomerMetadataProperties/Stage": "false"}}, {}, False),
        (
            {"StringEquals": {"sagemaker:ModelLifeCycle:stage": "Development"}},
            {"ModelLifeCycle": {"Stage": "Development", "StageStatus": "Pending"}},
            True,
        ),
    ],
    ids=str,
)
async def test_conditions_on_the_registry(
    guarded: Guarded, condition: Any, members: dict[str, Any], allowed: bool
) -> None:
    await guarded("owner", "CreateModelPackageGroup", ModelPackageGroupName="g")
    await guarded.user(policy("sagemaker:*", Condition=condition))
    if allowed:
        await guarded("u", "CreateModelPackage", **PACKAGE, **members)
    else:
        await guarded.denial("u", "CreateModelPackage", **PACKAGE, **members)


async def test_what_is_removed_from_the_metadata_may_be_asked_for(guarded: Guarded) -> None:
    await guarded("owner", "CreateModelPackageGroup", ModelPackageGroupName="g")
    await guarded("owner", "CreateModelPackage", **PACKAGE)
    kept = {"ForAnyValue:StringEquals": {"sagemaker:CustomerMetadataPropertiesToRemove": "audit"}}
    deny = policy("*", Condition=kept)
    deny["Statement"]["Effect"] = "Deny"
    await guarded.user(policy("*"), deny)
    change = {"ModelPackageArn": f"{ARN}:model-package/g/1", "CustomerMetadataPropertiesToRemove": ["a", "audit"]}
    assert "explicit deny" in await guarded.denial("u", "UpdateModelPackage", **change)
    await guarded("u", "UpdateModelPackage", **{**change, "CustomerMetadataPropertiesToRemove": ["a"]})


async def test_whoever_may_not_isolate_gets_the_default_and_who_must_is_denied_it(guarded: Guarded) -> None:
    await guarded.user(policy("sagemaker:*", Condition={"Bool": {"sagemaker:NetworkIsolation": "false"}}))
    await guarded("u", "CreateModel", **MODEL)
    deny = policy("*", Condition={"Bool": {"sagemaker:NetworkIsolation": "false"}})
    deny["Statement"]["Effect"] = "Deny"
    await guarded.user(policy("*"), deny, name="v")
    assert "explicit deny" in await guarded.denial("v", "CreateModel", **{**MODEL, "ModelName": "m2"})
    await guarded("v", "CreateModel", **{**MODEL, "ModelName": "m2"}, EnableNetworkIsolation=True)


@pytest.mark.parametrize(
    ("condition", "source", "allowed"),
    [
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, "10.9.8.7", True),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, "127.0.0.1", False),
        ({"Bool": {"aws:SecureTransport": "false"}}, "", True),
        ({"StringLike": {"aws:UserAgent": "Boto3/*"}}, "", True),
        ({"StringNotEquals": {"aws:SourceVpce": "vpce-1"}}, "", True),
        ({"ArnLike": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:user/u"}}, "", True),
        ({"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, "", True),
        ({"NumericLessThan": {"aws:EpochTime": "1"}}, "", False),
    ],
    ids=str,
)
async def test_conditions_on_the_circumstances(guarded: Guarded, condition: Any, source: str, allowed: bool) -> None:
    await guarded.user(policy("sagemaker:*", Condition=condition))
    guarded.callers["u"] = replace(guarded.callers["u"], source_ip=source, user_agent="Boto3/1.43")
    if allowed:
        await guarded("u", "ListModels")
    else:
        await guarded.denial("u", "ListModels")


async def test_users_and_roles_may_have_tags(guarded: Guarded) -> None:
    mine = policy(["sagemaker:*", "sts:*"], Condition={"StringEquals": {"aws:PrincipalTag/Team": "search"}})
    await guarded.user(mine)
    assert "sagemaker:ListModels" in await guarded.denial("u", "ListModels")
    request = {"Do": "CreateKey", "Name": "v", "Policies": [mine], "Tags": {"team": "search"}}
    made = await guarded.identities.manage(OWNER, request)
    assert made["Tags"] == {"team": "search"}
    guarded.callers["v"] = replace(CALLER, access_key_id=made["AccessKeyId"])
    await guarded("v", "ListModels")
    await guarded.role(mine, Tags={"TEAM": "search"})
    await assume(guarded, "v")
    await guarded("session", "ListModels")
    # They are kept: another control plane reads the same.
    again = Identities(guarded.store, PARTITION, "OWNER", guarded.sessions)
    await again.load()
    assert [role.tags for role in again.directory.roles.values()] == [{"TEAM": "search"}]
    for tags in ({"a": 1}, {"a": "1", "A": "2"}, ["a"]):
        with pytest.raises(ValidationException):
            await guarded.identities.manage(OWNER, {**request, "Name": "w", "Tags": tags})


async def test_a_model_of_a_package_is_about_the_package_too(guarded: Guarded) -> None:
    await guarded("owner", "CreateModelPackageGroup", ModelPackageGroupName="g")
    await guarded("owner", "CreateModelPackage", **PACKAGE, ModelApprovalStatus="Approved")
    await guarded.user(policy("sagemaker:CreateModel", f"{ARN}:model/*"))
    package = f"{ARN}:model-package/g/1"
    for name in ("g/1", package):
        model = {"ModelName": "m", "PrimaryContainer": {"ModelPackageName": name}}
        assert f"sagemaker:CreateModel on resource: {package} because" in await guarded.denial(
            "u", "CreateModel", **model
        )
    await guarded.user(policy("sagemaker:CreateModel", [f"{ARN}:model/*", f"{ARN}:model-package/g/*"]), name="v")
    await guarded("v", "CreateModel", **model)


async def test_a_package_does_not_stand_between_the_caller_and_the_data(guarded: Guarded) -> None:
    containers = [{"Image": "image", "ModelDataUrl": "s3://secret/m.tar.gz"}]
    await guarded("owner", "CreateModelPackageGroup", ModelPackageGroupName="g")
    await guarded(
        "owner",
        "CreateModelPackage",
        ModelPackageGroupName="g",
        ModelApprovalStatus="Approved",
        InferenceSpecification={"Containers": containers},
    )
    await guarded.user(policy("sagemaker:*"))
    model = {"ModelName": "m", "Containers": [{"ModelPackageName": "g/1"}]}
    assert "s3:GetObject on resource: arn:aws:s3:::secret/m.tar.gz" in await guarded.denial("u", "CreateModel", **model)


async def test_the_versions_of_a_group_are_listed_by_who_may_ask_about_the_group(guarded: Guarded) -> None:
    await guarded("owner", "CreateModelPackageGroup", ModelPackageGroupName="g")
    await guarded.user(policy("sagemaker:ListModelPackages", f"{ARN}:model-package-group/g"))
    for group in ("g", f"{ARN}:model-package-group/g"):
        await guarded("u", "ListModelPackages", ModelPackageGroupName=group)
    assert "on resource: * because" in await guarded.denial("u", "ListModelPackages")


async def test_the_role_of_a_validation_is_passed_too(guarded: Guarded) -> None:
    await guarded("owner", "CreateModelPackageGroup", ModelPackageGroupName="g")
    await guarded.user(policy("sagemaker:*"))
    validated = {**PACKAGE, "ValidationSpecification": {"ValidationRole": ROLE, "ValidationProfiles": []}}
    assert f"iam:PassRole on resource: {ROLE} because" in await guarded.denial("u", "CreateModelPackage", **validated)
    await guarded.identities.manage(OWNER, {"Do": "CreateRole", "Name": "other"})
    with pytest.raises(ValidationException, match=f'The execution role ARN "{ROLE}" is invalid'):
        await guarded("owner", "CreateModelPackage", **validated)


@pytest.mark.parametrize(
    ("create", "member", "kind"),
    [
        ("CreateModelPackageGroup", "ModelPackageGroupName", "model-package-group"),
        ("CreateModel", "ModelName", "model"),
    ],
)
async def test_names_that_differ_in_case_are_two_names(guarded: Guarded, create: str, member: str, kind: str) -> None:
    more = {} if kind == "model-package-group" else {"PrimaryContainer": {"Image": "image"}}
    await guarded("owner", create, **{member: "Prod"}, **more, Tags=[{"Key": "team", "Value": "a"}])
    await guarded.user(policy("*", f"{ARN}:{kind}/Prod"))
    assert f"on resource: {ARN}:{kind}/prod because" in await guarded.denial("u", create, **{member: "prod"}, **more)
    await guarded.user(policy("*", Condition={"StringEquals": {"aws:ResourceTag/team": "a"}}), name="v")
    await guarded.denial("v", create, **{member: "prod"}, **more)
    await guarded("owner", create, **{member: "prod"}, **more)
    await guarded.denial("u", f"Delete{create[6:]}", **{member: "prod"})
    await guarded("u", f"Delete{create[6:]}", **{member: "Prod"})


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


async def test_the_end_of_the_last_role_opens_nothing(guarded: Guarded, tmp_path: Path) -> None:
    await guarded.role(policy("s3:*"))
    await guarded.identities.manage(OWNER, {"Do": "DeleteRole", "Name": "r"})
    # what comes after it, as after a restart
    guarded.identities = Identities(guarded.store, PARTITION, "OWNER", guarded.sessions, tmp_path / "run" / "keys.json")
    await guarded.identities.load()
    handlers = operations(guarded.store, PARTITION, lambda name: None)
    guarded.handlers = Guard(guarded.identities, guarded.store, PARTITION).before(handlers)
    assert not guarded.identities.may_read(ROLE, "s3://b/m.tar.gz", False)
    with pytest.raises(ValidationException, match="The execution role ARN"):
        await guarded("owner", "CreateModel", **MODEL, ExecutionRoleArn=ROLE)


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


async def test_a_deletion_that_the_gateways_cannot_be_told_of_did_not_happen(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    await guarded.user(policy("*"))

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        for request in ({"Do": "DeleteKey", "Name": "u"}, {"Do": "CreateKey", "Name": "v"}):
            with pytest.raises(AwsError, match="No space left on device") as refused:
                await guarded.identities.manage(OWNER, request)
            assert (refused.value.code, refused.value.status) == ("ServiceUnavailable", 503)
    assert [user["Name"] for user in (await guarded.identities.manage(OWNER, {"Do": "ListKeys"}))["Keys"]] == ["u"]
    await guarded("u", "ListModels")


async def test_what_the_store_does_not_take_is_taken_back_from_the_gateways(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await guarded.user(policy("*"))

    async def fails(name: str) -> bool:
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr(guarded.store, "remove_user", fails)
    with pytest.raises(RuntimeError):
        await guarded.identities.manage(OWNER, {"Do": "DeleteKey", "Name": "u"})
    assert [each["name"] for each in json.loads((tmp_path / "run" / "keys.json").read_text())["users"]] == ["u"]
    await guarded("u", "ListModels")


async def test_operations_on_logs_need_their_group_and_stream(guarded: Guarded, tmp_path: Path) -> None:
    logs = LogFolder(tmp_path / "logs")
    for group in ("/mine", "/other"):
        with logs.writer(group, "s") as writer:
            writer.write(1_700_000_000_000, b"line")
    handlers = Guard(guarded.identities, guarded.store, PARTITION).before(Logs(logs, PARTITION).operations())
    groups = f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group"
    await guarded.user(policy(["logs:FilterLogEvents", "logs:GetLogEvents"], f"{groups}:/mine:*"))
    user = guarded.callers["u"]
    assert (await handlers["logs", "FilterLogEvents"](user, {"logGroupName": "/mine"}) or {})["events"]
    await handlers["logs", "GetLogEvents"](user, {"logGroupIdentifier": f"{groups}:/mine", "logStreamName": "s"})
    for operation, request in (
        ("FilterLogEvents", {"logGroupName": "/other"}),
        ("DeleteLogGroup", {"logGroupName": "/mine"}),
        ("DescribeLogGroups", {}),
    ):
        with pytest.raises(AccessDeniedException, match=f"not authorized to perform: logs:{operation} on resource: "):
            await handlers["logs", operation](user, request)
    await handlers["logs", "DeleteLogGroup"](OWNER, {"logGroupName": "/other"})
