"""Endpoint configurations: what CreateEndpointConfig checks. It writes metadata and runs nothing: a variant that this
Clary cannot run (serverless, model-less) is stored as at the service, and an endpoint made from it says why it failed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from clary.api import definition
from clary.api.crud import Crud, Request
from clary.api.models import Models
from clary.core.ports import ResourceStore
from clary.core.resources import ENDPOINT_CONFIG, Partition
from clary.errors import ValidationException

Variant = dict[str, Any]
_DESTINATION = re.compile(r"s3://[^/]+(?:/.*)?")
"""The service model allows https:// too, for what nobody could write there."""
_VARIANT_LISTS = ("ProductionVariants", "ShadowProductionVariants")


class EndpointConfigs(Crud):
    """CreateEndpointConfig, DescribeEndpointConfig, ListEndpointConfigs, DeleteEndpointConfig."""

    kind = ENDPOINT_CONFIG

    def __init__(self, store: ResourceStore, partition: Partition, models: Models) -> None:
        super().__init__(store, partition)
        self._models = models

    async def prepare(self, request: Request) -> dict[str, object]:
        """Check the variants and that their models exist; the service fills in a weight and EnableNetworkIsolation."""
        _check_together(request)
        for variant in _variants(request):
            _check_variant(variant)
        for name in model_names(request):
            _check_model(request, (await self._models.get(name)).spec)
        return _with_defaults(request)


def model_names(config: Mapping[str, Any]) -> list[str]:
    """Give the names of all models that a configuration refers to, each once, in order."""
    names: dict[str, None] = {}
    for variant in _variants(config):
        pools = variant.get("InstancePools", [])
        overrides = (pool["ModelNameOverride"] for pool in pools if "ModelNameOverride" in pool)
        names |= dict.fromkeys([*([variant["ModelName"]] if "ModelName" in variant else []), *overrides])
    return list(names)


def _variants(config: Mapping[str, Any]) -> Iterator[Variant]:
    for member in _VARIANT_LISTS:
        yield from config.get(member) or []


def _check_together(request: Request) -> None:
    variants = list(_variants(request))
    names = [variant["VariantName"] for variant in variants]
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValidationException(f'The variant name "{repeated}" is used more than once.')
    with_model = ["ModelName" in variant for variant in variants]
    if any(with_model) and not all(with_model):
        raise ValidationException("Specify ModelName for all variants or for none.")
    if not any(with_model):
        _check_packed(request)
    if request.get("ShadowProductionVariants") and len(variants) != 2:
        raise ValidationException("Shadow variants require exactly one production variant and one shadow variant.")
    if any("ServerlessConfig" in variant for variant in variants):
        for member in ("AsyncInferenceConfig", "DataCaptureConfig"):
            if member in request:
                raise ValidationException(f"{member} is not supported for endpoints with serverless variants.")
    definition.check_publishing(request.get("MetricsConfig", {}))
    if capture := request.get("DataCaptureConfig"):
        _check_capture(capture)


def _check_packed(request: Request) -> None:
    """Check a configuration whose variants' instances are for inference components."""
    if "ExecutionRoleArn" not in request:
        raise ValidationException("ExecutionRoleArn is required when variants have no ModelName.")
    for member in ("AsyncInferenceConfig", "ShadowProductionVariants"):
        if request.get(member):
            raise ValidationException(f"{member} is not supported for endpoints with inference components.")


def _check_capture(capture: Mapping[str, Any]) -> None:
    destination = capture["DestinationS3Uri"]
    if not _DESTINATION.fullmatch(destination):
        raise ValidationException(f'DestinationS3Uri "{destination}" of DataCaptureConfig must be s3://bucket/prefix.')


def _check_model(request: Request, model: Mapping[str, Any]) -> None:
    """Check what kinds of endpoints a model is not for (developer guide, feature matrices)."""
    containers = definition.containers(dict(model))
    if "AsyncInferenceConfig" in request and any(each.get("Mode") == "MultiModel" for each in containers):
        raise ValidationException("AsyncInferenceConfig is not supported for containers in MultiModel mode.")
    execution = model.get("InferenceExecutionConfig") or {}
    if "AsyncInferenceConfig" in request and execution.get("Mode") == "Direct":
        # InvokeEndpointAsync has no member to name a container by.
        raise ValidationException("AsyncInferenceConfig is not supported for models in Direct mode.")
    serverless = (each for each in _variants(request) if "ServerlessConfig" in each)
    if any(each.get("ModelName") == model["ModelName"] for each in serverless) and any(
        "ModelDataSource" in each for each in containers
    ):
        # Only the beginning of the service's sentence is known.
        raise ValidationException("Model with containers that use ModelDataSource is not supported for serverless.")


def _check_variant(variant: Variant) -> None:
    name = variant["VariantName"]
    if "ManagedInstanceScaling" in variant and "ModelName" in variant:
        raise ValidationException("ManagedInstanceScaling is only supported for inference component endpoints.")
    scaling = variant.get("ManagedInstanceScaling") or {}
    if scaling.get("MinInstanceCount", 0) > scaling.get("MaxInstanceCount", math.inf):
        raise ValidationException(f'MinInstanceCount of variant "{name}" must not exceed MaxInstanceCount.')
    if "ServerlessConfig" in variant:
        _check_serverless(variant)
        return
    if "InstanceType" not in variant and "InstancePools" not in variant:
        raise ValidationException(f'Specify InstanceType or ServerlessConfig for variant "{name}".')
    if "InitialInstanceCount" not in variant and "ManagedInstanceScaling" not in variant:
        raise ValidationException(f'Specify InitialInstanceCount for variant "{name}".')


def _check_serverless(variant: Variant) -> None:
    name, config = variant["VariantName"], variant["ServerlessConfig"]
    if not variant.keys().isdisjoint(("InstanceType", "InitialInstanceCount", "InstancePools")):
        raise ValidationException(
            f'Variant "{name}" has a ServerlessConfig: InstanceType and InitialInstanceCount must be absent.'
        )
    if config["MemorySizeInMB"] % 1024:
        raise ValidationException(f'MemorySizeInMB of variant "{name}" must be a multiple of 1024.')
    if config.get("ProvisionedConcurrency", 0) > config["MaxConcurrency"]:
        raise ValidationException(f'ProvisionedConcurrency of variant "{name}" must not exceed MaxConcurrency.')


def _with_defaults(request: Request) -> dict[str, object]:
    spec = {"EnableNetworkIsolation": False, **request}
    for member in _VARIANT_LISTS:
        if spec.get(member):
            spec[member] = [{"InitialVariantWeight": 1.0, **variant} for variant in spec[member]]
        else:
            # An empty list of shadow variants is as good as none, and some SDKs choke on one in an answer.
            spec.pop(member, None)
    return spec
