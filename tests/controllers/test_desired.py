from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, cast

import pytest

from clary.controllers.desired import desired
from clary.core.containers import ModelData, ModelDataForm, Network, Repository
from clary.core.deployment import ContainerTemplate, Variant
from clary.core.resources import Resource
from clary.core.routing import AsyncInference, DataCapture

SPEC: dict[str, Any] = {
    "EndpointName": "ep",
    "EndpointConfigName": "cfg",
    "_Deployment": {
        "EndpointConfig": {
            "EndpointConfigName": "cfg",
            "ProductionVariants": [{"VariantName": "blue", "ModelName": "m"}],
        },
        "Models": {"m": {"ModelName": "m", "PrimaryContainer": {"Image": "img:1"}}},
    },
}


def endpoint(spec: object) -> Resource:
    return Resource("Endpoint", "ep", "arn:ep", cast("dict[str, object]", spec), created_at=5.0)


def changed(*path: object, value: object) -> Resource:
    spec = copy.deepcopy(SPEC)
    place: Any = spec["_Deployment"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return endpoint(spec)


VARIANT = ("EndpointConfig", "ProductionVariants", 0)
CONTAINER = ("Models", "m", "PrimaryContainer")


def test_defaults_are_those_of_aws() -> None:
    wanted = desired(endpoint(SPEC))
    assert wanted.refusal is None
    assert wanted.config_name == "cfg"
    assert wanted.variants == (
        Variant(
            "blue",
            (ContainerTemplate("img:1"),),
            False,
            "ml.clary.local",
            1,
            1.0,
            startup_timeout=480.0,
            download_timeout=3600.0,
            strategy="LEAST_OUTSTANDING_REQUESTS",
        ),
    )


def test_everything_that_matters_is_carried_over() -> None:
    spec = copy.deepcopy(SPEC)
    spec["_Deployment"]["EndpointConfig"]["ProductionVariants"][0] |= {
        "InitialInstanceCount": 3,
        "InitialVariantWeight": 0.25,
        "InstanceType": "ml.m5.large",
        "ContainerStartupHealthCheckTimeoutInSeconds": 61,
        "ModelDataDownloadTimeoutInSeconds": 62,
    }
    spec["_Deployment"]["Models"]["m"]["PrimaryContainer"] |= {
        "Environment": {"A": "b"},
        "ModelDataUrl": "s3://bucket/model.tar.gz",
    }
    assert desired(endpoint(spec)).variants == (
        Variant(
            "blue",
            (ContainerTemplate("img:1", {"A": "b"}, (ModelData("s3://bucket/model.tar.gz"),)),),
            False,
            "ml.m5.large",
            3,
            0.25,
            61.0,
            62.0,
        ),
    )


def test_the_containers_of_a_pipeline_keep_their_order_and_get_names() -> None:
    containers = [{"Image": "a"}, {"Image": "b"}]
    (variant,) = desired(changed("Models", "m", value={"ModelName": "m", "Containers": containers})).variants
    assert [(each.image, each.name) for each in variant.containers] == [("a", "container-1"), ("b", "container-2")]
    assert not variant.direct
    named = [{"Image": "a", "ContainerHostname": "first"}, {"Image": "b", "ContainerHostname": "second"}]
    model = {"ModelName": "m", "Containers": named, "InferenceExecutionConfig": {"Mode": "Direct"}}
    (variant,) = desired(changed("Models", "m", value=model)).variants
    assert [each.name for each in variant.containers] == ["first", "second"]
    assert variant.direct


def test_a_single_container_is_called_primary_whatever_its_hostname() -> None:
    (variant,) = desired(changed(*CONTAINER, "ContainerHostname", value="mine")).variants
    assert [(each.name, each.hostname) for each in variant.containers] == [("primary", "")]


def test_a_list_of_one_container_is_no_pipeline() -> None:
    model = {"ModelName": "m", "Containers": [{"Image": "a", "ContainerHostname": "h"}]}
    (variant,) = desired(changed("Models", "m", value=model)).variants
    assert [(each.name, each.hostname) for each in variant.containers] == [("primary", "")]


def test_isolation_networks_and_registry_access_are_carried_over() -> None:
    arn = "arn:aws:lambda:us-east-1:000000000000:function:login"
    model = {
        "ModelName": "m",
        "PrimaryContainer": {
            "Image": "registry/i",
            "ImageConfig": {
                "RepositoryAccessMode": "Vpc",
                "RepositoryAuthConfig": {"RepositoryCredentialsProviderArn": arn},
            },
        },
        "EnableNetworkIsolation": True,
        "ExecutionRoleArn": "arn:aws:iam::000000000000:role/r",
        "VpcConfig": {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1", "sg-2"]},
    }
    (slot,) = desired(changed("Models", "m", value=model)).slots()
    assert slot.spec.network == Network(True, ("subnet-1",), ("sg-1", "sg-2"))
    assert slot.spec.repository == Repository("Vpc", arn)
    assert slot.spec.role_arn == "arn:aws:iam::000000000000:role/r"  # as whom its data is read


def test_shadow_variants_strategies_and_capture_are_carried_over() -> None:
    spec = copy.deepcopy(SPEC)
    spec["_Deployment"]["EndpointConfig"] |= {
        "ShadowProductionVariants": [
            {"VariantName": "dark", "ModelName": "m", "RoutingConfig": {"RoutingStrategy": "RANDOM"}}
        ],
        "DataCaptureConfig": {
            "InitialSamplingPercentage": 20,
            "DestinationS3Uri": "s3://b/p/",
            "CaptureOptions": [{"CaptureMode": "Input"}],
            "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"]},
        },
    }
    wanted = desired(endpoint(spec))
    assert [(each.name, each.shadow, each.strategy) for each in wanted.variants] == [
        ("blue", False, "LEAST_OUTSTANDING_REQUESTS"),
        ("dark", True, "RANDOM"),
    ]
    assert wanted.capture == DataCapture("s3://b/p", 20, True, False, ("text/csv",))
    spec["_Deployment"]["EndpointConfig"]["DataCaptureConfig"]["EnableCapture"] = False
    assert desired(endpoint(spec)).capture is None


def test_an_asynchronous_configuration_is_carried_over() -> None:
    spec = copy.deepcopy(SPEC)
    assert desired(endpoint(spec)).asynchronous is None
    spec["_Deployment"]["EndpointConfig"]["AsyncInferenceConfig"] = {"OutputConfig": {}}
    least = desired(endpoint(spec)).asynchronous
    assert least is not None
    assert (least.output_path, least.failure_path, least.concurrency, least.success_topic) == ("", "", 4, "")
    spec["_Deployment"]["EndpointConfig"]["AsyncInferenceConfig"] = {
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 9},
        "OutputConfig": {
            "S3OutputPath": "s3://b/out",
            "S3FailurePath": "s3://b/failed",
            "NotificationConfig": {
                "SuccessTopic": "arn:ok",
                "ErrorTopic": "arn:bad",
                "IncludeInferenceResponseIn": ["ERROR_NOTIFICATION_TOPIC"],
            },
        },
    }
    assert desired(endpoint(spec)).asynchronous == AsyncInference(
        least.queue, "s3://b/out", "s3://b/failed", 9, "arn:ok", "arn:bad", include_success=False, include_error=True
    )
    namesake = replace(endpoint(spec), created_at=6.0)
    later = desired(namesake).asynchronous
    assert later is not None
    assert later.queue != least.queue


S3 = {"S3Uri": "s3://b/m/", "S3DataType": "S3Prefix", "CompressionType": "None"}


@pytest.mark.parametrize(
    ("kind", "compression", "form"),
    [("S3Object", "Gzip", "archive"), ("S3Object", "None", "object"), ("S3Prefix", "None", "prefix")],
)
def test_model_data_is_an_archive_a_file_or_a_tree(kind: str, compression: str, form: str) -> None:
    source = {"S3DataSource": {"S3Uri": "s3://b/m/", "S3DataType": kind, "CompressionType": compression}}
    wanted = desired(changed(*CONTAINER, "ModelDataSource", value=source))
    (slot,) = wanted.slots()
    assert slot.spec.model_data == (ModelData("s3://b/m/", cast("ModelDataForm", form)),)


def test_additional_sources_have_a_directory_each() -> None:
    sources = [{"ChannelName": "draft", "S3DataSource": S3}]
    (slot,) = desired(changed(*CONTAINER, "AdditionalModelDataSources", value=sources)).slots()
    assert slot.spec.model_data == (ModelData("s3://b/m/", "prefix", "draft"),)
    assert slot.spec.model_data[0].place == "additional-model-data-sources/draft"


def test_a_manifest_goes_with_its_prefix() -> None:
    source = {"S3DataSource": S3 | {"ManifestS3Uri": "s3://b/list"}}
    (slot,) = desired(changed(*CONTAINER, "ModelDataSource", value=source)).slots()
    assert slot.spec.model_data == (ModelData("s3://b/m/", "prefix", "", "s3://b/list"),)


def test_the_fingerprint_follows_the_deployment() -> None:
    one = desired(endpoint(SPEC)).deployment
    assert one == desired(endpoint(copy.deepcopy(SPEC))).deployment
    assert one != desired(changed(*CONTAINER, "Image", value="img:2")).deployment


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ((*VARIANT, "ServerlessConfig"), {"MemorySizeInMB": 1024}, "blue has ServerlessConfig"),
        ((*VARIANT, "ModelName"), "other", 'Could not find model "other"'),
        ((*CONTAINER, "Mode"), "MultiModel", "model m has Mode MultiModel and no ModelDataUrl"),
        ((*CONTAINER, "Image"), None, "has no Image"),
        ((*CONTAINER, "ModelDataSource"), {"S3DataSource": S3 | {"CompressionType": "Gzip"}}, "CompressionType"),
        (("Models", "m"), {"ModelName": "m"}, "m has no container"),
        ((*VARIANT, "RoutingConfig"), {"RoutingStrategy": "KV_AWARE"}, "blue asks for it"),
        (("EndpointConfig", "ProductionVariants"), [], "no production variants"),
    ],
)
def test_what_clary_cannot_run_is_refused_in_a_sentence(path: tuple[object, ...], value: object, words: str) -> None:
    wanted = desired(changed(*path, value=value))
    assert wanted.variants == ()
    assert wanted.refusal is not None
    assert words in wanted.refusal
    assert wanted.refusal.endswith(".")


@pytest.mark.parametrize(
    "spec", [{}, {"_Deployment": None}, {"_Deployment": {"EndpointConfig": 3}}, {"_Deployment": {1}}]
)
def test_nonsense_is_refused_and_never_raised(spec: object) -> None:
    assert "does not understand" in str(desired(endpoint(spec)).refusal)
