"""What CreateEndpointConfig checks and fills in."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import ARN, Api, variant

ROLE = {"ExecutionRoleArn": "arn:aws:iam::123456789012:role/r"}
MISSING = variant(VariantName="b", ModelName="missing")
SERVERLESS = {"MemorySizeInMB": 2048, "MaxConcurrency": 5}
CAPTURE = {
    "InitialSamplingPercentage": 20,
    "DestinationS3Uri": "s3://bucket/captured",
    "CaptureOptions": [{"CaptureMode": "Input"}],
}


def without(member: str, *more: str, **members: Any) -> dict[str, Any]:
    return {name: value for name, value in variant(**members).items() if name not in (member, *more)}


def serverless(**config: Any) -> dict[str, Any]:
    return without("InstanceType", "InitialInstanceCount", ServerlessConfig=SERVERLESS | config)


async def test_describe_echoes_the_request_with_the_services_defaults(api: Api) -> None:
    await api.model()
    await api.config(KmsKeyId="key", ShadowProductionVariants=[])
    assert await api("DescribeEndpointConfig", EndpointConfigName="c") == {
        "EndpointConfigName": "c",
        "EndpointConfigArn": f"{ARN}:endpoint-config/c",
        "ProductionVariants": [variant(InitialVariantWeight=1.0)],
        "KmsKeyId": "key",
        "EnableNetworkIsolation": False,
        "CreationTime": 1_700_000_000.0,
        "LastModifiedTime": 1_700_000_000.0,  # not in the shape: encoding drops it
    }


async def test_a_weight_of_zero_is_kept(api: Api) -> None:
    await api.model()
    await api.config(ProductionVariants=[variant(InitialVariantWeight=0.0)])
    described = await api("DescribeEndpointConfig", EndpointConfigName="c")
    assert described["ProductionVariants"][0]["InitialVariantWeight"] == 0.0


@pytest.mark.parametrize(
    "members",
    [
        {"ProductionVariants": [variant(), variant(VariantName="b", ModelName="missing")]},
        {
            "ProductionVariants": [variant()],
            "ShadowProductionVariants": [variant(VariantName="b", ModelName="missing")],
        },
        {
            "ProductionVariants": [
                variant(
                    InstancePools=[{"InstanceType": "ml.m5.large", "Priority": 1, "ModelNameOverride": "missing"}],
                )
            ]
        },
    ],
    ids=["production", "shadow", "pool"],
)
async def test_every_model_must_exist(api: Api, members: dict[str, Any]) -> None:
    await api.model()
    refusal = await api.refusal("CreateEndpointConfig", EndpointConfigName="c", **members)
    assert refusal == f'Could not find model "{ARN}:model/missing".'


@pytest.mark.parametrize(
    "members",
    [
        {"ProductionVariants": [serverless()]},
        {"ProductionVariants": [serverless(ProvisionedConcurrency=5)]},
        {"ProductionVariants": [without("ModelName")], **ROLE},
        {"ProductionVariants": [variant(), variant(VariantName="b")]},
        {"ProductionVariants": [variant()], "ShadowProductionVariants": [variant(VariantName="s")]},
        {"ProductionVariants": [variant()], "AsyncInferenceConfig": {"OutputConfig": {}}},
        # SDKs send back what DescribeEndpointConfig gave them.
        {"ProductionVariants": [variant(InitialVariantWeight=1.0)], "EnableNetworkIsolation": False},
    ],
    ids=str,
)
async def test_is_accepted(api: Api, members: dict[str, Any]) -> None:
    await api.model()
    assert await api.config(**members) == {"EndpointConfigArn": f"{ARN}:endpoint-config/c"}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"ProductionVariants": [variant(), variant()]}, '"AllTraffic" is used more than once'),
        (
            {"ProductionVariants": [variant()], "ShadowProductionVariants": [variant()]},
            '"AllTraffic" is used more than once',
        ),
        (
            {"ProductionVariants": [variant()], "MetricsConfig": {"MetricPublishFrequencyInSeconds": 15}},
            "MetricPublishFrequencyInSeconds 15 is not one of",
        ),
        (
            {"ProductionVariants": [variant(), without("ModelName", VariantName="b")], **ROLE},
            "ModelName for all variants or for none",
        ),
        ({"ProductionVariants": [without("ModelName")]}, "ExecutionRoleArn is required"),
        (
            {"ProductionVariants": [variant(ManagedInstanceScaling={"Status": "ENABLED"})]},
            "ManagedInstanceScaling is only supported for inference component endpoints.",
        ),
        ({"ProductionVariants": [without("InstanceType")]}, "InstanceType or ServerlessConfig"),
        ({"ProductionVariants": [without("InitialInstanceCount")]}, "InitialInstanceCount"),
        ({"ProductionVariants": [variant(ServerlessConfig=SERVERLESS)]}, "must be absent"),
        ({"ProductionVariants": [serverless(MemorySizeInMB=1500)]}, "multiple of 1024"),
        ({"ProductionVariants": [serverless(ProvisionedConcurrency=6)]}, "ProvisionedConcurrency"),
        (
            {"ProductionVariants": [serverless()], "AsyncInferenceConfig": {"OutputConfig": {}}},
            "AsyncInferenceConfig is not supported for endpoints with serverless variants.",
        ),
        (
            {
                "ProductionVariants": [without("ModelName")],
                "AsyncInferenceConfig": {"OutputConfig": {}},
                **ROLE,
            },
            "AsyncInferenceConfig is not supported for endpoints with inference components.",
        ),
        ({"ProductionVariants": [serverless()], "DataCaptureConfig": CAPTURE}, "DataCaptureConfig is not supported"),
        (
            {"ProductionVariants": [variant()], "DataCaptureConfig": CAPTURE | {"DestinationS3Uri": "https://b/x"}},
            'DestinationS3Uri "https://b/x" of DataCaptureConfig must be s3://bucket/prefix.',
        ),
        (
            {
                "ProductionVariants": [
                    without(
                        "ModelName",
                        ManagedInstanceScaling={"Status": "ENABLED", "MinInstanceCount": 3, "MaxInstanceCount": 2},
                    )
                ],
                **ROLE,
            },
            "MinInstanceCount of variant",
        ),
        (
            {
                "ProductionVariants": [variant(), variant(VariantName="b")],
                "ShadowProductionVariants": [variant(VariantName="s")],
            },
            "exactly one production variant",
        ),
    ],
    ids=str,
)
async def test_is_refused_and_leaves_nothing(api: Api, members: dict[str, Any], message: str) -> None:
    await api.model()
    assert message in await api.refusal("CreateEndpointConfig", EndpointConfigName="c", **members)
    assert await api("ListEndpointConfigs") == {"EndpointConfigs": []}


async def test_some_models_are_not_for_some_endpoints(api: Api) -> None:
    source = {"S3Uri": "s3://b/m", "S3DataType": "S3Object", "CompressionType": "None"}
    await api.model(PrimaryContainer={"Image": "image", "ModelDataSource": {"S3DataSource": source}})
    refusal = await api.refusal("CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[serverless()])
    assert refusal.startswith("Model with containers that use ModelDataSourc")
    await api.config(ProductionVariants=[variant()])
    multi = {"Image": "image", "Mode": "MultiModel", "ModelDataUrl": "s3://b/models/"}
    await api.model("multi", PrimaryContainer=multi)
    refusal = await api.refusal(
        "CreateEndpointConfig",
        EndpointConfigName="d",
        ProductionVariants=[variant(ModelName="multi")],
        AsyncInferenceConfig={"OutputConfig": {}},
    )
    assert refusal == "AsyncInferenceConfig is not supported for containers in MultiModel mode."
    several = [{"Image": "image", "ContainerHostname": name} for name in ("a", "b")]
    direct = {"Containers": several, "InferenceExecutionConfig": {"Mode": "Direct"}}
    await api("CreateModel", ModelName="direct", **direct)
    refusal = await api.refusal(
        "CreateEndpointConfig",
        EndpointConfigName="d",
        ProductionVariants=[variant(ModelName="direct")],
        AsyncInferenceConfig={"OutputConfig": {}},
    )
    assert refusal == "AsyncInferenceConfig is not supported for models in Direct mode."
