"""A world for tests of inference components: real operations, controller, loop and prober; the engine is a fake."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from clary.api.app import Store, operations
from clary.controllers.endpoints import EndpointController, Grace
from clary.controllers.routes import Routes
from clary.core.placement import Compute
from clary.core.ports import ContainerSpec
from clary.core.resources import ENDPOINT, INFERENCE_COMPONENT, Partition, Resource
from clary.core.routing import EndpointRoute, Target
from clary.testing import FakeEngine, MemoryStore, now
from clary.wire.dispatch import Caller

PARTITION = Partition("000000000000", "us-east-1")
CALLER = Caller("000000000000", "us-east-1", "AKIAEXAMPLE", "")
ROLE = "arn:aws:iam::000000000000:role/clary"
MIB = 1024 * 1024


def needs(memory: int = 1024, cpus: float | None = None, accelerators: int | None = None) -> dict[str, Any]:
    """Give requirements: memory in MiB, of the 8192 that an instance of the fake engine has, beside 4 cores."""
    given = {"MinMemoryRequiredInMb": memory, "NumberOfCpuCoresRequired": cpus}
    given["NumberOfAcceleratorDevicesRequired"] = accelerators
    return {name: value for name, value in given.items() if value is not None}


def specification(image: str = "img:1", memory: int = 1024, **members: Any) -> dict[str, Any]:
    return {"Container": {"Image": image}, "ComputeResourceRequirements": needs(memory)} | members


def rolling(size: int, wait: int = 0, kind: str = "COPY_COUNT", **members: Any) -> dict[str, Any]:
    policy = {"MaximumBatchSize": {"Type": kind, "Value": size}, "WaitIntervalInSeconds": wait}
    return {"RollingUpdatePolicy": policy | members}


@dataclass
class World:
    """What outlives a control process."""

    engine: FakeEngine = field(default_factory=FakeEngine)
    store: MemoryStore = field(default_factory=MemoryStore)
    routes: Routes = field(default_factory=Routes)
    file: Path | None = None
    controller: EndpointController | None = None

    def __post_init__(self) -> None:
        self._handlers = operations(cast("Store", self.store), PARTITION, self._notify)

    def _notify(self, name: str) -> None:
        if self.controller is not None:
            self.controller.notify(name)

    async def call(self, operation: str, **members: Any) -> dict[str, Any]:
        return await self._handlers["sagemaker", operation](CALLER, members) or {}

    @asynccontextmanager
    async def control(self) -> AsyncIterator[EndpointController]:
        """One life of the control process, with an empty memory."""
        self.routes = Routes(self.file)
        grace = Grace(replace=30.0, delete=3.0)
        controller = EndpointController(self.store, self.engine, self.routes, grace, self.engine.ping, now)
        self.engine.on_change = controller.container_changed
        self.controller = controller
        task = asyncio.create_task(controller.run())
        try:
            yield controller
        finally:
            self.controller = None
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def host(self, name: str = "ep", **variant: Any) -> None:
        """Create an endpoint for components, and wait for it."""
        given = {"VariantName": "v", "InstanceType": "ml.clary.local", "InitialInstanceCount": 1} | variant
        await self.call(
            "CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=[given], ExecutionRoleArn=ROLE
        )
        await self.call("CreateEndpoint", EndpointName=name, EndpointConfigName=name)
        async with asyncio.timeout(600):
            while (await self.call("DescribeEndpoint", EndpointName=name))["EndpointStatus"] != "InService":  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def add(self, name: str = "c", copies: int = 1, endpoint: str = "ep", **members: Any) -> None:
        await self.call(
            "CreateInferenceComponent",
            InferenceComponentName=name,
            EndpointName=endpoint,
            Specification=specification(**members),
            RuntimeConfig={"CopyCount": copies},
        )

    async def describe(self, name: str = "c") -> dict[str, Any]:
        return await self.call("DescribeInferenceComponent", InferenceComponentName=name)

    async def rests(self, name: str = "c", status: str | None = "InService") -> dict[str, Any]:
        """Wait until a component is neither created, updated nor deleted any more, and give its description."""
        async with asyncio.timeout(36_000):
            while await self.store.get(INFERENCE_COMPONENT, name) is not None:
                described = await self.describe(name)
                if described["InferenceComponentStatus"] not in ("Creating", "Updating", "Deleting"):
                    assert described["InferenceComponentStatus"] == status, described
                    return described
                await asyncio.sleep(0.01)
        assert status is None, f"{name} is gone"
        return {}

    async def scale(self, copies: int, name: str = "c") -> None:
        await self.call(
            "UpdateInferenceComponentRuntimeConfig",
            InferenceComponentName=name,
            DesiredRuntimeConfig={"CopyCount": copies},
        )

    async def update(self, name: str = "c", *, image: str = "img:2", memory: int = 1024, **members: Any) -> None:
        wanted = specification(image, memory)
        await self.call("UpdateInferenceComponent", InferenceComponentName=name, Specification=wanted, **members)

    def route(self, name: str = "c", endpoint: str = "ep") -> EndpointRoute | None:
        route = self.routes.table.endpoints.get(endpoint)
        return (route.components or {}).get(name) if route is not None else None

    def targets(self, name: str = "c", endpoint: str = "ep") -> tuple[Target, ...]:
        route = self.route(name, endpoint)
        return () if route is None else tuple(target for variant in route.variants for target in variant.targets)

    def spec(self, id: str) -> ContainerSpec:
        """Give what a container was last launched from."""
        return next(spec for spec in reversed(self.engine.launched) if spec.id == id)

    def running(self) -> dict[str, list[ContainerSpec]]:
        """Give what runs, by instance."""
        found: dict[str, list[ContainerSpec]] = {}
        for container in self.engine.containers.values():
            found.setdefault(container.instance_id, []).append(self.spec(container.id))
        return found

    def images(self) -> Counter[str]:
        return Counter(container.image for container in self.engine.containers.values())

    async def needed(self, spec: ContainerSpec) -> Compute:
        """Give what is set aside for a container, by the component's definition."""
        resource = await self.store.get(INFERENCE_COMPONENT, spec.component)
        assert resource is not None, spec.component
        definitions: Any = resource.spec["_Revisions"]
        (found,) = {
            (given.get("NumberOfCpuCoresRequired", 0.0), given["MinMemoryRequiredInMb"] * MIB)
            for each in definitions.values()
            if each["Specification"]["Container"]["Image"] == spec.image
            for given in [each["Specification"]["ComputeResourceRequirements"]]
        }
        return Compute(*found)

    async def endpoint(self, name: str = "ep") -> Resource | None:
        return await self.store.get(ENDPOINT, name)
