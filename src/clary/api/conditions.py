"""The condition keys that a request of the hosting API itself sets.

Source: the service authorization reference of Amazon SageMaker. Where the service would fill in a default, policies are
asked about the default: they are about what comes of a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clary.core.resources import MODEL, Partition

Request = Mapping[str, Any]
Context = dict[str, Sequence[str]]


def of_request(operation: str, request: Request, partition: Partition) -> Context:
    """Give the values by key, the keys in lower case. What the request has nothing of is not there."""
    tags = [(tag["Key"], tag["Value"]) for tag in request.get("Tags") or ()]
    named = _named("aws:requesttag/", tags)
    named |= _named("sagemaker:customermetadataproperties/", (request.get("CustomerMetadataProperties") or {}).items())
    found = {
        "aws:tagkeys": [key for key, _ in tags] or request.get("TagKeys") or (),
        **_of_model(operation, request),
        **_of_variants(request, partition),
        **_of_package(operation, request),
        **(_of_transform_job(request, partition) if operation == "CreateTransformJob" else {}),
    }
    return named | {key: values for key, values in found.items() if values}


def _named(prefix: str, pairs: Iterable[tuple[str, str]]) -> Context:
    """The names of condition keys disregard case, those of tags do not: of two that differ in it both count."""
    context: Context = {}
    for name, value in pairs:
        key = f"{prefix}{name.lower()}"
        context[key] = (*context.get(key, ()), value)
    return context


def _of_model(operation: str, request: Request) -> Context:
    vpc = request.get("VpcConfig") or {}
    isolated = request.get("EnableNetworkIsolation", False if operation == "CreateModel" else None)
    return {
        "sagemaker:vpcsubnets": vpc.get("Subnets", ()),
        "sagemaker:vpcsecuritygroupids": vpc.get("SecurityGroupIds", ()),
        "sagemaker:networkisolation": _text(isolated),
    }


def _of_variants(request: Request, partition: Partition) -> Context:
    variants = [*(request.get("ProductionVariants") or ()), *(request.get("ShadowProductionVariants") or ())]
    serverless = [variant["ServerlessConfig"] for variant in variants if "ServerlessConfig" in variant]
    pools = [pool for variant in variants for pool in variant.get("InstancePools") or ()]
    models = [variant["ModelName"] for variant in variants if "ModelName" in variant]
    models += [pool["ModelNameOverride"] for pool in pools if "ModelNameOverride" in pool]
    return {
        "sagemaker:instancetypes": [each["InstanceType"] for each in (*variants, *pools) if "InstanceType" in each],
        "sagemaker:acceleratortypes": [each["AcceleratorType"] for each in variants if "AcceleratorType" in each],
        "sagemaker:modelarn": [partition.arn(MODEL, partition.name_of(MODEL, name)) for name in models],
        "sagemaker:serverlessmaxconcurrency": [str(each["MaxConcurrency"]) for each in serverless],
        "sagemaker:serverlessmemorysize": [str(each["MemorySizeInMB"]) for each in serverless],
        "sagemaker:volumekmskey": _text(request.get("KmsKeyId")),
    }


def _of_transform_job(request: Request, partition: Partition) -> Context:
    resources, output = request["TransformResources"], request["TransformOutput"]
    return {
        "sagemaker:instancetypes": [resources["InstanceType"]],
        "sagemaker:modelarn": [partition.arn(MODEL, request["ModelName"])],
        "sagemaker:outputkmskey": _text(output.get("KmsKeyId")),
        "sagemaker:volumekmskey": _text(resources.get("VolumeKmsKeyId")),
    }


def _of_package(operation: str, request: Request) -> Context:
    if operation not in ("CreateModelPackage", "UpdateModelPackage"):
        return {}
    new = operation == "CreateModelPackage" and "ModelPackageGroupName" in request
    cycle = request.get("ModelLifeCycle") or {}
    return {
        "sagemaker:modelapprovalstatus": _text(
            request.get("ModelApprovalStatus", "PendingManualApproval" if new else None)
        ),
        "sagemaker:customermetadatapropertiestoremove": request.get("CustomerMetadataPropertiesToRemove") or (),
        "sagemaker:modellifecycle:stage": _text(cycle.get("Stage")),
        "sagemaker:modellifecycle:stagestatus": _text(cycle.get("StageStatus")),
    }


def _text(value: object) -> Sequence[str]:
    if value is None:
        return ()
    return (str(value).lower() if isinstance(value, bool) else str(value),)
