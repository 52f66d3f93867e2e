"""Model package groups and their policies."""

from __future__ import annotations

import pytest

from clary.errors import AwsError

from .conftest import ACCOUNT, ARN, CALLER, Api

GROUP_ARN = f"{ARN}:model-package-group/g"
POLICY = '{"Version": "2012-10-17", "Statement": []}'


async def group(api: Api, name: str = "g", **members: object) -> None:
    await api("CreateModelPackageGroup", ModelPackageGroupName=name, **members)


async def test_a_group_is_completed_at_once_and_knows_its_maker(api: Api) -> None:
    made = await api("CreateModelPackageGroup", ModelPackageGroupName="g", ModelPackageGroupDescription="d")
    assert made == {"ModelPackageGroupArn": GROUP_ARN}
    assert await api("DescribeModelPackageGroup", ModelPackageGroupName="g") == {
        "ModelPackageGroupName": "g",
        "ModelPackageGroupArn": GROUP_ARN,
        "ModelPackageGroupDescription": "d",
        "ModelPackageGroupStatus": "Completed",
        "CreationTime": 1_700_000_000.0,
        "LastModifiedTime": 1_700_000_000.0,  # not in the shape: encoding drops it
        "CreatedBy": {"IamIdentity": {"Arn": f"arn:aws:iam::{ACCOUNT}:user/clary", "PrincipalId": "AKIAEXAMPLE"}},
    }


async def test_a_group_is_found_by_name_and_by_arn(api: Api) -> None:
    await group(api)
    for name in ("g", GROUP_ARN, GROUP_ARN.replace("sagemaker", "SageMaker")):
        assert (await api("DescribeModelPackageGroup", ModelPackageGroupName=name))["ModelPackageGroupName"] == "g"
    await api("DeleteModelPackageGroup", ModelPackageGroupName=GROUP_ARN)
    assert await api("ListModelPackageGroups") == {"ModelPackageGroupSummaryList": []}


@pytest.mark.parametrize("operation", ["DescribeModelPackageGroup", "DeleteModelPackageGroup"])
async def test_an_unknown_group_does_not_exist(api: Api, operation: str) -> None:
    assert await api.refusal(operation, ModelPackageGroupName="g") == f"ModelPackageGroup {GROUP_ARN} does not exist."
    elsewhere = GROUP_ARN.replace(ACCOUNT, "999999999999")
    await group(api)
    assert await api.refusal(operation, ModelPackageGroupName=elsewhere) == (
        f"ModelPackageGroup {elsewhere} does not exist."
    )


async def test_a_taken_name_is_refused(api: Api) -> None:
    await group(api)
    refusal = await api.refusal("CreateModelPackageGroup", ModelPackageGroupName="g")
    assert refusal == f"Model Package Group already exists: {GROUP_ARN}"


async def test_lists_begin_with_the_oldest(api: Api) -> None:
    for name in ("b", "a", "c"):
        await group(api, name, ModelPackageGroupDescription=f"is {name}")
        api.clock.now += 1
    listed = (await api("ListModelPackageGroups"))["ModelPackageGroupSummaryList"]
    assert [each["ModelPackageGroupName"] for each in listed] == ["b", "a", "c"]
    assert listed[0]["ModelPackageGroupDescription"] == "is b"
    listed = (await api("ListModelPackageGroups", SortOrder="Descending"))["ModelPackageGroupSummaryList"]
    assert [each["ModelPackageGroupName"] for each in listed] == ["c", "a", "b"]


async def test_pages_follow_each_other(api: Api) -> None:
    for name in ("a", "b", "c"):
        await group(api, name)
    first = await api("ListModelPackageGroups", MaxResults=2)
    second = await api("ListModelPackageGroups", MaxResults=2, NextToken=first["NextToken"])
    assert [each["ModelPackageGroupName"] for each in second["ModelPackageGroupSummaryList"]] == ["c"]


async def test_nothing_is_shared_by_other_accounts(api: Api) -> None:
    await group(api)
    answer = await api("ListModelPackageGroups", CrossAccountFilterOption="CrossAccount")
    assert answer == {"ModelPackageGroupSummaryList": []}
    assert (await api("ListModelPackageGroups", CrossAccountFilterOption="SameAccount"))["ModelPackageGroupSummaryList"]


async def test_a_group_with_versions_is_kept(api: Api) -> None:
    await group(api)
    await api("CreateModelPackage", ModelPackageGroupName="g", SourceUri="s3://b/k")
    with pytest.raises(AwsError) as refused:
        await api.handlers["sagemaker", "DeleteModelPackageGroup"](CALLER, {"ModelPackageGroupName": "g"})
    assert (refused.value.code, refused.value.status) == ("ConflictException", 400)
    assert refused.value.message == f"{GROUP_ARN} cannot be deleted because it still contains Model Packages"
    await api("DeleteModelPackage", ModelPackageName="g/1")
    await api("DeleteModelPackageGroup", ModelPackageGroupName="g")


async def test_a_policy_is_given_back_as_it_was_put(api: Api) -> None:
    await group(api)
    put = await api("PutModelPackageGroupPolicy", ModelPackageGroupName=GROUP_ARN, ResourcePolicy=POLICY)
    assert put == {"ModelPackageGroupArn": GROUP_ARN}
    assert await api("GetModelPackageGroupPolicy", ModelPackageGroupName="g") == {"ResourcePolicy": POLICY}
    assert await api("DeleteModelPackageGroupPolicy", ModelPackageGroupName="g") == {}
    missing = f"Cannot find resource policy for: {GROUP_ARN}"
    assert await api.refusal("GetModelPackageGroupPolicy", ModelPackageGroupName="g") == missing
    assert await api.refusal("DeleteModelPackageGroupPolicy", ModelPackageGroupName="g") == missing


@pytest.mark.parametrize("policy", ["{", "[]", "null", "text"])
async def test_a_policy_is_a_json_object(api: Api, policy: str) -> None:
    await group(api)
    refusal = await api.refusal("PutModelPackageGroupPolicy", ModelPackageGroupName="g", ResourcePolicy=policy)
    assert "JSON object" in refusal


@pytest.mark.parametrize(
    ("operation", "members"),
    [("Put", {"ResourcePolicy": POLICY}), ("Get", {}), ("Delete", {})],
)
async def test_policies_of_an_unknown_group_have_a_text_of_their_own(
    api: Api, operation: str, members: dict[str, str]
) -> None:
    refusal = await api.refusal(f"{operation}ModelPackageGroupPolicy", ModelPackageGroupName="g", **members)
    assert refusal == f"Cannot find Model Package Group: {GROUP_ARN}"


async def test_tags_are_the_groups(api: Api) -> None:
    await group(api, Tags=[{"Key": "team", "Value": "a"}])
    assert await api("ListTags", ResourceArn=GROUP_ARN) == {"Tags": [{"Key": "team", "Value": "a"}]}
