"""Models: the rules of CreateModel that need no look at the world. Where a text is known from the service it is the
service's; the others are Clary's, because their wording at the service is not known.
"""

from __future__ import annotations

from typing import Any

from clary.api.crud import Crud, Request
from clary.core.resources import MODEL, Partition
from clary.errors import ValidationException

_MAX_ENVIRONMENT = 32 * 1024
"""Bytes of keys and values, over all containers of a model (API reference of ContainerDefinition)."""

Container = dict[str, Any]


class Models(Crud):
    """CreateModel, DescribeModel, ListModels, DeleteModel."""

    kind = MODEL

    async def prepare(self, request: Request) -> dict[str, object]:
        """Check the definition; the service fills in each container's Mode and EnableNetworkIsolation."""
        containers = _containers(request)
        for container in containers:
            _check_source(container, self._partition)
            _check_data_source(container)
            _check_image_config(container, in_vpc="VpcConfig" in request)
        _check_environment(containers)
        _check_modes(containers)
        if request.get("Containers"):
            _check_hostnames(containers)
        _check_execution(containers, request)
        return _with_defaults(request)


def _containers(request: Request) -> list[Container]:
    """Give the model's containers in order. Exactly one of the two ways of naming them must be used."""
    primary, several = request.get("PrimaryContainer"), request.get("Containers")
    if primary is not None and several:
        raise ValidationException("Specify either PrimaryContainer or Containers, not both.")
    if primary is None and not several:
        raise ValidationException("Specify either PrimaryContainer or Containers.")
    return several or [primary]


def _check_source(container: Container, partition: Partition) -> None:
    package = container.get("ModelPackageName")
    if (package is None) == ("Image" not in container) or (package is not None and "ModelDataUrl" in container):
        raise ValidationException(
            "Specify one of either Image and Model Data URL or ModelPackageName in container definition."
        )
    if package is not None:
        # Clary has no model registry, so that no package exists; this is what the service says of such a one.
        arn = package if package.startswith("arn:") else _package_arn(package, partition)
        raise ValidationException(f"ModelPackage {arn} does not exist.")


def _package_arn(package: str, partition: Partition) -> str:
    return f"arn:{partition.name}:sagemaker:{partition.region}:{partition.account_id}:model-package/{package}"


def _check_data_source(container: Container) -> None:
    source = container.get("ModelDataSource")
    if source is None:
        return
    if "ModelDataUrl" in container:
        raise ValidationException("Specify either ModelDataUrl or ModelDataSource in container definition, not both.")
    if container.get("Mode") == "MultiModel":
        raise ValidationException("ModelDataSource is not supported for containers in MultiModel mode.")
    s3 = source.get("S3DataSource", {})
    if s3.get("S3DataType") == "S3Prefix" and not s3["S3Uri"].endswith("/"):
        raise ValidationException(f'S3Uri "{s3["S3Uri"]}" must end with "/" because its S3DataType is S3Prefix.')


def _check_image_config(container: Container, *, in_vpc: bool) -> None:
    config = container.get("ImageConfig", {})
    mode = config.get("RepositoryAccessMode")
    if mode == "Vpc" and not in_vpc:
        raise ValidationException("RepositoryAccessMode Vpc requires the model to have a VpcConfig.")
    if mode == "Platform" and "RepositoryAuthConfig" in config:
        raise ValidationException("RepositoryAuthConfig requires RepositoryAccessMode Vpc.")


def _check_environment(containers: list[Container]) -> None:
    size = sum(
        len(key.encode()) + len(value.encode())
        for container in containers
        for key, value in container.get("Environment", {}).items()
    )
    if size > _MAX_ENVIRONMENT:
        raise ValidationException(
            f"The environment variables of all containers have {size} bytes together; the limit is {_MAX_ENVIRONMENT}."
        )


def _check_modes(containers: list[Container]) -> None:
    if sum(container.get("Mode") == "MultiModel" for container in containers) > 1:
        raise ValidationException(
            "More than one container in MultiModel mode is not supported with inference pipeline."
        )


def _check_hostnames(containers: list[Container]) -> None:
    """All of several containers have a hostname of their own, or none has one."""
    names = [container["ContainerHostname"] for container in containers if "ContainerHostname" in container]
    if names and len(names) < len(containers):
        raise ValidationException("Specify ContainerHostname for all containers or for none.")
    if len(set(names)) < len(names):
        raise ValidationException("ContainerHostname must be unique among the containers of a model.")


def _check_execution(containers: list[Container], request: Request) -> None:
    execution = request.get("InferenceExecutionConfig")
    if execution is None:
        return
    if len(containers) < 2:
        raise ValidationException("InferenceExecutionConfig requires more than one container.")
    if execution["Mode"] == "Direct" and any("ContainerHostname" not in container for container in containers):
        raise ValidationException(
            "InferenceExecutionConfig mode Direct requires ContainerHostname for every container."
        )


def _with_defaults(request: Request) -> dict[str, object]:
    spec = {"EnableNetworkIsolation": False, **request}
    if not spec.get("Containers"):
        spec.pop("Containers", None)
        return {**spec, "PrimaryContainer": {"Mode": "SingleModel", **spec["PrimaryContainer"]}}
    return {**spec, "Containers": [{"Mode": "SingleModel", **container} for container in spec["Containers"]]}
