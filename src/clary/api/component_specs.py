"""The rules of an inference component's specification that the request alone can break, and what is kept of it.

Where a text is known from the service it is the service's; the others are Clary's, because their wording at the service
is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clary.api import definition
from clary.errors import ValidationException

Request = Mapping[str, Any]
Specification = Mapping[str, Any]

_IS_PREFIX = "/"


def chosen(request: Request, instance_type: str) -> Specification | None:
    """Give the specification for a variant's instances; None where the request has none.

    Raises ValidationException.
    """
    one, several = request.get("Specification"), request.get("Specifications")
    if one is not None and several is not None:
        raise ValidationException("Specify either Specification or Specifications, not both.")
    if several is None:
        if one is not None and one.get("InstanceType", instance_type) != instance_type:
            raise ValidationException(
                f"The specification is for {one['InstanceType']}; the variant's instances are {instance_type}."
            )
        return None if one is None else dict(one)
    types = [each.get("InstanceType") for each in several]
    if None in types or len(set(types)) < len(types):
        raise ValidationException("Each of the Specifications must have an InstanceType of its own.")
    if instance_type not in types:
        raise ValidationException(
            f"None of the Specifications is for {instance_type}, the type of the variant's instances."
        )
    return dict(several[types.index(instance_type)])


def check(specification: Specification) -> None:
    """Check the specification of a component that has containers of its own. Raises ValidationException."""
    if ("ModelName" in specification) == ("Container" in specification):
        raise ValidationException("Specify exactly one of ModelName and Container in the specification.")
    needs = specification.get("ComputeResourceRequirements")
    if needs is None:
        raise ValidationException("ComputeResourceRequirements is required for a base inference component.")
    most = needs.get("MaxMemoryRequiredInMb")
    if most is not None and most < needs["MinMemoryRequiredInMb"]:
        raise ValidationException("MaxMemoryRequiredInMb must not be less than MinMemoryRequiredInMb.")
    container = specification.get("Container")
    if container is not None and "Image" not in container:
        raise ValidationException("The container of a base inference component requires an Image.")


def check_adapter(specification: Specification) -> None:
    """Check the specification of an adapter, which is loaded into its base. Raises ValidationException."""
    for member in ("ModelName", "ComputeResourceRequirements", "SchedulingConfig"):
        if member in specification:
            raise ValidationException(f"{member} is not supported for an adapter: it shares what its base has.")
    container = specification.get("Container", {})
    if "ArtifactUrl" not in container:
        raise ValidationException("The container of an adapter inference component requires an ArtifactUrl.")
    for member in ("Image", "Environment"):
        if member in container:
            raise ValidationException(f"{member} is not supported for an adapter: it runs in its base's containers.")


def model_of(container: Mapping[str, Any]) -> dict[str, Any]:
    """Give a component's container as CreateModel would have been told of it. Raises ValidationException."""
    url = container.get("ArtifactUrl")
    told: dict[str, Any] = {member: container[member] for member in ("Image", "Environment") if member in container}
    if url is not None and url.endswith(_IS_PREFIX):
        told["ModelDataSource"] = {"S3DataSource": {"S3Uri": url, "S3DataType": "S3Prefix", "CompressionType": "None"}}
    elif url is not None:
        if not url.endswith(".tar.gz"):
            raise ValidationException(
                f'ArtifactUrl "{url}" must point to a single gzip compressed tar archive (.tar.gz suffix), or to a '
                "prefix that ends with /."
            )
        told["ModelDataUrl"] = url
    model = {"ModelName": "", "PrimaryContainer": told}
    definition.check(model)
    return model


def check_model(name: str, model: Mapping[str, Any]) -> None:
    """Check that a component can run a model. Raises ValidationException."""
    containers: Sequence[Mapping[str, Any]] = definition.containers(dict(model))
    if len(containers) > 1 or containers[0].get("Mode") == "MultiModel":
        raise ValidationException(
            f"Model {name} cannot be run by an inference component: it must have one container, of a single model."
        )


def summary(specification: Specification, model: Mapping[str, Any], image: Sequence[Any] | None) -> dict[str, Any]:
    """Give a specification as DescribeInferenceComponent does; `image`: what its image was resolved to, and when."""
    told = dict(specification)
    if (container := specification.get("Container")) is not None:
        rest = {member: value for member, value in container.items() if member != "Image"}
        deployed = {"SpecifiedImage": container["Image"]} if "Image" in container else {}
        if image is not None:
            deployed |= {"ResolvedImage": image[0], "ResolutionTime": image[1]}
        told["Container"] = {**({"DeployedImage": deployed} if deployed else {}), **rest}
    elif image is not None:
        first = definition.containers(dict(model))[0]
        told["Container"] = {
            "DeployedImage": {"SpecifiedImage": first["Image"], "ResolvedImage": image[0], "ResolutionTime": image[1]}
        }
    return told
