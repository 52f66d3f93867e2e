"""The suite that every engine passes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from clary.core.containers import Container, ContainerSpec
from clary.core.ports import Engine, Meters, ShowsSockets
from clary.errors import LaunchFailure, Transient

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Specimens:
    """Containers for the conformance suite, runnable on the engine under test. Ids differ."""

    serves: ContainerSpec
    """Runs until it is stopped, and writes at least two lines to its log soon after it starts."""
    exits: ContainerSpec
    """Exits by itself with status 3 soon after it starts."""
    broken: ContainerSpec
    """Cannot be launched at all."""


LAUNCH_STEPS = frozenset({"image", "download", "unpack", "environment", "create"})


async def engine_conformance(create: Callable[[], Awaitable[Engine]], specimens: Specimens) -> None:
    """Check that an engine keeps the promises of `core.ports.Engine`. Raises AssertionError at the first broken one.

    `create` makes an engine object; objects made one after the other must find each other's containers.
    """
    engine = await create()
    try:
        await _check_broken(engine, specimens.broken)
        await _check_cancelled(engine, specimens.serves)
        first = await _check_launch(engine, specimens.serves)
        await _check_exit(engine, specimens.exits)
    finally:
        await engine.close()
    engine = await create()
    try:
        await _check_adopted(engine, first)
        await _check_usage(engine, first)
        await _check_sockets(engine, first)
        await _check_stop(engine, first)
        capacity = await engine.capacity()
        assert capacity.cpus > 0, "an engine has processors"
        assert capacity.memory > 0, "an engine has memory"
    finally:
        await engine.close()


async def _find(engine: Engine, id: str) -> Container | None:
    found = [container for container in await engine.observe() if container.id == id]
    assert len(found) <= 1, f"{id} is observed {len(found)} times"
    return found[0] if found else None


async def _wait_for(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(60):
            while not await holds():  # noqa: ASYNC110 - engines need not tell of changes
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"within 60 s: {what}") from None


async def _check_broken(engine: Engine, spec: ContainerSpec) -> None:
    try:
        await engine.launch(spec, lambda _: None)
    except LaunchFailure as error:
        assert error.step in LAUNCH_STEPS, f"unknown launch step {error.step!r}"
        assert error.message, "a launch failure explains itself"
    else:
        raise AssertionError("launching what cannot be launched raises LaunchFailure")
    assert await _find(engine, spec.id) is None, "a failed launch leaves nothing behind"


async def _check_cancelled(engine: Engine, spec: ContainerSpec) -> None:
    task = asyncio.ensure_future(engine.launch(spec, lambda _: None))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await _find(engine, spec.id) is None, "a cancelled launch leaves nothing behind"


async def launch(engine: Engine, spec: ContainerSpec) -> Container:
    """Launch, and again where the engine puts it off."""
    return await _insisted(lambda: engine.launch(spec, lambda _: None))


async def stop(engine: Engine, id: str) -> None:
    """Stop within a second, and again where the engine puts it off."""
    await _insisted(lambda: engine.stop(id, 1.0))


async def _insisted(work: Callable[[], Awaitable[T]]) -> T:
    """Do what may be put off: Transient says that it is worth another try, as controllers give it one."""
    for _ in range(5):
        try:
            return await work()
        except Transient as trouble:
            await asyncio.sleep(min(trouble.retry_after, 1.0))
    return await work()


async def _check_launch(engine: Engine, spec: ContainerSpec) -> Container:
    container, twin = await asyncio.gather(*(launch(engine, spec) for _ in range(2)))
    assert (twin.started_at, twin.pid) == (container.started_at, container.pid), "two launches at once are one"
    for name in ("id", "endpoint", "variant", "instance_id", "deployment", "image", "kind"):
        assert getattr(container, name) == getattr(spec, name), f"a container keeps its {name}"
    assert container.phase == "running", "launch returns once the process runs"
    assert container.port > 0, "a container has a port"
    assert container.resolved_image, "an image is resolved to what will be launched again"
    again = await launch(engine, spec)
    assert (again.started_at, again.pid) == (container.started_at, container.pid), "launching twice is launching once"
    assert await _find(engine, spec.id) is not None, "what was launched is observed"

    async def has_logged() -> bool:
        return len(await engine.logs(spec.id, 100)) >= 2

    await _wait_for(has_logged, "the log has the lines that the container wrote")
    assert len(await engine.logs(spec.id, 1)) == 1, "the log gives at most as many lines as were asked for"
    assert not await engine.logs("nobody", 10), "the log of an unknown container is empty"
    return container


async def _check_exit(engine: Engine, spec: ContainerSpec) -> None:
    await launch(engine, spec)

    async def has_exited() -> bool:
        container = await _find(engine, spec.id)
        assert container is not None, "an exited container is observed until it is stopped"
        return container.phase == "exited"

    await _wait_for(has_exited, "an exit is observed")
    container = await _find(engine, spec.id)
    assert container is not None
    assert container.exit_reason == "exited with 3", f"an exit has its reason, not {container.exit_reason!r}"
    assert container.exited_at is not None, "an exit has its time"
    assert container.exited_at >= container.started_at, "an exit comes after the start"
    before = await engine.logs(spec.id, 100)
    await stop(engine, spec.id)
    assert await _find(engine, spec.id) is None, "a stopped container is forgotten"
    again = await launch(engine, replace(spec, resolved_image=container.resolved_image))
    assert again.started_at > container.started_at, "what was stopped can be launched again"
    assert again.resolved_image == container.resolved_image, "a pinned image stays what it is"
    await _wait_for(has_exited, "its exit is observed too")
    await stop(engine, spec.id)
    lines = await engine.logs(spec.id, 100)
    assert list(lines[: len(before)]) == list(before), "what it wrote stays, in order, and what comes next follows"
    news = sorted(lines[len(before) :])
    assert news, "what it wrote until its end is in the log"
    assert news == sorted(before[-len(news) :]), "once, as it was the first time"


async def _check_adopted(engine: Engine, first: Container) -> None:
    adopted = await _find(engine, first.id)
    assert adopted is not None, "containers outlive the engine object"
    assert adopted.phase == "running", "and run on"
    assert (adopted.host, adopted.port, adopted.started_at) == (first.host, first.port, first.started_at)
    assert adopted.deployment == first.deployment, "an adopted container knows its deployment"


async def _check_usage(engine: Engine, first: Container) -> None:
    if not isinstance(engine, Meters):
        return
    used = (await engine.usage())[first.id]
    assert 0 <= used.cpu_seconds <= (await engine.usage())[first.id].cpu_seconds, "CPU time grows"
    assert 0 < used.memory <= used.memory_limit, "a container that runs has memory, within its limit"
    assert 0 <= used.disk_percent <= 100, "a disk is so many percent full"


async def _check_sockets(engine: Engine, first: Container) -> None:
    if not isinstance(engine, ShowsSockets):
        return
    for place in await engine.listens(first.id):
        assert 0 < int(place.rpartition(":")[2]) < 65536, f"where a container listens has a port: {place}"
    assert not await engine.listens("nobody"), "an unknown container listens nowhere"


async def _check_stop(engine: Engine, first: Container) -> None:
    await stop(engine, first.id)
    assert await _find(engine, first.id) is None, "a stopped container is forgotten"
    assert await engine.logs(first.id, 10), "logs stay after a stop"
    await stop(engine, first.id)
    await stop(engine, "nobody")
