"""Why an endpoint is as it is: what the public API says of it, put together, with what to try next."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clary.cli.backlog import Backlog, backlog
from clary.cli.connection import Connection
from clary.cli.deployment import describe_endpoint, variants_of
from clary.core.failure import told
from clary.errors import ClaryError


class UnknownEndpoint(ClaryError):
    """There is no endpoint of that name."""


@dataclass(frozen=True, slots=True)
class Container:
    """What a variant runs."""

    image: str
    model_data_url: str
    package: str = ""
    """The model package that says image and data, where one does."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A production variant, wanted and had."""

    name: str
    model: str
    instance_type: str
    desired: int
    current: int
    containers: tuple[Container, ...]
    doing: str = ""
    """What is under way, as the service tells it: `0 of 1 instances ready; pull 120 of 480 MB`."""


@dataclass(frozen=True, slots=True)
class Component:
    """An inference component, wanted and had."""

    name: str
    status: str
    desired: int
    current: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that is known of one endpoint."""

    name: str
    status: str
    reason: str
    config: str
    variants: tuple[Variant, ...]
    backlog: Backlog | None = None
    """Of an asynchronous endpoint."""
    components: tuple[Component, ...] = ()

    @property
    def healthy(self) -> bool:
        shares: tuple[Variant | Component, ...] = (*self.variants, *self.components)
        return (
            self.status == "InService"
            and all(each.current >= each.desired for each in shares)
            and all(each.status == "InService" for each in self.components)
        )


def diagnose(connection: Connection, name: str) -> Diagnosis:
    """Ask for the endpoint, its config and its models. Raises UnknownEndpoint with the names that there are."""
    api = connection.client("sagemaker")
    description = describe_endpoint(api, name)
    if description is None:
        names = [endpoint["EndpointName"] for endpoint in api.list_endpoints(MaxResults=10)["Endpoints"]]
        known = f"there are: {', '.join(names)}" if names else "there is none at all"
        raise UnknownEndpoint(f"no endpoint {name}; {known}")
    config = description["EndpointConfigName"]
    variants = tuple(_variants(api, config, description))
    packed = any(not variant.model for variant in variants)
    return Diagnosis(
        name=description["EndpointName"],
        status=description["EndpointStatus"],
        reason=_without_pointer(description.get("FailureReason", "")),
        config=config,
        backlog=backlog(connection, description),
        variants=variants,
        components=tuple(_components(api, description["EndpointName"])) if packed else (),
    )


def _components(api: Any, endpoint: str) -> Iterator[Component]:
    pages = api.get_paginator("list_inference_components").paginate(
        EndpointNameEquals=endpoint, SortBy="Name", SortOrder="Ascending"
    )
    for summary in (each for page in pages for each in page["InferenceComponents"]):
        described = _or_none(api.describe_inference_component, InferenceComponentName=summary["InferenceComponentName"])
        if described is not None:  # it may be gone by now
            runtime = described.get("RuntimeConfig", {})
            yield Component(
                described["InferenceComponentName"],
                described["InferenceComponentStatus"],
                runtime.get("DesiredCopyCount", 0),
                runtime.get("CurrentCopyCount", 0),
                _without_pointer(described.get("FailureReason", "")),
            )


def _without_pointer(reason: str) -> str:
    """Drop the last line where it points to this very command."""
    return "\n".join(line for line in reason.splitlines() if not line.startswith("Next: clary doctor"))


def _variants(api: Any, config: str, description: dict[str, Any]) -> Iterator[Variant]:
    """Go by the config: a failed endpoint's description names no variants."""
    observed = {variant["VariantName"]: variant for variant in variants_of(description)}
    wanted = _or_none(api.describe_endpoint_config, EndpointConfigName=config)
    for variant in wanted["ProductionVariants"] if wanted else ():
        seen = observed.get(variant["VariantName"], {})
        model = variant.get("ModelName", "")
        desired = seen.get("DesiredInstanceCount", variant.get("InitialInstanceCount", 1))
        yield Variant(
            name=variant["VariantName"],
            model=model,
            instance_type=variant.get("InstanceType", ""),
            desired=desired,
            current=seen.get("CurrentInstanceCount", 0),
            containers=_containers(_or_none(api.describe_model, ModelName=model) if model else None),
            doing=next((each.get("StatusMessage", "") for each in seen.get("VariantStatus", ())), ""),
        )


def _containers(model: dict[str, Any] | None) -> tuple[Container, ...]:
    if model is None:
        return ()
    specs = model.get("Containers") or [model.get("PrimaryContainer", {})]
    return tuple(Container(spec.get("Image", ""), _data_url(spec), spec.get("ModelPackageName", "")) for spec in specs)


def _data_url(spec: dict[str, Any]) -> str:
    source = spec.get("ModelDataSource", {}).get("S3DataSource", {}).get("S3Uri", "")
    return str(spec.get("ModelDataUrl") or source)


def _or_none(describe: Any, **arguments: str) -> dict[str, Any] | None:
    """A config or a model may be deleted while its endpoint lives on."""
    from botocore.exceptions import ClientError

    try:
        description: dict[str, Any] = describe(**arguments)
    except ClientError as error:
        if "could not find" in str(error).lower():
            return None
        raise
    return description


# By AWS's words for the step, which FailureReason begins with, and by what it says after `Step:`. The first counts.
_ADVICE: Sequence[tuple[str, str]] = (
    (
        r"not enough hardware",
        "Add instances, use larger ones, or ask for less: copies need CPU, memory and accelerators set aside",
    ),
    (
        r"(is|are) not in \[networks\]|there is no Docker network",
        "Which networks are there? What a VpcConfig's ids stand for is in the settings file:  docker network ls",
    ),
    (r"the model has a VpcConfig", "Run the model in networks of Docker's, or in this machine's:  clary up --help"),
    (
        r'exec: "?serve"?: |executable file not found',
        "A container is started as `docker run IMAGE serve`: the image needs an ENTRYPOINT that takes this word, or a "
        "program `serve` on its PATH:  docker image inspect {image}",
    ),
    (
        r"has GPUs",
        "Does this machine have any, and may containers have them?  nvidia-smi; docker info | grep -i runtimes",
    ),
    (r"unable to find (user|group)", "The image names a USER that it does not have:  docker image inspect {image}"),
    (r"EnableNetworkIsolation (is not|needs)", "What does this machine allow?  clary doctor"),
    (r"No space left on device|the disk is full", "Make room on its disk, or take another with --data:  clary doctor"),
    (
        r"The role \S+ may not (read|list)",
        "May it? Once there are roles, an ARN must name one, and its policies are asked:  clary roles list",
    ),
    (r"the store refuses access", "May the key that Clary has for this store read it?  aws s3 cp {url} - | wc -c"),
    (r"failed to download|no such (key|bucket)", "Is the artifact there?  aws s3 ls {url}"),
    (
        r"failed to extract|unpack",
        "Look into the artifact:  aws s3 cp {url} - | tar tz\n"
        "Pack it from within its folder, and upload it again:  tar -C FOLDER -czf model.tar.gz .",
    ),
    (
        r"it brings no serve",
        "Put a server into the artifact as `serve`, or name a framework's image for code/inference.py:  "
        "aws s3 cp {url} - | tar tz",
    ),
    (r"no entry for", "Add the image to a catalogue of your own:  clary up --catalogue FILE"),
    (r"registry \S+ has no ", "Is it there under this name?  docker pull {image}"),
    (r"without a login", "Log in as the user that Clary runs as, and try:  docker login {registry}"),
    (r"refused the login", "Try user and password by hand:  docker login {registry}"),
    (r"registry \S+ cannot be reached", "Does it answer on this machine?  curl -i {asked}"),
    (r"not one that Docker trusts", "What does it show?  openssl s_client -showcerts -connect {address} </dev/null"),
    (r"for the architecture", "Build it for this machine:  docker buildx build --platform PLATFORM -t {image} ."),
    (r"disk of Docker is full", "What takes the room?  docker system df"),
    (r"told where to invoke it", "Name the Lambda API at the start:  clary up --lambda-endpoint URL"),
    (
        r"Lambda function (\S+)",
        "What does it answer?  aws lambda invoke {lambda_endpoint}--function-name {function} /dev/stdout",
    ),
    (r"make sure all images", "Can this machine pull it?  docker pull {image}"),
    (r"environment|uv .*failed", "Does code/requirements.txt suit the Pythons of this machine?  clary doctor"),
    (r"memory|SIGKILL", "Give it more memory: a larger instance type, or ml.clary.local for the whole machine"),
    (r"exited|killed|CannotStartContainer", "The log tells why it ended:  clary logs {name}"),
    (
        r"port never opened",
        "It has to listen on the port that SAGEMAKER_BIND_TO_PORT names (8080 where none is), "
        "in a container not on 127.0.0.1 alone:  clary logs {name}",
    ),
    (
        r"ping too slow",
        "The container must answer GET /ping within 2 s, also while it loads or computes:  clary logs {name}",
    ),
    (r"ping|port", "The container must answer GET /ping with 200 in time:  clary logs {name}"),
)


def advice(diagnosis: Diagnosis) -> list[str]:
    """Give what to try next, by the step that the FailureReason names; empty where all is well."""
    if diagnosis.healthy:
        return []
    if diagnosis.status == "Creating":
        return [f"It is still being created; watch it:  clary logs {diagnosis.name} -f"]
    behind = (each.doing for each in diagnosis.variants if each.current < each.desired)
    said = (diagnosis.reason, *(each.reason for each in diagnosis.components), *behind)
    reason, image = told(next((each for each in said if each), ""))
    culprit = _culprit(diagnosis, reason, image)
    registry = re.search(r"\bregistry (\S+)", reason)
    function = re.search(r"Lambda function (\S+)", reason)
    place = re.search(r"invoked at (\S+?)\.?(\s|$)", reason)
    asked = re.search(r'Get "(https?://[^"\s]+)"', reason)
    host = registry[1] if registry else "REGISTRY"
    values = {
        "function": function[1] if function else "ARN",
        "lambda_endpoint": f"--endpoint-url {place[1]} " if place else "",
        "url": culprit.model_data_url or "S3-URL",
        "image": culprit.image or image or "IMAGE",
        "name": diagnosis.name,
        "registry": host,
        "asked": asked[1] if asked else f"https://{host}/v2/",
        "address": host if ":" in host else f"{host}:443",
    }
    matching = (text for pattern, text in _ADVICE if re.search(pattern, reason, re.IGNORECASE))
    suggestions = next(matching, "What did it write?  clary logs {name}").format(**values).splitlines()
    if diagnosis.status == "Failed":
        suggestions.append(
            f"Then delete it, and try again:  aws sagemaker delete-endpoint --endpoint-name {values['name']}"
        )
    return suggestions


def _culprit(diagnosis: Diagnosis, reason: str, image: str | None) -> Container:
    """Find the container of a pipeline or of several variants that a reason is about, by its image and its data."""
    containers = [container for variant in diagnosis.variants for container in variant.containers]
    same = [container for container in containers if container.image == image] or containers
    named = (each for each in same if each.model_data_url and f'"{each.model_data_url}"' in reason)
    return next(named, same[0] if same else Container("", ""))
