"""Who may call what of the hosting API, and which roles it may name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clary.api.authorization import Guard, resources
from clary.api.cloudwatch.logs import Logs
from clary.core.resources import KINDS
from clary.errors import AccessDeniedException
from clary.logs.folder import LogFolder
from tests.api.authorization.conftest import MODEL, OWNER, PACKAGE, PARTITION, Guarded, assume, policy
from tests.api.conftest import ACCOUNT, ARN, CALLER, variant


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


async def test_every_operation_is_about_something_or_is_a_list(guarded: Guarded) -> None:
    names = {"ModelPackageArnList": ["arn:x"], "ResourceArn": "arn:x", "ModelPackageArn": "arn:x"}
    names |= {kind.name_member: "n" for kind in KINDS}
    hosting = [name for service, name in guarded.handlers if service == "sagemaker"]
    vague = {name for name in hosting if "*" in resources(name, names, PARTITION)}
    assert vague == {name for name in hosting if name.startswith("List")} - {"ListTags", "ListModelPackages"}
    assert resources("ListModelPackages", {}, PARTITION) == ["*"]
    assert resources("CreateModelPackage", {"ModelPackageGroupName": "g"}, PARTITION) == [f"{ARN}:model-package/g/*"]


async def test_everybody_is_told_who_they_are(guarded: Guarded) -> None:
    await guarded.user()
    assert (await guarded("owner", "GetCallerIdentity"))["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/clary"
    told = await guarded("u", "GetCallerIdentity")
    assert (told["Arn"], told["UserId"][:4]) == (f"arn:aws:iam::{ACCOUNT}:user/u", "AIDA")
    await guarded.role()
    await assume(guarded, "owner")
    assert (await guarded("session", "GetCallerIdentity"))["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/r/night"


async def test_without_signatures_everybody_is_the_default_key(guarded: Guarded) -> None:
    guarded.callers["anonymous"] = replace(CALLER, access_key_id="")
    await guarded("anonymous", "CreateModel", **MODEL)


@pytest.mark.parametrize("group", ["prod", f"{ARN}:model-package-group/prod"])
def test_a_group_is_the_same_by_its_name_and_by_its_arn(group: str) -> None:
    assert resources("CreateModelPackage", {"ModelPackageGroupName": group}, PARTITION) == [
        f"{ARN}:model-package/prod/*"
    ]


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
