"""From what the API stored to what the planner wants: the only place that reads CreateModel and CreateEndpointConfig
requests. What Clary cannot run becomes a refusal in a sentence, never an exception.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

from clary.core.containers import LOCAL, ModelData, ModelDataForm, ModelPrefix, Network, Repository
from clary.core.deployment import DOWNLOAD_TIMEOUT, STARTUP_TIMEOUT, ContainerTemplate, Desired, Variant
from clary.core.resources import Resource
from clary.core.routing import AsyncInference, DataCapture, Strategy

Request = Mapping[str, Any]
"""A request as it was received: names and nesting are the service model's, which the API has checked."""

_FORMS: Mapping[tuple[object, object], ModelDataForm] = {
    ("S3Object", "Gzip"): "archive",
    ("S3Object", "None"): "object",
    ("S3Prefix", "None"): "prefix",
}
"""By S3DataType and CompressionType."""
DEFAULT_CONCURRENCY = 4
"""Asynchronous requests that an instance is given at once where nobody said how many; the service chooses too."""


class Refused(Exception):
    """Clary cannot run this; the text is the sentence for FailureReason."""


def desired(resource: Resource) -> Desired:
    """Translate an endpoint. Never raises: what is not understood is refused too."""
    variants: tuple[Variant, ...] = ()
    deployment, refusal, capture, asynchronous = "", None, None, None
    try:
        request = cast("Request", resource.spec)["_Deployment"]
        deployment = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]
        config = request["EndpointConfig"]
        shadows = config.get("ShadowProductionVariants") or ()
        variants = (
            *(_variant(each, request["Models"]) for each in config["ProductionVariants"]),
            *(_variant(each, request["Models"], shadow=True) for each in shadows),
        )
        capture = _capture(config.get("DataCaptureConfig"))
        asynchronous = _asynchronous(resource, config.get("AsyncInferenceConfig"))
    except Refused as reason:
        refusal = str(reason)
    except Exception as error:  # whatever is wrong with it, the endpoint must end as Failed and not stay Creating
        refusal = f"Clary does not understand the stored deployment of this endpoint ({type(error).__name__}: {error})."
    if not variants and refusal is None:
        refusal = "The endpoint configuration has no production variants."
    return Desired(
        name=resource.name,
        arn=resource.arn,
        config_name=str(resource.spec.get("EndpointConfigName", "")),
        created_at=resource.created_at,
        deployment=deployment,
        variants=() if refusal else variants,
        capture=capture,
        asynchronous=asynchronous,
        deleting=resource.deleting,
        refusal=refusal,
    )


def _variant(variant: Request, models: Mapping[str, Request], *, shadow: bool = False) -> Variant:
    name, model = variant["VariantName"], variant.get("ModelName")
    if "ServerlessConfig" in variant:
        raise Refused(f"Clary does not run serverless variants yet: production variant {name} has ServerlessConfig.")
    if not model:
        return _packed(variant)
    if model not in models:
        raise Refused(f'Could not find model "{model}" of production variant {name}.')
    definition = models[model]
    return Variant(
        name=name,
        containers=containers(definition),
        direct=(definition.get("InferenceExecutionConfig") or {}).get("Mode") == "Direct",
        instance_type=variant.get("InstanceType") or LOCAL,
        count=int(variant.get("InitialInstanceCount", 1)),
        weight=float(variant.get("InitialVariantWeight", 1.0)),
        startup_timeout=float(variant.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_TIMEOUT)),
        download_timeout=float(variant.get("ModelDataDownloadTimeoutInSeconds", DOWNLOAD_TIMEOUT)),
        role_arn=definition.get("ExecutionRoleArn"),
        network=network_of(definition),
        strategy=_strategy(variant),
        shadow=shadow,
    )


def _packed(variant: Request) -> Variant:
    """Translate a variant whose instances are for inference components."""
    scaling = variant.get("ManagedInstanceScaling") or {}
    managed = scaling.get("Status") == "ENABLED"
    count = int(variant.get("InitialInstanceCount", scaling.get("MinInstanceCount", 1)))
    least = int(scaling.get("MinInstanceCount", 1))
    return Variant(
        name=variant["VariantName"],
        containers=(),
        instance_type=variant.get("InstanceType") or LOCAL,
        count=count,
        weight=float(variant.get("InitialVariantWeight", 1.0)),
        strategy=_strategy(variant),
        scaling=(least, max(least, int(scaling.get("MaxInstanceCount", max(count, least))))) if managed else None,
    )


def _strategy(variant: Request) -> Strategy:
    asked = (variant.get("RoutingConfig") or {}).get("RoutingStrategy", "LEAST_OUTSTANDING_REQUESTS")
    if asked not in ("LEAST_OUTSTANDING_REQUESTS", "RANDOM"):
        raise Refused(f"Clary does not route by {asked}: production variant {variant['VariantName']} asks for it.")
    return cast("Strategy", asked)


def _capture(config: Request | None) -> DataCapture | None:
    if not config or not config.get("EnableCapture", True):
        return None
    modes = {each["CaptureMode"] for each in config["CaptureOptions"]}
    types = config.get("CaptureContentTypeHeader") or {}
    return DataCapture(
        destination=config["DestinationS3Uri"].rstrip("/"),
        percentage=int(config["InitialSamplingPercentage"]),
        inputs=bool(modes & {"Input", "InputAndOutput"}),
        outputs=bool(modes & {"Output", "InputAndOutput"}),
        csv_types=tuple(types.get("CsvContentTypes") or ()),
        json_types=tuple(types.get("JsonContentTypes") or ()),
    )


def network_of(model: Request) -> Network:
    """Say what the containers of a model may reach."""
    vpc = model.get("VpcConfig") or {}
    subnets, groups = vpc.get("Subnets") or (), vpc.get("SecurityGroupIds") or ()
    return Network(bool(model.get("EnableNetworkIsolation")), tuple(subnets), tuple(groups))


def _asynchronous(resource: Resource, config: Request | None) -> AsyncInference | None:
    if config is None:
        return None
    output = config["OutputConfig"]
    topics = output.get("NotificationConfig") or {}
    included = topics.get("IncludeInferenceResponseIn") or ()
    client = config.get("ClientConfig") or {}
    # The time of creation tells it from an endpoint of this name that was deleted, whose requests are not its own.
    seed = f"{resource.arn}\n{resource.created_at:.6f}"
    return AsyncInference(
        queue=hashlib.sha256(seed.encode()).hexdigest()[:16],
        output_path=output.get("S3OutputPath") or "",
        failure_path=output.get("S3FailurePath") or "",
        concurrency=int(client.get("MaxConcurrentInvocationsPerInstance", DEFAULT_CONCURRENCY)),
        success_topic=topics.get("SuccessTopic") or "",
        error_topic=topics.get("ErrorTopic") or "",
        include_success="SUCCESS_NOTIFICATION_TOPIC" in included,
        include_error="ERROR_NOTIFICATION_TOPIC" in included,
    )


def containers(model: Request) -> tuple[ContainerTemplate, ...]:
    if model.get("PrimaryContainer"):
        return (_container(model["PrimaryContainer"], model["ModelName"], ""),)
    containers = model.get("Containers") or ()
    if not containers:
        raise Refused(f"Model {model['ModelName']} has no container.")
    if len(containers) == 1:  # a list of one is no pipeline
        return (_container(containers[0], model["ModelName"], ""),)
    return tuple(
        _container(each, model["ModelName"], each.get("ContainerHostname") or f"container-{number}")
        for number, each in enumerate(containers, 1)
    )


def _container(container: Request, model: str, hostname: str) -> ContainerTemplate:
    if not container.get("Image"):
        raise Refused(f"A container of model {model} has no Image.")
    models, sources = _model_prefix(container, model), container.get("AdditionalModelDataSources") or ()
    own = () if models else _model_data(container, model)
    return ContainerTemplate(
        image=container["Image"],
        environment=dict(container.get("Environment") or {}),
        model_data=(*own, *(_s3_data(each["S3DataSource"], model, each["ChannelName"]) for each in sources)),
        models=models,
        hostname=hostname,
        repository=Repository.of(container.get("ImageConfig")),
    )


def _model_prefix(container: Request, model: str) -> ModelPrefix | None:
    if container.get("Mode") != "MultiModel":
        return None
    if not container.get("ModelDataUrl"):
        raise Refused(f"A container of model {model} has Mode MultiModel and no ModelDataUrl.")
    config = container.get("MultiModelConfig") or {}
    return ModelPrefix(container["ModelDataUrl"], config.get("ModelCacheSetting", "Enabled") == "Enabled")


def _model_data(container: Request, model: str) -> tuple[ModelData, ...]:
    if source := container.get("ModelDataSource"):
        return (_s3_data(source["S3DataSource"], model),)
    url = container.get("ModelDataUrl")
    return (ModelData(url),) if url else ()


def _s3_data(s3: Request, model: str, channel: str = "") -> ModelData:
    form = _FORMS.get((s3.get("S3DataType"), s3.get("CompressionType")))
    if form is None:
        raise Refused(f"Clary does not know an S3DataType with its CompressionType in the data of model {model}.")
    etags = s3.get("ETag", ""), s3.get("ManifestEtag", "")
    return ModelData(s3["S3Uri"], form, channel, s3.get("ManifestS3Uri", ""), *etags)
