from __future__ import annotations

import asyncio
import time

import pytest

from clary.core.containers import ContainerSpec
from clary.core.resources import ENDPOINT, Resource
from clary.errors import LaunchFailure
from clary.testing import FakeEngine, MemoryStore, Script, Specimens, engine_conformance, in_virtual_time, now


def spec(variant: str) -> ContainerSpec:
    return ContainerSpec(variant, "ep", variant, f"i-{variant}", "img:1", deployment="d")


SPECIMENS = Specimens(spec("serves"), spec("exits"), spec("broken"))
SCRIPTS = {
    "serves": Script(launch_takes=1),
    "exits": Script(exits_after=1),
    "broken": Script(launch_error=LaunchFailure("image", "unknown")),
}


def test_virtual_time_passes_at_once() -> None:
    @in_virtual_time
    async def sleep() -> None:
        before = now()
        await asyncio.sleep(100_000)
        assert now() - before == 100_000

    start = time.monotonic()
    sleep()
    assert time.monotonic() - start < 30


def test_virtual_time_tells_a_deadlock() -> None:
    @in_virtual_time
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="deadlock"):
        wait()


@in_virtual_time
async def test_the_fake_engine_conforms() -> None:
    engine = FakeEngine(scripts=SCRIPTS)

    async def create() -> FakeEngine:
        return engine

    await engine_conformance(create, SPECIMENS)
    assert engine.containers == {}


@pytest.mark.parametrize(
    ("method", "complaint"),
    [("observe", "observed"), ("stop", "forgotten"), ("logs", "log")],
)
def test_the_suite_notices_an_engine_that_does_nothing(method: str, complaint: str) -> None:
    @in_virtual_time
    async def check() -> None:
        engine = FakeEngine(scripts=SCRIPTS)

        async def nothing(*_: object) -> tuple[()]:
            return ()

        setattr(engine, method, nothing)

        async def create() -> FakeEngine:
            return engine

        await engine_conformance(create, SPECIMENS)

    with pytest.raises(AssertionError, match=complaint):
        check()


def test_the_suite_notices_an_engine_that_forgets_its_containers() -> None:
    @in_virtual_time
    async def check() -> None:
        async def create() -> FakeEngine:
            return FakeEngine(scripts=SCRIPTS)

        await engine_conformance(create, SPECIMENS)

    with pytest.raises(AssertionError, match="outlive"):
        check()


@in_virtual_time
async def test_the_memory_store_keeps_the_promises_that_controllers_need() -> None:
    store = MemoryStore()
    made = await store.insert(Resource("Endpoint", "Ep", "arn:ep", {}), {})
    assert made is not None
    assert made.created_at == now()
    assert await store.insert(Resource("Endpoint", "eP", "arn:ep", {}), {}) is None
    assert await store.get(ENDPOINT, "EP") == made
    await store.mark_deleting(ENDPOINT, "ep", {"EndpointStatus": "Deleting"})
    assert not await store.set_status(made, {"EndpointStatus": "InService"}), "of an older generation"
    assert await store.remove(ENDPOINT, "eP")
    assert not await store.remove(ENDPOINT, "eP")
