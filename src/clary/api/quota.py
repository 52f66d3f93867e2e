"""How many containers one Clary runs. The service has quotas of instances, by type, and CreateEndpoint is what fails.

The process engine gives each container a block of ports, of which there are 240; a machine is full long before that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, cast

from clary.api.definition import containers
from clary.core.component import REVISION, REVISIONS
from clary.core.ports import ListQuery, ResourceStore
from clary.core.resources import ENDPOINT, INFERENCE_COMPONENT, TRANSFORM_JOB, Kind, Resource
from clary.errors import AwsError

LIMIT = 200
"""Containers, of all endpoints and transform jobs together."""
JOB_MODEL = "_Model"
"""Private member of a transform job's spec: the model as it was when the job was created, so that deleting it breaks
nothing that runs."""

Deployment = Mapping[str, Any]


async def check(store: ResourceStore, deployment: Deployment, member: str) -> None:
    """Raise ResourceLimitExceeded, in the service's words, where the endpoints that there are leave no room.

    `member` is where an endpoint's spec keeps its deployment.
    """
    wanted = _containers(deployment)
    if wanted:
        ((kind, _),) = wanted.most_common(1)
        _refuse_beyond(await _used(store, member), wanted.total(), kind)


async def check_copies(store: ResourceStore, copies: int, instance_type: str, member: str) -> None:
    """Raise ResourceLimitExceeded where there is no room for so many more copies of inference components."""
    _refuse_beyond(await _used(store, member), copies, instance_type)


async def check_job(store: ResourceStore, job: Mapping[str, Any], model: Mapping[str, Any], member: str) -> None:
    """Raise ResourceLimitExceeded where there is no room for the containers of a transform job."""
    more = _of_job(job, model)
    _refuse_beyond(await _used(store, member), more, job["TransformResources"]["InstanceType"], "transform job")


def _of_job(job: Mapping[str, Any], model: Mapping[str, Any]) -> int:
    return int(job["TransformResources"]["InstanceCount"]) * len(containers(dict(model)))


async def _used(store: ResourceStore, member: str) -> int:
    used = 0
    async for endpoint in _all(store, ENDPOINT):
        if endpoint.status.get("EndpointStatus") != "Failed" and member in endpoint.spec:
            used += _containers(cast("Deployment", endpoint.spec[member])).total()
    async for component in _all(store, INFERENCE_COMPONENT):
        if component.status.get("InferenceComponentStatus") != "Failed":
            used += copies(component.spec)
    async for job in _all(store, TRANSFORM_JOB, "InProgress"):
        used += _of_job(job.spec, cast("Deployment", job.spec[JOB_MODEL]))
    return used


def copies(component: Mapping[str, Any]) -> int:
    """Give how many copies there are to be, by an inference component's spec."""
    return int(component[REVISIONS][str(component[REVISION])]["CopyCount"])


def _refuse_beyond(used: int, more: int, kind: str, user: str = "endpoint") -> None:
    if used + more > LIMIT:
        raise AwsError(
            f"The account-level service limit '{kind} for {user} usage' is {LIMIT} Instances, with current "
            f"utilization of {used} Instances and a request delta of {more} Instances. Please use AWS "
            "Service Quotas to request an increase for this quota. If AWS Service Quotas is not available, contact "
            "AWS support to request an increase for this quota. (Clary counts containers, of all types.)",
            code="ResourceLimitExceeded",
            status=400,
        )


def _containers(deployment: Deployment) -> Counter[str]:
    """Count by instance type."""
    found: Counter[str] = Counter()
    config, models = deployment["EndpointConfig"], deployment["Models"]
    for variant in (*config["ProductionVariants"], *(config.get("ShadowProductionVariants") or ())):
        model = models.get(variant.get("ModelName"))
        if model is not None and "ServerlessConfig" not in variant:
            number = variant.get("InitialInstanceCount", 1) * len(containers(dict(model)))
            found[variant.get("InstanceType", "ml.clary.local")] += number
    return found


async def _all(store: ResourceStore, kind: Kind, status: str | None = None) -> AsyncIterator[Resource]:
    query = ListQuery(limit=100, status_equals=status)
    while True:
        page = await store.list(kind, query)
        for each in page.resources:
            yield each
        if page.next is None:
            return
        query = replace(query, after=page.next)
