"""Inference components: from what the API stored to what the planner wants, and the statuses that come of it.

They are reconciled with their endpoint, whose instances they share: `EndpointController` has one of these.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from clary.controllers.desired import Refused, Request, containers, network_of
from clary.core.adapters import Loads
from clary.core.component import BASE, ENDPOINT_KEY, REVISION, REVISIONS, Adapter, Component, Revision, Rolling, Size
from clary.core.containers import ModelData, Network
from clary.core.deployment import DOWNLOAD_TIMEOUT, STARTUP_TIMEOUT, ContainerTemplate, Desired, Observed
from clary.core.occupancy import Occupied, occupancy
from clary.core.packing import Packed, Surroundings, pack
from clary.core.placement import Compute, Strategy
from clary.core.ports import Engine, ListQuery, ResourceStore
from clary.core.resources import INFERENCE_COMPONENT, Resource
from clary.telemetry import logger

_MIB = 1024 * 1024
ADAPTER_TIMEOUT = 300.0
"""Seconds for an adapter's download, and as many for loading it, where nothing is said."""


class Components:
    """The components of endpoints: reads them, plans them, writes them."""

    def __init__(self, store: ResourceStore, engine: Engine, clock: Callable[[], float]) -> None:
        self._store = store
        self._engine = engine
        self._clock = clock
        self._log = logger("components")

    async def endpoints(self) -> set[str]:
        """Give the keys of all endpoints that components are of, there or not."""
        return {str(each.spec[ENDPOINT_KEY]) for each in await self._list(())}

    async def of(self, key: str) -> list[Resource]:
        """Give an endpoint's components."""
        return await self._list(((ENDPOINT_KEY, key),))

    async def pack(
        self, endpoint: Resource, wanted: Desired, resources: Sequence[Resource], observed: Observed, loads: Loads
    ) -> Packed:
        """Plan them all."""
        config = cast("Request", endpoint.spec)["_Deployment"]["EndpointConfig"]
        capacities = await self._capacities(wanted)
        around = Surroundings(observed, capacities, loads, self._clock())
        return pack(wanted, [_component(each, config) for each in resources], around)

    async def occupancy(self, endpoint: Resource, wanted: Desired, resources: Sequence[Resource]) -> list[Occupied]:
        """Tell what is on each instance."""
        config = cast("Request", endpoint.spec)["_Deployment"]["EndpointConfig"]
        capacities = await self._capacities(wanted)
        return list(occupancy(wanted, [_component(each, config) for each in resources], capacities))

    async def write(self, resources: Sequence[Resource], packed: Packed) -> bool:
        """Write their statuses and remove what is gone; False where one was changed meanwhile."""
        stored = {each.name: each for each in resources}
        for name, status in packed.statuses.items():
            resource = stored[name]
            touch = state(status) != state(resource.status)
            if not status:
                await self._store.remove(INFERENCE_COMPONENT, resource.name)
            elif status == resource.status:
                continue
            elif not await self._store.set_status(resource, status, touch=touch):
                return False
            if touch or not status:
                self._report(resource, status)
        return True

    def _report(self, resource: Resource, status: Mapping[str, object]) -> None:
        reason = {"reason": status["FailureReason"]} if "FailureReason" in status else {}
        phase = state(status) if status else "removed"
        endpoint = resource.spec["EndpointName"]
        self._log.info("component", component=resource.name, endpoint=endpoint, phase=phase, **reason)

    async def remove(self, resources: Sequence[Resource]) -> None:
        """Remove the components of an endpoint that is gone."""
        for each in resources:
            await self._store.remove(INFERENCE_COMPONENT, each.name)

    async def _list(self, members: tuple[tuple[str, str], ...]) -> list[Resource]:
        found: list[Resource] = []
        query = ListQuery(sort_by="Name", limit=100, members=members)
        while True:
            page = await self._store.list(INFERENCE_COMPONENT, query)
            found += page.resources
            if page.next is None:
                return found
            query = replace(query, after=page.next)

    async def _capacities(self, wanted: Desired) -> dict[str, Compute]:
        types = {each.instance_type for each in wanted.variants}
        found = {each: await self._engine.capacity(each) for each in types}
        return {each: Compute(has.cpus, has.memory, float(has.accelerators)) for each, has in found.items()}


def state(status: Mapping[str, object]) -> object:
    """Give the status of an endpoint or of a component, as it is shown."""
    return status.get("EndpointStatus") or status.get("InferenceComponentStatus", "Creating")


def _component(resource: Resource, config: Request) -> Component:
    """Translate a component. Never raises: what is not understood is refused."""
    spec = cast("Request", resource.spec)
    revisions: dict[int, Revision] = {}
    adapters: dict[int, Adapter] = {}
    refusal, rolling = None, Rolling()
    try:
        rolling = _rolling(spec.get("DeploymentConfig"))
        for number, definition in spec[REVISIONS].items():
            if BASE in spec:
                adapters[int(number)] = _adapter(definition["Specification"], config)
            else:
                revisions[int(number)] = _revision(int(number), definition, config)
    except Refused as reason:
        refusal = str(reason)
    except Exception as error:  # whatever is wrong with it, the component must end as Failed and not stay Creating
        refusal = (
            f"Clary does not understand this inference component as it is stored ({type(error).__name__}: {error})."
        )
    return Component(
        name=resource.name,
        arn=resource.arn,
        created_at=resource.created_at,
        generation=resource.generation,
        endpoint=str(spec["EndpointName"]),
        variant=str(spec["VariantName"]),
        status=resource.status,
        revisions=revisions,
        wanted=int(spec.get(REVISION, 0)),
        rolling=rolling,
        deleting=resource.deleting,
        refusal=refusal,
        base=str(spec.get(BASE, "")),
        adapters=adapters,
    )


def _adapter(specification: Request, config: Request) -> Adapter:
    url, start = specification["Container"]["ArtifactUrl"], specification.get("StartupParameters") or {}
    return Adapter(
        ModelData(url, "prefix" if url.endswith("/") else "archive"),
        config.get("ExecutionRoleArn"),
        float(start.get("ModelDataDownloadTimeoutInSeconds", ADAPTER_TIMEOUT)),
    )


def _revision(number: int, definition: Request, config: Request) -> Revision:
    specification = definition["Specification"]
    needs = specification["ComputeResourceRequirements"]
    start = specification.get("StartupParameters") or {}
    most = needs.get("MaxMemoryRequiredInMb")
    scheduling = specification.get("SchedulingConfig") or {}
    return Revision(
        number=number,
        copies=int(definition["CopyCount"]),
        template=_template(specification, definition.get("Model")),
        needs=Compute(
            float(needs.get("NumberOfCpuCoresRequired", 0.0)),
            int(needs["MinMemoryRequiredInMb"]) * _MIB,
            float(math.ceil(needs.get("NumberOfAcceleratorDevicesRequired", 0.0))),  # devices are whole
        ),
        memory_limit=int(most) * _MIB if most else None,
        strategy=cast("Strategy", scheduling.get("PlacementStrategy", "SPREAD")),
        startup_timeout=float(start.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_TIMEOUT)),
        download_timeout=float(start.get("ModelDataDownloadTimeoutInSeconds", DOWNLOAD_TIMEOUT)),
        role_arn=config.get("ExecutionRoleArn"),
        network=_network(config, definition.get("Model")),
        fingerprint=_fingerprint([specification, definition.get("Model")]),
    )


def _network(config: Request, model: Request | None) -> Network:
    """Say what copies may reach: what both the configuration and the model allow, in the configuration's VPC first."""
    found, own = network_of(config), network_of(model or {})
    vpc = found if found.subnets else own
    return replace(vpc, isolated=found.isolated or own.isolated)


def _fingerprint(definition: object) -> str:
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:16]


def _template(specification: Request, model: Request | None) -> ContainerTemplate:
    if model is not None:
        template = containers(model)[0]
        if template.models is not None:
            raise Refused(f"Inference components do not run multi-model containers: model {model['ModelName']}.")
        return template
    container = specification["Container"]
    url = container.get("ArtifactUrl")
    return ContainerTemplate(
        image=container["Image"],
        environment=dict(container.get("Environment") or {}),
        model_data=(ModelData(url),) if url else (),
    )


def _rolling(config: Mapping[str, Any] | None) -> Rolling:
    policy = (config or {}).get("RollingUpdatePolicy")
    if not policy:
        return Rolling()
    back = policy.get("RollbackMaximumBatchSize")
    limit = policy.get("MaximumExecutionTimeoutInSeconds")
    return Rolling(
        batch=_size(policy["MaximumBatchSize"]),
        wait=float(policy["WaitIntervalInSeconds"]),
        limit=float(limit) if limit else None,
        rollback=_size(back) if back else Size(),
    )


def _size(given: Mapping[str, Any]) -> Size:
    return Size(given["Type"], int(given["Value"]))
