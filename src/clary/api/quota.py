"""How many containers one Clary runs. The service has quotas of instances, by type, and CreateEndpoint is what fails.

The process engine gives each container a block of ports, of which there are 240; a machine is full long before that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, cast

from clary.api.definition import containers
from clary.core.ports import ListQuery, ResourceStore
from clary.core.resources import ENDPOINT
from clary.errors import AwsError

LIMIT = 200
"""Containers, of all endpoints together."""

Deployment = Mapping[str, Any]


async def check(store: ResourceStore, deployment: Deployment, member: str) -> None:
    """Raise ResourceLimitExceeded, in the service's words, where the endpoints that there are leave no room.

    `member` is where an endpoint's spec keeps its deployment.
    """
    wanted, used = _containers(deployment), 0
    async for other in _deployments(store, member):
        used += _containers(other).total()
    if used + wanted.total() > LIMIT:
        ((kind, _),) = wanted.most_common(1)
        raise AwsError(
            f"The account-level service limit '{kind} for endpoint usage' is {LIMIT} Instances, with current "
            f"utilization of {used} Instances and a request delta of {wanted.total()} Instances. Please use AWS "
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


async def _deployments(store: ResourceStore, member: str) -> AsyncIterator[Deployment]:
    query = ListQuery(limit=100)
    while True:
        page = await store.list(ENDPOINT, query)
        for endpoint in page.resources:
            if endpoint.status.get("EndpointStatus") != "Failed" and member in endpoint.spec:
                yield cast("Deployment", endpoint.spec[member])
        if page.next is None:
            return
        query = replace(query, after=page.next)
