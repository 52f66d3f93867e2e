"""From what the API stored to what the planner wants: the only place that reads CreateModel and CreateEndpointConfig
requests. What Clary cannot run becomes a refusal in a sentence, never an exception.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

from clary.core.deployment import DOWNLOAD_TIMEOUT, STARTUP_TIMEOUT, Desired, Variant
from clary.core.ports import ModelData, ModelDataForm
from clary.core.resources import Resource

Request = Mapping[str, Any]
"""A request as it was received: names and nesting are the service model's, which the API has checked."""

_FORMS: Mapping[tuple[object, object], ModelDataForm] = {
    ("S3Object", "Gzip"): "archive",
    ("S3Object", "None"): "object",
    ("S3Prefix", "None"): "prefix",
}
"""By S3DataType and CompressionType."""


class _Refused(Exception):
    """Clary cannot run this; the text is the sentence for FailureReason."""


def desired(resource: Resource) -> Desired:
    """Translate an endpoint. Never raises: what is not understood is refused too."""
    variants: tuple[Variant, ...] = ()
    deployment, refusal = "", None
    try:
        request = cast("Request", resource.spec)["_Deployment"]
        deployment = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]
        config = request["EndpointConfig"]
        if "AsyncInferenceConfig" in config:
            raise _Refused("Clary does not run asynchronous endpoints yet (AsyncInferenceConfig).")
        variants = tuple(_variant(each, request["Models"]) for each in config["ProductionVariants"])
    except _Refused as reason:
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
        deleting=resource.deleting,
        refusal=refusal,
    )


def _variant(variant: Request, models: Mapping[str, Request]) -> Variant:
    name = variant["VariantName"]
    if "ServerlessConfig" in variant:
        raise _Refused(f"Clary does not run serverless variants yet: production variant {name} has ServerlessConfig.")
    if not variant.get("ModelName"):
        raise _Refused(f"Clary does not run inference components yet: production variant {name} has no ModelName.")
    if variant["ModelName"] not in models:
        raise _Refused(f'Could not find model "{variant["ModelName"]}" of production variant {name}.')
    definition = models[variant["ModelName"]]
    container = _container(definition)
    model = variant["ModelName"]
    data, sources = _model_data(container, model), container.get("AdditionalModelDataSources") or ()
    return Variant(
        name=name,
        image=container["Image"],
        environment=dict(container.get("Environment") or {}),
        model_data_url=data.url if data else None,
        model_data_form=data.form if data else "archive",
        additional=tuple(_s3_data(each["S3DataSource"], model, each["ChannelName"]) for each in sources),
        instance_type=variant.get("InstanceType") or "ml.clary.local",
        count=int(variant.get("InitialInstanceCount", 1)),
        weight=float(variant.get("InitialVariantWeight", 1.0)),
        startup_timeout=float(variant.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_TIMEOUT)),
        download_timeout=float(variant.get("ModelDataDownloadTimeoutInSeconds", DOWNLOAD_TIMEOUT)),
        # An isolated container gets no credentials, as at the service.
        role_arn=None if definition.get("EnableNetworkIsolation") else definition.get("ExecutionRoleArn"),
    )


def _container(model: Request) -> Request:
    name = model["ModelName"]
    containers = [model["PrimaryContainer"]] if model.get("PrimaryContainer") else list(model.get("Containers") or ())
    if len(containers) != 1:
        raise _Refused(f"Clary runs models of one container only, yet: model {name} has {len(containers)}.")
    container: Request = containers[0]
    if container.get("Mode") == "MultiModel":
        raise _Refused(f"Clary does not run multi-model containers yet: model {name} has Mode MultiModel.")
    if not container.get("Image"):
        raise _Refused(f"Clary does not run model packages yet: the container of model {name} has no Image.")
    return container


def _model_data(container: Request, model: str) -> ModelData | None:
    if source := container.get("ModelDataSource"):
        return _s3_data(source["S3DataSource"], model)
    url = container.get("ModelDataUrl")
    return ModelData(url) if url else None


def _s3_data(s3: Request, model: str, channel: str = "") -> ModelData:
    form = _FORMS.get((s3.get("S3DataType"), s3.get("CompressionType")))
    if form is None:
        raise _Refused(f"Clary does not know an S3DataType with its CompressionType in the data of model {model}.")
    if "ManifestS3Uri" in s3:
        raise _Refused(f"Clary does not read manifests yet: model {model} has data with a ManifestS3Uri.")
    return ModelData(s3["S3Uri"], form, channel)
