"""The rules of a model's definition that the request alone can break. Where a text is known from the service it is the
service's; the others are Clary's, because their wording at the service is not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from clary.errors import ValidationException

_MAX_ENVIRONMENT = 32 * 1024
"""Bytes of keys and values, over all containers of a model (API reference of ContainerDefinition)."""

_MOST_CONTAINERS = 15
"""In a model (service model, ContainerDefinitionList)."""

_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    r"(?:(?:localhost|[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)+|[a-zA-Z0-9-]+(?=:[0-9]))(?::[0-9]{1,5})?/)?"
    rf"{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@[A-Za-z][A-Za-z0-9+._-]*:[0-9a-fA-F]{{32,}})?"
)
"""`registry/repository[:tag][@digest]`, as Docker reads it; the registry may be left out."""

_ARCHIVE = ".tar.gz"
_PUBLISHED = (10, 30, 60, 120, 180, 240, 300)
"""Seconds between two times that metrics are published (documentation of MetricPublishFrequencyInSeconds)."""

Container = dict[str, Any]
Request = dict[str, Any]


def containers(request: Request) -> list[Container]:
    """Give the model's containers in order. Exactly one of the two ways of naming them must be used."""
    primary, several = request.get("PrimaryContainer"), request.get("Containers")
    if primary is not None and several:
        raise ValidationException("Specify either PrimaryContainer or Containers, not both.")
    if primary is None and not several:
        raise ValidationException("Specify either PrimaryContainer or Containers.")
    return several or [primary]


def check_sources(request: Request) -> None:
    """Check that each container says in one way what runs in it. Raises ValidationException."""
    for container in containers(request):
        _check_source(container)


def check(request: Request) -> None:
    """Check each container, packages replaced by what they stand for, and all together. Raises ValidationException."""
    found = containers(request)
    if len(found) > _MOST_CONTAINERS:  # which the request alone could not have: packages can hold several
        raise ValidationException(
            f"A model has at most {_MOST_CONTAINERS} containers; with its packages' it has {len(found)}."
        )
    for container in found:
        _check_image(container)
        _check_model_data(container)
        _check_image_config(container, in_vpc="VpcConfig" in request)
        for endpoint in container.get("ContainerMetricsConfig", {}).get("MetricsEndpoints", ()):
            check_publishing(endpoint)
    _check_environment(found)
    _check_modes(found)
    if request.get("Containers"):
        _check_hostnames(found)
    _check_execution(found, request)


def data_sources(container: Container) -> Iterator[dict[str, Any]]:
    """Give the S3DataSource of ModelDataSource and of each additional one."""
    if s3 := container.get("ModelDataSource", {}).get("S3DataSource"):
        yield s3
    for source in container.get("AdditionalModelDataSources", ()):
        yield source["S3DataSource"]


def _check_source(container: Container) -> None:
    package, data = container.get("ModelPackageName"), {"ModelDataUrl", "ModelDataSource"} & container.keys()
    if (package is None) == ("Image" not in container) or (package is not None and data):
        raise ValidationException(
            "Specify one of either Image and Model Data URL or ModelPackageName in container definition."
        )
    if package is None and "InferenceSpecificationName" in container:
        raise ValidationException("InferenceSpecificationName requires ModelPackageName in container definition.")


def _check_image(container: Container) -> None:
    image = container.get("Image")
    if image is not None and not _IMAGE.fullmatch(image):
        raise ValidationException(f'ECR image "{image}" is invalid.')


def _check_model_data(container: Container) -> None:
    url, multi = container.get("ModelDataUrl"), container.get("Mode") == "MultiModel"
    check_data_choice(container)
    if not multi and "MultiModelConfig" in container:
        raise ValidationException("MultiModelConfig requires a container in MultiModel mode.")
    if multi and url is None and "ModelDataSource" not in container:
        raise ValidationException("ModelDataUrl is required for containers in MultiModel mode.")
    if multi and "ModelDataSource" in container:
        raise ValidationException("ModelDataSource is not supported for containers in MultiModel mode.")
    if url is not None and multi and url.endswith(_ARCHIVE):
        raise ValidationException(
            f'ModelDataUrl "{url}" must be the prefix that the models have in common, not an archive, because its '
            "container is in MultiModel mode."
        )
    if url is not None and not multi and not url.endswith(_ARCHIVE):
        raise ValidationException(
            f'ModelDataUrl "{url}" must point to a single gzip compressed tar archive ({_ARCHIVE} suffix).'
        )
    for s3 in data_sources(container):
        _check_data_source(s3)
    channels: list[str] = [source["ChannelName"] for source in container.get("AdditionalModelDataSources", ())]
    if len(set(channels)) < len(channels):
        raise ValidationException("ChannelName must be unique among the AdditionalModelDataSources of a container.")
    if not {".", ".."}.isdisjoint(channels):
        raise ValidationException("ChannelName becomes the name of a directory: it must not be '.' or '..'.")


def check_data_choice(container: Container) -> None:
    """Check that a container, of a model or of a package, has its data in one place. Raises ValidationException."""
    if "ModelDataUrl" in container and "ModelDataSource" in container:
        raise ValidationException("Specify either ModelDataUrl or ModelDataSource in container definition, not both.")
    if "ModelDataSource" in container and "S3DataSource" not in container["ModelDataSource"]:
        raise ValidationException("ModelDataSource requires S3DataSource.")


def check_publishing(metrics: Mapping[str, Any]) -> None:
    """Check how often metrics are to be published, of a container or of an endpoint. Raises ValidationException."""
    seconds = metrics.get("MetricPublishFrequencyInSeconds", _PUBLISHED[0])
    if seconds not in _PUBLISHED:
        valid = ", ".join(map(str, _PUBLISHED))
        raise ValidationException(f"MetricPublishFrequencyInSeconds {seconds} is not one of {valid}.")


def _check_data_source(s3: dict[str, Any]) -> None:
    if s3["S3DataType"] != "S3Prefix":
        if "ManifestS3Uri" in s3:
            raise ValidationException("ManifestS3Uri requires S3DataType S3Prefix: it names objects below S3Uri.")
        return
    if not s3["S3Uri"].endswith("/"):
        raise ValidationException(f'S3Uri "{s3["S3Uri"]}" must end with "/" because its S3DataType is S3Prefix.')
    if s3["CompressionType"] == "Gzip":
        raise ValidationException("CompressionType Gzip requires S3DataType S3Object.")


def _check_image_config(container: Container, *, in_vpc: bool) -> None:
    config = container.get("ImageConfig", {})
    mode = config.get("RepositoryAccessMode")
    if mode == "Vpc" and not in_vpc:
        raise ValidationException("RepositoryAccessMode Vpc requires the model to have a VpcConfig.")
    if mode == "Platform" and "RepositoryAuthConfig" in config:
        raise ValidationException("RepositoryAuthConfig requires RepositoryAccessMode Vpc.")


def _check_environment(found: list[Container]) -> None:
    size = sum(
        len(key.encode()) + len(value.encode())
        for container in found
        for key, value in container.get("Environment", {}).items()
    )
    if size > _MAX_ENVIRONMENT:
        raise ValidationException(
            f"The environment variables of all containers have {size} bytes together; the limit is {_MAX_ENVIRONMENT}."
        )


def _check_modes(found: list[Container]) -> None:
    if sum(container.get("Mode") == "MultiModel" for container in found) > 1:
        raise ValidationException(
            "More than one container in MultiModel mode is not supported with inference pipeline."
        )


def _check_hostnames(found: list[Container]) -> None:
    """All of several containers have a hostname of their own, or none has one."""
    names = [container["ContainerHostname"] for container in found if "ContainerHostname" in container]
    if names and len(names) < len(found):
        raise ValidationException("Specify ContainerHostname for all containers or for none.")
    if len(set(names)) < len(names):
        raise ValidationException("ContainerHostname must be unique among the containers of a model.")


def _check_execution(found: list[Container], request: Request) -> None:
    execution = request.get("InferenceExecutionConfig")
    if execution is None:
        return
    if len(found) < 2:
        raise ValidationException("InferenceExecutionConfig requires more than one container.")
    if execution["Mode"] == "Direct" and any("ContainerHostname" not in container for container in found):
        raise ValidationException(
            "InferenceExecutionConfig mode Direct requires ContainerHostname for every container."
        )
