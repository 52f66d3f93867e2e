"""The endpoint controller in virtual time, and what is around it: real loop, prober and routes, a fake engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from clary.controllers.endpoints import EndpointController, Grace
from clary.controllers.health import Ask
from clary.controllers.routes import Routes
from clary.core.resources import ENDPOINT, Partition, Resource
from clary.core.routing import Target
from clary.testing import FakeEngine, MemoryStore, now

PARTITION = Partition("000000000000", "us-east-1")


def endpoint(name: str = "ep", count: int = 1, **variant: object) -> Resource:
    config = {
        "EndpointConfigName": "cfg",
        "ProductionVariants": [
            {"VariantName": "AllTraffic", "ModelName": "m", "InitialInstanceCount": count, **variant}
        ],
    }
    models = {"m": {"ModelName": "m", "PrimaryContainer": {"Image": "img:1", "ModelDataUrl": "s3://b/m.tar.gz"}}}
    return Resource(
        kind=ENDPOINT.name,
        name=name,
        arn=PARTITION.arn(ENDPOINT, name),
        spec={
            "EndpointName": name,
            "EndpointConfigName": "cfg",
            "_Deployment": {"EndpointConfig": config, "Models": models},
        },
        status={"EndpointStatus": "Creating"},
    )


@dataclass
class World:
    """What outlives a control process."""

    engine: FakeEngine = field(default_factory=FakeEngine)
    store: MemoryStore = field(default_factory=MemoryStore)
    routes: Routes = field(default_factory=Routes)
    file: Path | None = None
    controller: EndpointController | None = None

    @asynccontextmanager
    async def control(self) -> AsyncIterator[EndpointController]:
        """One life of the control process, with an empty memory."""
        self.routes = Routes(self.file)
        grace = Grace(replace=30.0, delete=3.0)
        ask: Ask = lambda host, port: self.engine.ping(host, port)  # noqa: E731 - tests replace the engine's method
        controller = EndpointController(self.store, self.engine, self.routes, grace, ask, now)
        self.engine.on_change = controller.container_changed
        self.controller = controller
        task = asyncio.create_task(controller.run())
        try:
            yield controller
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def create(self, resource: Resource) -> None:
        assert await self.store.insert(resource, {}) is not None
        if self.controller is not None:
            self.controller.notify(resource.name)

    async def delete(self, name: str = "ep") -> None:
        resource = await self.store.get(ENDPOINT, name)
        assert resource is not None
        await self.store.mark_deleting(ENDPOINT, name, {**resource.status, "EndpointStatus": "Deleting"})
        assert self.controller is not None
        self.controller.notify(name)

    async def reaches(self, status: str | None, name: str = "ep") -> Resource | None:
        async with asyncio.timeout(3600):
            while True:
                resource = await self.store.get(ENDPOINT, name)
                if (resource.status["EndpointStatus"] if resource else None) == status:
                    return resource
                await asyncio.sleep(0.01)

    def targets(self, name: str = "ep") -> tuple[Target, ...]:
        route = self.routes.table.endpoints.get(name)
        return tuple(target for variant in route.variants for target in variant.targets) if route else ()
