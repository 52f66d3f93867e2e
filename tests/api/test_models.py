"""The rules of CreateModel that need no look at the world, and what DescribeModel fills in."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import ARN, Api

SOURCE = "Specify one of either Image and Model Data URL or ModelPackageName in container definition."
S3 = {"S3Uri": "s3://bucket/prefix/", "S3DataType": "S3Prefix", "CompressionType": "None"}
VPC = {"VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}}
AUTH = {"RepositoryAuthConfig": {"RepositoryCredentialsProviderArn": "arn:aws:lambda:::function:f"}}


DIGEST = "sha256:" + "0a" * 32
IMAGES = (
    "image",
    "library/image:1.0",
    "localhost:5000/a/b",
    "registry:5000/a",
    "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3",
    f"registry.example.com:443/team/my_image__x@{DIGEST}",
    f"image:tag@{DIGEST}",
)


def one(**members: Any) -> dict[str, Any]:
    return {"PrimaryContainer": {"Image": "image"} | members}


def published(seconds: int) -> dict[str, Any]:
    return {"MetricsEndpointPath": "/metrics", "MetricPublishFrequencyInSeconds": seconds}


def several(*containers: dict[str, Any], mode: str | None = None) -> dict[str, Any]:
    definition: dict[str, Any] = {"Containers": [{"Image": "image"} | container for container in containers]}
    return definition | ({"InferenceExecutionConfig": {"Mode": mode}} if mode else {})


async def test_describe_echoes_the_definition_with_the_services_defaults(api: Api) -> None:
    container = {"Image": "image", "ModelDataUrl": "s3://bucket/model.tar.gz", "Environment": {"A": "1"}}
    await api("CreateModel", ModelName="m", PrimaryContainer=container, ExecutionRoleArn="arn:aws:iam::1:role/r")
    assert await api("DescribeModel", ModelName="m") == {
        "ModelName": "m",
        "ModelArn": f"{ARN}:model/m",
        "PrimaryContainer": container | {"Mode": "SingleModel"},
        "ExecutionRoleArn": "arn:aws:iam::1:role/r",
        "EnableNetworkIsolation": False,
        "CreationTime": 1_700_000_000.0,
        "LastModifiedTime": 1_700_000_000.0,  # not in the shape: encoding drops it
    }


MULTI = {"Mode": "MultiModel", "ModelDataUrl": "s3://bucket/models/"}


async def test_describe_gives_containers_as_they_were_given(api: Api) -> None:
    await api("CreateModel", ModelName="m", **several({}, MULTI), EnableNetworkIsolation=True)
    described = await api("DescribeModel", ModelName="m")
    assert [container["Mode"] for container in described["Containers"]] == ["SingleModel", "MultiModel"]
    assert described["EnableNetworkIsolation"] is True
    assert "PrimaryContainer" not in described


@pytest.mark.parametrize(
    "definition",
    [
        several({}),
        several(MULTI),
        one(**MULTI, MultiModelConfig={"ModelCacheSetting": "Disabled"}),
        one(ModelDataUrl="s3://bucket/model.tar.gz"),
        one(ModelDataSource={"S3DataSource": S3}),
        one(ImageConfig={"RepositoryAccessMode": "Vpc"} | AUTH) | VPC,
        one(Environment={"A": "x" * (32 * 1024 - 1)}),
        several({"ContainerHostname": "a"}, {"ContainerHostname": "b"}, mode="Direct"),
        several({}, {}, mode="Serial"),
        one() | {"Containers": []},
        one(Mode="MultiModel", ModelDataUrl="s3://bucket/models"),
        one(Mode="MultiModel", ModelDataUrl="s3://bucket/models/"),
        one(ModelDataSource={"S3DataSource": S3 | {"S3DataType": "S3Object", "CompressionType": "Gzip"}}),
        one(AdditionalModelDataSources=[{"ChannelName": "a", "S3DataSource": S3}]),
        one(ContainerMetricsConfig={"MetricsEndpoints": [published(30)]}),
        one(ContainerMetricsConfig={"MetricsEndpoints": [{"MetricsEndpointPath": "/metrics"}]}),
        *(one(Image=image) for image in IMAGES),
    ],
    ids=str,
)
async def test_is_accepted(api: Api, definition: dict[str, Any]) -> None:
    await api("CreateModel", ModelName="m", **definition)
    assert "Containers" not in (described := await api("DescribeModel", ModelName="m")) or described["Containers"]


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({}, "either PrimaryContainer or Containers"),
        ({"Containers": []}, "either PrimaryContainer or Containers"),
        (one() | several({}), "not both"),
        ({"PrimaryContainer": {}}, SOURCE),
        ({"PrimaryContainer": {"ModelDataUrl": "s3://b/k"}}, SOURCE),
        (one(ModelPackageName="p"), SOURCE),
        ({"PrimaryContainer": {"ModelPackageName": "p", "ModelDataUrl": "s3://b/k"}}, SOURCE),
        ({"PrimaryContainer": {"ModelPackageName": "g/1"}}, f"ModelPackage {ARN}:model-package/g/1 does not exist."),
        (
            {"PrimaryContainer": {"ModelPackageName": "arn:aws:sagemaker:x"}},
            "ModelPackage arn:aws:sagemaker:x does not exist.",
        ),
        (one(ModelDataUrl="s3://b/k", ModelDataSource={"S3DataSource": S3}), "ModelDataUrl or ModelDataSource"),
        (one(Mode="MultiModel", ModelDataSource={"S3DataSource": S3}), "MultiModel"),
        (one(Mode="MultiModel"), "ModelDataUrl is required for containers in MultiModel mode."),
        (
            one(MultiModelConfig={"ModelCacheSetting": "Disabled"}),
            "MultiModelConfig requires a container in MultiModel mode.",
        ),
        (one(ModelDataSource={}), "ModelDataSource requires S3DataSource."),
        (one(ModelDataSource={"S3DataSource": S3 | {"S3Uri": "s3://bucket/prefix"}}), 'must end with "/"'),
        (one(ImageConfig={"RepositoryAccessMode": "Vpc"}), "VpcConfig"),
        (one(ImageConfig={"RepositoryAccessMode": "Platform"} | AUTH), "RepositoryAuthConfig"),
        (one(Environment={"A": "x" * 32 * 1024}), "32768"),
        (several({"Environment": {"A": "é" * 8 * 1024}}, {"Environment": {"A": "x" * 16 * 1024}}), "32768"),
        (
            several(MULTI, MULTI),
            "More than one container in MultiModel mode is not supported with inference pipeline.",
        ),
        (one(ModelDataUrl="s3://bucket/model.tar"), "(.tar.gz suffix)"),
        (one(ModelDataUrl="s3://bucket"), "(.tar.gz suffix)"),
        (one(Mode="MultiModel", ModelDataUrl="s3://bucket/model.tar.gz"), "MultiModel mode"),
        (one(ModelDataSource={"S3DataSource": S3 | {"CompressionType": "Gzip"}}), "requires S3DataType S3Object"),
        (
            one(AdditionalModelDataSources=[{"ChannelName": "a", "S3DataSource": S3 | {"S3Uri": "s3://b/k"}}]),
            'must end with "/"',
        ),
        (one(AdditionalModelDataSources=[{"ChannelName": "a", "S3DataSource": S3}] * 2), "ChannelName"),
        (one(AdditionalModelDataSources=[{"ChannelName": "..", "S3DataSource": S3}]), "must not be '.' or '..'"),
        (one(InferenceSpecificationName="s"), "requires ModelPackageName"),
        ({"PrimaryContainer": {"ModelPackageName": "p", "ModelDataSource": {"S3DataSource": S3}}}, SOURCE),
        *(
            (one(Image=image), f'ECR image "{image}" is invalid.')
            for image in ("Image", "a//b", "a:", "a@b", "http://a")
        ),
        (several({"ContainerHostname": "a"}, {}), "for all containers or for none"),
        (several({"ContainerHostname": "a"}, {"ContainerHostname": "a"}), "must be unique"),
        (several({}, mode="Serial"), "more than one container"),
        (one() | {"InferenceExecutionConfig": {"Mode": "Serial"}}, "more than one container"),
        (several({}, {}, mode="Direct"), "ContainerHostname"),
        (
            one(ContainerMetricsConfig={"MetricsEndpoints": [published(7)]}),
            "MetricPublishFrequencyInSeconds 7 is not one of 10, 30, 60, 120, 180, 240, 300.",
        ),
    ],
    ids=str,
)
async def test_is_refused_and_leaves_nothing(api: Api, definition: dict[str, Any], message: str) -> None:
    refusal = await api.refusal("CreateModel", ModelName="m", **definition)
    assert message in refusal
    assert await api("ListModels") == {"Models": []}


@pytest.mark.parametrize(
    ("packaged", "own", "message"),
    [
        ({"ModelDataUrl": "s3://b/m.tgz"}, {}, "must point to a single gzip compressed tar archive"),
        ({"ModelDataUrl": "s3://b/m.tar.gz"}, {"Mode": "MultiModel"}, "because its container is in MultiModel mode"),
        ({"Image": "Not An Image"}, {}, 'ECR image "Not An Image" is invalid.'),
        ({"Environment": {"A": "x" * 30_000}}, {"Environment": {"B": "x" * 3_000}}, "the limit is 32768"),
    ],
    ids=str,
)
async def test_the_rules_hold_for_what_a_package_says_too(
    api: Api, packaged: dict[str, Any], own: dict[str, Any], message: str
) -> None:
    await package(api, [{"Image": "image", **packaged}])
    assert message in await api.refusal(
        "CreateModel", ModelName="m", PrimaryContainer={"ModelPackageName": "g/1", **own}
    )


async def test_the_containers_of_a_package_are_a_pipeline_like_any_other(api: Api) -> None:
    await package(api, [{"Image": "a", "ContainerHostname": "x"}, {"Image": "b", "ContainerHostname": "x"}])
    refusal = await api.refusal("CreateModel", ModelName="m", PrimaryContainer={"ModelPackageName": "g/1"})
    assert refusal == "ContainerHostname must be unique among the containers of a model."
    await package(api, [{"Image": "a", "ContainerHostname": "x"}, {"Image": "b", "ContainerHostname": "y"}], group="h")
    direct = {"InferenceExecutionConfig": {"Mode": "Direct"}}
    await api("CreateModel", ModelName="m", Containers=[{"ModelPackageName": "h/1"}], **direct)


async def test_packages_do_not_make_more_containers_than_a_model_may_have(api: Api) -> None:
    await package(api, [{"Image": "image"}] * 8)
    refusal = await api.refusal("CreateModel", ModelName="m", Containers=[{"ModelPackageName": "g/1"}] * 2)
    assert refusal == "A model has at most 15 containers; with its packages' it has 16."


async def test_a_list_of_one_container_is_a_model(api: Api) -> None:
    await api("CreateModel", ModelName="m", Containers=[{"Image": "image"}])
    described = await api("DescribeModel", ModelName="m")
    assert described["Containers"] == [{"Image": "image", "Mode": "SingleModel"}]


async def test_a_manifest_needs_a_prefix(api: Api) -> None:
    source = {"S3Uri": "s3://b/m", "S3DataType": "S3Object", "CompressionType": "None", "ManifestS3Uri": "s3://b/l"}
    container = {"Image": "image", "ModelDataSource": {"S3DataSource": source}}
    refusal = await api.refusal("CreateModel", ModelName="m", PrimaryContainer=container)
    assert refusal == "ManifestS3Uri requires S3DataType S3Prefix: it names objects below S3Uri."


async def package(api: Api, containers: list[dict[str, Any]], group: str = "g") -> None:
    await api("CreateModelPackageGroup", ModelPackageGroupName=group)
    await api(
        "CreateModelPackage",
        ModelPackageGroupName=group,
        ModelApprovalStatus="Approved",
        InferenceSpecification={"Containers": containers},
    )


async def test_a_name_that_is_taken_is_said_before_all_that_is_wrong_with_the_definition(api: Api) -> None:
    await api.model()
    refusal = await api.refusal("CreateModel", ModelName="m", **one(ModelDataUrl="s3://bucket/no-archive"))
    assert refusal.startswith("Cannot create already existing model")
