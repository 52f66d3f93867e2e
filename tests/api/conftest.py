"""The operations over a real store, called as the dispatcher calls them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from clary.api.app import App, operations
from clary.core.resources import ENDPOINT, INFERENCE_COMPONENT, Kind, Partition
from clary.errors import ValidationException
from clary.store.store import Store
from clary.wire.dispatch import Caller
from tests.stores import new_store

ACCOUNT = "123456789012"
ARN = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}"
CALLER = Caller(ACCOUNT, "us-east-1", "AKIAEXAMPLE", "4a7f3c52-0000-4000-8000-000000000000")


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Api:
    """`await api("CreateModel", ModelName="m")`; `await api.refusal(...)` gives the message of the refusal."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.notified: list[str] = []
        self.handlers = operations(store, Partition(ACCOUNT, "us-east-1"), self.notified.append)

    async def __call__(self, operation: str, **members: Any) -> dict[str, Any]:
        service = "sts" if operation == "GetCallerIdentity" else "sagemaker"
        return await self.handlers[service, operation](CALLER, members) or {}

    async def refusal(self, operation: str, **members: Any) -> str:
        with pytest.raises(ValidationException) as refused:
            await self(operation, **members)
        return refused.value.message

    async def model(self, name: str = "m", **members: Any) -> dict[str, Any]:
        return await self("CreateModel", ModelName=name, **({"PrimaryContainer": {"Image": "image"}} | members))

    async def config(self, name: str = "c", **members: Any) -> dict[str, Any]:
        return await self(
            "CreateEndpointConfig", EndpointConfigName=name, **({"ProductionVariants": [variant()]} | members)
        )

    async def endpoint(self, name: str = "e", **members: Any) -> dict[str, Any]:
        return await self("CreateEndpoint", EndpointName=name, **({"EndpointConfigName": "c"} | members))

    async def host(self, name: str = "h", **members: Any) -> None:
        """Create an endpoint for inference components, in service."""
        roomy = {key: value for key, value in variant(**members).items() if key != "ModelName"}
        role = "arn:aws:iam::123456789012:role/clary"
        await self.config(name, ProductionVariants=[roomy], ExecutionRoleArn=role)
        await self.endpoint(name, EndpointConfigName=name)
        await self.becomes(ENDPOINT, name, EndpointStatus="InService")

    async def component(self, name: str = "i", **members: Any) -> dict[str, Any]:
        least = {"EndpointName": "h", "Specification": specification()}
        return await self("CreateInferenceComponent", InferenceComponentName=name, **(least | members))

    async def becomes(self, kind: Kind, name: str, **status: Any) -> None:
        """Have a resource be in a state, as its controller would."""
        resource = await self.store.get(kind, name)
        assert resource is not None
        assert await self.store.set_status(resource, {**resource.status, **status})

    async def serves(self, name: str = "i", revision: int = 1) -> None:
        """Have a component be in service."""
        progress = {"serving": revision, "abandoned": 0}
        status = {"InferenceComponentStatus": "InService", "_Progress": progress, "_Shown": revision}
        await self.becomes(INFERENCE_COMPONENT, name, **status)


def specification(**members: Any) -> dict[str, Any]:
    return {"Container": {"Image": "image"}, "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 1024}} | members


def variant(**members: Any) -> dict[str, Any]:
    return {
        "VariantName": "AllTraffic",
        "ModelName": "m",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    } | members


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # pytest's


@contextlib.asynccontextmanager
async def served(app: App) -> AsyncIterator[str]:
    """Serve on a real socket, as the control plane does; give the address."""
    # The protocol is named, since asyncio sets TCP_NODELAY only on sockets that say what they are.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None, timeout_graceful_shutdown=1)
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Api]:
    """Give the operations over a new store."""
    clock = Clock()
    store = await new_store(folder, clock)
    yield Api(store, clock)
    await store.close()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with opened(tmp_path) as here:
        yield here
