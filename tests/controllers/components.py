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
from clary.controllers.adapters import AdapterHands
from clary.controllers.endpoints import EndpointController, Grace
from clary.controllers.model_api import Said
from clary.controllers.routes import Routes
from clary.core.containers import Container, ContainerSpec, ModelData, Placed
from clary.core.resources import ENDPOINT, INFERENCE_COMPONENT, Partition, Resource
from clary.core.routing import EndpointRoute, Target
from clary.errors import LaunchFailure
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
class FakeAdapters:
    """Containers' adapter API and the placing of files, for containers that take any adapter but those named broken."""

    loaded: dict[tuple[str, float], set[str]] = field(default_factory=dict)
    """By container and the time of its start: one that was started anew has none."""
    files: dict[str, set[str]] = field(default_factory=dict)
    takes: float = 0.5

    async def place(self, id: str, model: str, data: ModelData, role_arn: str | None) -> Placed:
        await asyncio.sleep(self.takes)
        if "missing" in data.url:
            raise LaunchFailure("download", f"no such key: {data.url}")
        self.files.setdefault(id, set()).add(model)
        return Placed(data.url, 1)

    async def discard(self, id: str, model: str) -> None:
        self.files.get(id, set()).discard(model)

    async def placed(self, id: str) -> dict[str, Placed]:
        return {model: Placed(model, 1) for model in self.files.get(id, ())}

    async def load(self, container: Container, name: str, path: str, timeout: float) -> Said:
        await asyncio.sleep(self.takes)
        there = self.loaded.setdefault((container.id, container.started_at), set())
        if "broken" in path or name in there:
            return Said(400, "no weights")
        there.add(name)
        return Said(200)

    async def unload(self, container: Container, name: str) -> Said:
        there = self.loaded.setdefault((container.id, container.started_at), set())
        known = name in there
        there.discard(name)
        return Said(200 if known else 404)


@dataclass
class World:
    """What outlives a control process."""

    engine: FakeEngine = field(default_factory=FakeEngine)
    store: MemoryStore = field(default_factory=MemoryStore)
    routes: Routes = field(default_factory=Routes)
    file: Path | None = None
    adapters: FakeAdapters = field(default_factory=FakeAdapters)
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
        controller.adapters = AdapterHands(self.adapters, now, controller.notify, self.adapters)
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

    async def adapt(self, name: str = "a", url: str = "s3://b/a.tar.gz", base: str = "c") -> None:
        """Create an adapter."""
        wanted = {"BaseInferenceComponentName": base, "Container": {"ArtifactUrl": url}}
        await self.call(
            "CreateInferenceComponent", InferenceComponentName=name, EndpointName="ep", Specification=wanted
        )

    def speaks(self, name: str = "a") -> set[str]:
        """Give the copies to which requests for an adapter go; all of them must have it loaded."""
        route = self.route(name)
        found = set()
        for target in self.targets(name):
            container = self.engine.containers[target.id]
            assert route is not None
            assert route.adapter in self.adapters.loaded.get((container.id, container.started_at), ())
            found.add(target.id)
        return found

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

    async def endpoint(self, name: str = "ep") -> Resource | None:
        return await self.store.get(ENDPOINT, name)
