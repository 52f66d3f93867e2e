"""Model packages: versions and packages outside groups, and the models that are made from them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from clary.core.resources import ENDPOINT

from .conftest import ARN, Api, variant

URL = "s3://bucket/model.tar.gz"
PACKAGED = {"Image": "packaged:1", "ModelDataUrl": URL, "Environment": {"A": "package", "B": "package"}}


def runs(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"Containers": list(containers or (PACKAGED,)), "SupportedContentTypes": ["text/csv"]}


def named(name: str, *containers: dict[str, Any]) -> dict[str, Any]:
    return {"Name": name, **runs(*containers)}


@pytest.fixture
async def group(api: Api) -> Api:
    await api("CreateModelPackageGroup", ModelPackageGroupName="g")
    return api


async def version(api: Api, **members: Any) -> str:
    """Make the next version of `g`; give its ARN."""
    defaults = {"InferenceSpecification": runs(), "ModelApprovalStatus": "Approved"}
    made = await api("CreateModelPackage", ModelPackageGroupName="g", **{**defaults, **members})
    return str(made["ModelPackageArn"])


async def plain(api: Api, name: str = "p", **members: Any) -> str:
    members = {"InferenceSpecification": runs({"Image": "plain", "ModelDataUrl": URL}), **members}
    return str((await api("CreateModelPackage", ModelPackageName=name, **members))["ModelPackageArn"])


# Creating and describing


async def test_versions_count_up_and_are_never_used_again(group: Api) -> None:
    assert [await version(group) for _ in range(2)] == [f"{ARN}:model-package/g/{n}" for n in (1, 2)]
    await group("DeleteModelPackage", ModelPackageName=f"{ARN}:model-package/g/2")
    assert await version(group) == f"{ARN}:model-package/g/3"


async def test_versions_made_at_once_get_different_numbers(group: Api) -> None:
    arns = await asyncio.gather(*(version(group) for _ in range(8)))
    assert sorted(arns) == [f"{ARN}:model-package/g/{n}" for n in range(1, 9)]


async def test_a_version_waits_for_approval_unless_it_is_told_otherwise(group: Api) -> None:
    arn = f"{ARN}:model-package/g/1"
    await group(
        "CreateModelPackage", ModelPackageGroupName=f"{ARN}:model-package-group/g", InferenceSpecification=runs()
    )
    described = await group("DescribeModelPackage", ModelPackageName=arn)
    shown = {member: described[member] for member in described if not member.startswith("_")}
    assert shown == {
        "ModelPackageName": "g",
        "ModelPackageGroupName": "g",
        "ModelPackageVersion": 1,
        "ModelPackageArn": arn,
        "InferenceSpecification": runs(),
        "ModelApprovalStatus": "PendingManualApproval",
        "ModelPackageStatus": "Completed",
        "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
        "CertifyForMarketplace": False,
        "CreatedBy": shown["CreatedBy"],
        "CreationTime": 1_700_000_000.0,
        "LastModifiedTime": 1_700_000_000.0,
    }
    assert await group("DescribeModelPackage", ModelPackageName="g/1") == described


async def test_a_package_outside_groups_has_its_own_name_and_tags(api: Api) -> None:
    arn = await plain(api, Tags=[{"Key": "k", "Value": "v"}])
    assert arn == f"{ARN}:model-package/p"
    described = await api("DescribeModelPackage", ModelPackageName="p")
    assert (described["ModelPackageName"], described["ModelPackageArn"]) == ("p", arn)
    assert not {"ModelPackageGroupName", "ModelPackageVersion", "ModelApprovalStatus"} & described.keys()
    assert await api("ListTags", ResourceArn=arn) == {"Tags": [{"Key": "k", "Value": "v"}]}
    assert await api.refusal("CreateModelPackage", ModelPackageName="p", SourceUri="u") == (
        f"ModelPackage already exists: {arn}"
    )


async def test_a_repeated_token_gives_the_first_version_again(group: Api) -> None:
    first = await version(group, ClientToken="t")
    assert await version(group, ClientToken="t") == first
    assert await version(group, ClientToken="u") == f"{ARN}:model-package/g/2"
    assert await plain(group, ClientToken="t") == await plain(group, ClientToken="t") == f"{ARN}:model-package/p"


async def test_a_token_makes_one_version_however_many_ask_at_once(group: Api) -> None:
    arns = await asyncio.gather(*(version(group, ClientToken="t") for _ in range(8)))
    assert set(arns) == {f"{ARN}:model-package/g/1"}
    assert len((await group("ListModelPackages", ModelPackageGroupName="g"))["ModelPackageSummaryList"]) == 1


async def test_a_version_has_no_tags_of_its_own(group: Api) -> None:
    refusal = await group.refusal("AddTags", ResourceArn=await version(group), Tags=[{"Key": "k", "Value": "v"}])
    assert refusal == "Tags cannot be given to a version of a model package group: it has the group's."
    assert await group("AddTags", ResourceArn=await plain(group), Tags=[{"Key": "k", "Value": "v"}])


async def test_what_grows_bit_by_bit_is_measured_together(group: Api) -> None:
    def properties(start: int, stop: int) -> dict[str, str]:
        return {f"k{number}": "v" for number in range(start, stop)}

    arn = await version(group, CustomerMetadataProperties=properties(0, 50))
    update = {"ModelPackageArn": arn}
    refusal = await group.refusal("UpdateModelPackage", **update, CustomerMetadataProperties=properties(50, 51))
    assert "at 'customerMetadataProperties' failed to satisfy constraint: Member must have length less" in refusal
    removed = list(properties(0, 50))
    swap = {"CustomerMetadataProperties": properties(50, 60), "CustomerMetadataPropertiesToRemove": removed}
    await group("UpdateModelPackage", **update, **swap)
    described = await group("DescribeModelPackage", ModelPackageName=arn)
    assert described["CustomerMetadataProperties"] == properties(50, 60)
    await group("UpdateModelPackage", **update, CustomerMetadataPropertiesToRemove=list(properties(50, 60)))
    assert "CustomerMetadataProperties" not in await group("DescribeModelPackage", ModelPackageName=arn)

    fifteen = [named(f"s{number}") for number in range(15)]
    await group("UpdateModelPackage", **update, AdditionalInferenceSpecificationsToAdd=fifteen)
    more = await group.refusal("UpdateModelPackage", **update, AdditionalInferenceSpecificationsToAdd=[named("s15")])
    assert "at 'additionalInferenceSpecifications' failed to satisfy constraint" in more


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"ModelPackageName": "p", "ModelPackageGroupName": "g"},
            "Both ModelPackageName and ModelPackageGroupName are provided in the input. Cannot determine which one to "
            "use.",
        ),
        ({}, "Missing ARN."),
        ({"ModelPackageGroupName": "none", "SourceUri": "u"}, "Model Package Group does not exist."),
        (
            {"ModelPackageGroupName": "g"},
            "Specify one of InferenceSpecification, SourceAlgorithmSpecification, SourceUri.",
        ),
        (
            {"ModelPackageGroupName": "g", "SourceUri": "u", "Tags": [{"Key": "k", "Value": "v"}]},
            "Tags cannot be given to a version of a model package group: it has the group's.",
        ),
        (
            {"ModelPackageName": "p", "InferenceSpecification": runs()},
            "1 validation errors detected:Environment variable map cannot be specified when using non-versioned "
            "ModelPackages",
        ),
        (
            {
                "ModelPackageGroupName": "g",
                "InferenceSpecification": runs({**PACKAGED, "ModelDataSource": {"S3DataSource": {}}}),
            },
            "Specify either ModelDataUrl or ModelDataSource in container definition, not both.",
        ),
        (
            {"ModelPackageGroupName": "g", "InferenceSpecification": runs({"Image": "i", "ModelDataSource": {}})},
            "ModelDataSource requires S3DataSource.",
        ),
        (
            {"ModelPackageGroupName": "g", "SourceUri": "u", "AdditionalInferenceSpecifications": [named("s")] * 2},
            'The inference specification name "s" is used more than once.',
        ),
    ],
    ids=str,
)
async def test_is_refused_and_leaves_nothing(group: Api, members: dict[str, Any], message: str) -> None:
    assert await group.refusal("CreateModelPackage", **members) == message
    assert await group("ListModelPackages", ModelPackageType="Both") == {"ModelPackageSummaryList": []}


@pytest.mark.parametrize("operation", ["DescribeModelPackage", "DeleteModelPackage"])
@pytest.mark.parametrize("name", ["g", "g/7", f"{ARN}:model-package/g/7", "none"])
async def test_an_unknown_package_does_not_exist(group: Api, operation: str, name: str) -> None:
    arn = name if name.startswith("arn:") else f"{ARN}:model-package/{name}"
    assert await group.refusal(operation, ModelPackageName=name) == f"ModelPackage {arn} does not exist."


# Lists


async def names(api: Api, **members: Any) -> list[str]:
    listed = (await api("ListModelPackages", **members))["ModelPackageSummaryList"]
    return [each["ModelPackageArn"].partition("model-package/")[2] for each in listed]


async def test_lists_tell_versions_from_packages_outside_groups(group: Api) -> None:
    await group("CreateModelPackageGroup", ModelPackageGroupName="h")
    await version(group)
    await version(group, ModelApprovalStatus="Rejected")
    await group("CreateModelPackage", ModelPackageGroupName="h", SourceUri="u")
    await plain(group)
    assert await names(group) == ["p"]
    assert await names(group, ModelPackageType="Versioned") == ["g/1", "g/2", "h/1"]
    assert await names(group, ModelPackageType="Both") == ["g/1", "g/2", "h/1", "p"]
    assert await names(group, ModelPackageGroupName="g") == ["g/1", "g/2"]
    assert await names(group, ModelPackageGroupName=f"{ARN}:model-package-group/g", SortOrder="Descending") == [
        "g/2",
        "g/1",
    ]
    assert await names(group, ModelPackageGroupName="g", ModelApprovalStatus="Rejected") == ["g/2"]
    assert await names(group, ModelPackageType="Versioned", NameContains="h") == ["h/1"]


async def test_pages_keep_the_filters(group: Api) -> None:
    for _ in range(3):
        await version(group)
    first = await group("ListModelPackages", ModelPackageGroupName="g", MaxResults=2)
    assert await names(group, ModelPackageGroupName="g", NextToken=first["NextToken"]) == ["g/3"]
    assert "token" in await group.refusal("ListModelPackages", NextToken=first["NextToken"])


async def test_a_list_of_an_unknown_group_is_refused(api: Api) -> None:
    refusal = await api.refusal("ListModelPackages", ModelPackageGroupName="g")
    assert refusal == f"ModelPackageGroup {ARN}:model-package-group/g does not exist."


async def test_a_batch_describes_what_it_finds_and_explains_the_rest(group: Api) -> None:
    there, missing = await version(group), f"{ARN}:model-package/g/9"
    answer = await group("BatchDescribeModelPackage", ModelPackageArnList=[there, missing])
    assert answer["ModelPackageSummaries"].keys() == {there}
    assert answer["ModelPackageSummaries"][there]["InferenceSpecification"] == runs()
    assert answer["BatchDescribeModelPackageErrorMap"] == {
        missing: {"ErrorCode": "ValidationException", "ErrorResponse": f"ModelPackage {missing} does not exist."}
    }


# Updating


async def test_an_update_changes_what_it_names_and_moves_the_time(group: Api) -> None:
    arn = await version(group, ModelApprovalStatus="PendingManualApproval", CustomerMetadataProperties={"a": "1"})
    group.clock.now += 60
    changes = {"ModelApprovalStatus": "Approved", "ApprovalDescription": "good", "SourceUri": "s3://b/k"}
    properties = {"CustomerMetadataProperties": {"b": "2"}, "CustomerMetadataPropertiesToRemove": ["a", "z"]}
    additional = {"AdditionalInferenceSpecificationsToAdd": [named("small")]}
    for _ in range(2):  # a repetition is no error
        updated = await group("UpdateModelPackage", ModelPackageArn=arn, **changes, **properties, **additional)
        assert updated == {"ModelPackageArn": arn}
    described = await group("DescribeModelPackage", ModelPackageName=arn)
    assert {member: described[member] for member in changes} == changes
    assert described["CustomerMetadataProperties"] == {"b": "2"}
    assert described["AdditionalInferenceSpecifications"] == [named("small")]
    assert described["InferenceSpecification"] == runs()
    assert (described["CreationTime"], described["LastModifiedTime"]) == (1_700_000_000.0, 1_700_000_060.0)
    assert described["LastModifiedBy"] == described["CreatedBy"]


async def test_an_update_of_what_is_not_there_or_has_no_approval_is_refused(api: Api) -> None:
    arn = f"{ARN}:model-package/p"
    approve = {"ModelPackageArn": arn, "ModelApprovalStatus": "Approved"}
    assert await api.refusal("UpdateModelPackage", **approve) == f"ModelPackage {arn} does not exist."
    await plain(api)
    assert "versions" in await api.refusal("UpdateModelPackage", **approve)


async def test_additional_specifications_keep_different_names(group: Api) -> None:
    arn = await version(group, AdditionalInferenceSpecifications=[named("small")])
    other = named("small", {"Image": "other"})
    refusal = await group.refusal(
        "UpdateModelPackage", ModelPackageArn=arn, AdditionalInferenceSpecificationsToAdd=[other]
    )
    assert refusal == 'The inference specification name "small" is used more than once.'


# Models of packages


async def model(api: Api, **container: Any) -> None:
    await api("CreateModel", ModelName="m", PrimaryContainer=container)


async def deployed(api: Api) -> Any:
    """Give the containers that an endpoint of model `m` would run."""
    await api.config()
    await api.endpoint()
    endpoint = await api.store.get(ENDPOINT, "e")
    assert endpoint is not None
    deployment: Any = endpoint.spec["_Deployment"]
    return deployment["Models"]["m"]["Containers"]


@pytest.mark.parametrize("name", ["g/1", f"{ARN}:model-package/g/1"])
async def test_a_model_runs_what_its_package_said_when_it_was_made(group: Api, name: str) -> None:
    arn = await version(group)
    await model(group, ModelPackageName=name, Environment={"B": "model", "C": "model"})
    await group("UpdateModelPackage", ModelPackageArn=arn, InferenceSpecification=runs({"Image": "newer"}))
    await group("DeleteModelPackage", ModelPackageName=arn)
    environment = {"A": "package", "B": "model", "C": "model"}
    assert await deployed(group) == [{**PACKAGED, "Environment": environment, "Mode": "SingleModel"}]
    described = await group("DescribeModel", ModelName="m")
    assert described["PrimaryContainer"] == {
        "ModelPackageName": name,
        "Environment": {"B": "model", "C": "model"},
        "Mode": "SingleModel",
    }


async def test_a_model_may_take_an_additional_specification(group: Api) -> None:
    await version(group, AdditionalInferenceSpecifications=[named("small", {"Image": "small"})])
    await model(group, ModelPackageName="g/1", InferenceSpecificationName="small")
    assert [container["Image"] for container in await deployed(group)] == ["small"]


async def test_a_package_of_several_containers_makes_a_pipeline(group: Api) -> None:
    await version(group, InferenceSpecification=runs({"Image": "one"}, {"Image": "two"}))
    await model(group, ModelPackageName="g/1")
    assert [container["Image"] for container in await deployed(group)] == ["one", "two"]


async def test_a_package_outside_groups_needs_no_approval(api: Api) -> None:
    await plain(api, ModelApprovalStatus="PendingManualApproval")
    assert "ModelApprovalStatus" not in await api("DescribeModelPackage", ModelPackageName="p")
    await api("CreateModel", ModelName="m", Containers=[{"ModelPackageName": "p"}])
    assert [container["Image"] for container in await deployed(api)] == ["plain"]


@pytest.mark.parametrize("status", ["PendingManualApproval", "Rejected"])
async def test_a_version_that_is_not_approved_makes_no_model(group: Api, status: str) -> None:
    await version(group, ModelApprovalStatus=status)
    refusal = await group.refusal("CreateModel", ModelName="m", PrimaryContainer={"ModelPackageName": "g/1"})
    assert refusal == (
        f"ModelPackage {ARN}:model-package/g/1 is not approved for deployment: its ModelApprovalStatus is {status}."
    )
    await group("UpdateModelPackage", ModelPackageArn=f"{ARN}:model-package/g/1", ModelApprovalStatus="Approved")
    await model(group, ModelPackageName="g/1")


@pytest.mark.parametrize(
    ("members", "container", "message"),
    [
        ({}, {"InferenceSpecificationName": "s"}, 'has no inference specification "s".'),
        ({"InferenceSpecification": runs({"ModelDataUrl": URL})}, {}, "has a container without an Image."),
    ],
)
async def test_a_package_with_nothing_to_run_makes_no_model(
    group: Api, members: dict[str, Any], container: dict[str, Any], message: str
) -> None:
    await version(group, **members)
    definition = {"ModelPackageName": "g/1"} | container
    refusal = await group.refusal("CreateModel", ModelName="m", PrimaryContainer=definition)
    assert refusal == f"ModelPackage {ARN}:model-package/g/1 {message}"


async def test_a_package_without_specification_makes_no_model(group: Api) -> None:
    await group("CreateModelPackage", ModelPackageGroupName="g", SourceUri="u", ModelApprovalStatus="Approved")
    refusal = await group.refusal("CreateModel", ModelName="m", PrimaryContainer={"ModelPackageName": "g/1"})
    assert refusal == f"ModelPackage {ARN}:model-package/g/1 has no InferenceSpecification."


async def test_a_configuration_takes_a_model_of_a_package(group: Api) -> None:
    await version(group)
    await model(group, ModelPackageName="g/1")
    await group.config("c2", ProductionVariants=[variant()])
    assert (await group("DescribeEndpointConfig", EndpointConfigName="c2"))["ProductionVariants"]


async def test_versions_sort_as_numbers_and_their_numbers_are_no_part_of_their_name(api: Api) -> None:
    await api("CreateModelPackageGroup", ModelPackageGroupName="g")
    for _ in range(11):
        await api("CreateModelPackage", ModelPackageGroupName="g", SourceUri="s3://b/k")
    listed = await api("ListModelPackages", ModelPackageGroupName="g", SortBy="Name", MaxResults=100)
    assert [each["ModelPackageVersion"] for each in listed["ModelPackageSummaryList"]] == [*range(1, 12)]
    assert {each["ModelPackageName"] for each in listed["ModelPackageSummaryList"]} == {"g"}
    assert listed["ModelPackageSummaryList"][9]["ModelPackageArn"] == f"{ARN}:model-package/g/10"
    for part, found in (("g", 11), ("1", 0), ("0", 0)):
        listed = await api("ListModelPackages", ModelPackageGroupName="g", NameContains=part, MaxResults=100)
        assert len(listed["ModelPackageSummaryList"]) == found


@pytest.mark.parametrize("name", ["g/1", f"{ARN}:model-package/g/1"])
async def test_a_version_has_one_name(api: Api, name: str) -> None:
    await api("CreateModelPackageGroup", ModelPackageGroupName="g")
    await api("CreateModelPackage", ModelPackageGroupName="g", SourceUri="s3://b/k")
    assert (await api("DescribeModelPackage", ModelPackageName=name))["ModelPackageVersion"] == 1
    refusal = await api.refusal("DescribeModelPackage", ModelPackageName="g/000000001")
    assert refusal == f"ModelPackage {ARN}:model-package/g/000000001 does not exist."
    await api("DeleteModelPackage", ModelPackageName=name)
    await api.refusal("DescribeModelPackage", ModelPackageName=name)
