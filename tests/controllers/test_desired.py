from __future__ import annotations

import copy
from typing import Any, cast

import pytest

from clary.controllers.desired import desired
from clary.core.deployment import Variant
from clary.core.ports import ModelData
from clary.core.resources import Resource

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
        Variant("blue", "img:1", {}, None, "ml.clary.local", 1, 1.0, startup_timeout=480.0, download_timeout=3600.0),
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
        Variant("blue", "img:1", {"A": "b"}, "s3://bucket/model.tar.gz", "ml.m5.large", 3, 0.25, 61.0, 62.0),
    )


def test_one_container_in_a_list_is_a_primary_container() -> None:
    resource = changed("Models", "m", value={"ModelName": "m", "Containers": [{"Image": "img:2"}]})
    assert desired(resource).variants[0].image == "img:2"


S3 = {"S3Uri": "s3://b/m/", "S3DataType": "S3Prefix", "CompressionType": "None"}


@pytest.mark.parametrize(
    ("kind", "compression", "form"),
    [("S3Object", "Gzip", "archive"), ("S3Object", "None", "object"), ("S3Prefix", "None", "prefix")],
)
def test_model_data_is_an_archive_a_file_or_a_tree(kind: str, compression: str, form: str) -> None:
    source = {"S3DataSource": {"S3Uri": "s3://b/m/", "S3DataType": kind, "CompressionType": compression}}
    wanted = desired(changed(*CONTAINER, "ModelDataSource", value=source))
    assert (wanted.variants[0].model_data_url, wanted.variants[0].model_data_form) == ("s3://b/m/", form)
    (_, spec), *_ = wanted.slots()
    assert (spec.model_data_url, spec.model_data_form) == ("s3://b/m/", form)


def test_additional_sources_have_a_directory_each() -> None:
    sources = [{"ChannelName": "draft", "S3DataSource": S3}]
    ((_, spec), *_) = desired(changed(*CONTAINER, "AdditionalModelDataSources", value=sources)).slots()
    assert spec.additional == (ModelData("s3://b/m/", "prefix", "draft"),)
    assert spec.additional[0].place == "additional-model-data-sources/draft"


def test_the_fingerprint_follows_the_deployment() -> None:
    one = desired(endpoint(SPEC)).deployment
    assert one == desired(endpoint(copy.deepcopy(SPEC))).deployment
    assert one != desired(changed(*CONTAINER, "Image", value="img:2")).deployment


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("EndpointConfig", "AsyncInferenceConfig"), {}, "AsyncInferenceConfig"),
        ((*VARIANT, "ServerlessConfig"), {"MemorySizeInMB": 1024}, "blue has ServerlessConfig"),
        ((*VARIANT, "ModelName"), None, "blue has no ModelName"),
        ((*VARIANT, "ModelName"), "other", 'Could not find model "other"'),
        ((*CONTAINER, "Mode"), "MultiModel", "model m has Mode MultiModel"),
        ((*CONTAINER, "Image"), None, "has no Image"),
        ((*CONTAINER, "ModelDataSource"), {"S3DataSource": S3 | {"CompressionType": "Gzip"}}, "CompressionType"),
        ((*CONTAINER, "ModelDataSource"), {"S3DataSource": S3 | {"ManifestS3Uri": "s3://b/l"}}, "ManifestS3Uri"),
        (
            (*CONTAINER, "AdditionalModelDataSources"),
            [{"ChannelName": "c", "S3DataSource": S3 | {"ManifestS3Uri": "s3://b/l"}}],
            "ManifestS3Uri",
        ),
        (("Models", "m"), {"ModelName": "m", "Containers": [{"Image": "a"}] * 3}, "model m has 3"),
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
