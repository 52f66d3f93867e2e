"""The hands of the endpoint controller: launches and stops that go on in the background, and what can be seen of
every container meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from typing import TypeVar

from clary.controllers.health import Prober
from clary.controllers.routes import key_of
from clary.core.containers import Container, ContainerSpec
from clary.core.deployment import GraceKind, LaunchFailed, Launching, Present, Sighting, Stopping
from clary.core.ports import Engine, ShowsSockets
from clary.core.resources import ENDPOINT
from clary.errors import DiskFull, LaunchFailure, Transient
from clary.telemetry import logger

LOG_LINES = 20
PROGRESS_PAUSE = 1.0
"""Shortest time between two notifications about a launch's progress, in seconds: each may end in a database write."""
CANCEL_PATIENCE = 5.0
"""Seconds that a cancelled launch may take to clean up."""
STOP_PATIENCE = 30.0
"""Seconds beyond the grace after which a stop counts as failed."""
STOP_RETRY = 1.0
"""Seconds before a failed stop is planned again."""


@dataclass(slots=True, eq=False)
class _Launch:
    key: str
    since: float
    progress: str = ""
    told_at: float = 0.0
    task: asyncio.Task[None] | None = None


@dataclass(slots=True, eq=False)
class _Stop:
    key: str
    grace: GraceKind
    task: asyncio.Task[None] | None = None


_Work = TypeVar("_Work", _Launch, _Stop)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a fleet needs from its controller."""

    clock: Callable[[], float]
    notify: Callable[[str], None]
    """Told the key of an endpoint of which something has changed."""
    before_stop: Callable[[], Awaitable[None]]
    """Returns once no gateway sends anything new to what left the routes."""
    kind: str = ENDPOINT.name
    """Of the resources that its containers run for: those of others are not its business."""


class Fleet:
    """Starts, watches and stops containers, each in a task of its own."""

    def __init__(self, engine: Engine, prober: Prober, around: Surroundings) -> None:
        self._engine = engine
        self._prober = prober
        self._around = around
        self._keys: dict[str, str] = {}
        self._launches: dict[str, _Launch] = {}
        self._failed: dict[str, LaunchFailed] = {}
        self._stops: dict[str, _Stop] = {}
        self._log = logger("fleet")

    def endpoint_of(self, id: str) -> str | None:
        """Give the key of a container's endpoint, if the container was ever seen."""
        return self._keys.get(id)

    async def endpoints(self) -> set[str]:
        """Give the keys of all endpoints that something runs for."""
        return {key_of(container.endpoint) for container in await self._observe()}

    async def _observe(self) -> list[Container]:
        return [container for container in await self._engine.observe() if container.kind == self._around.kind]

    async def sightings(self, key: str, ready: Collection[str], *, with_logs: bool) -> dict[str, Sighting]:
        """Look at all containers of an endpoint. `ready` are those that were; `with_logs`: for the others."""
        # Tasks first, the engine second: what ends in between is seen as still under way, and ending notifies.
        tasks: dict[str, Sighting] = {
            id: Launching(launch.since, launch.progress) for id, launch in self._launches.items() if launch.key == key
        }
        tasks |= {id: Stopping(stop.grace) for id, stop in self._stops.items() if stop.key == key}
        seen: dict[str, Sighting] = {id: it for id, it in self._failed.items() if self._keys[id] == key}
        for container in await self._observe():
            if key_of(container.endpoint) == key and container.id not in tasks:
                self._keys[container.id] = key
                was_ready = container.id in ready
                found = self._look(container, was_ready)
                seen[container.id] = await self._explained(found) if with_logs and not was_ready else found
        for id in [id for id, owner in self._keys.items() if owner == key]:
            if not isinstance(seen.get(id), Present):
                self._prober.forget(id)
        return seen | tasks

    def _look(self, container: Container, was_ready: bool) -> Present:
        if container.phase == "exited":
            self._prober.forget(container.id)
            return Present(container)
        return Present(container, self._prober.watch(container, was_ready=was_ready))

    async def _explained(self, seen: Present) -> Present:
        """Add what may explain why a container does not answer."""
        id = seen.container.id
        return replace(seen, log=await self._logs(id), listens=await self._listens(id) if seen.is_unheard else ())

    async def _listens(self, id: str) -> tuple[str, ...]:
        return tuple(await self._engine.listens(id)) if isinstance(self._engine, ShowsSockets) else ()

    def launch(self, spec: ContainerSpec) -> None:
        """Begin to launch; idempotent."""
        if spec.id in self._launches:
            return
        self._failed.pop(spec.id, None)
        key = self._keys[spec.id] = key_of(spec.endpoint)
        launch = self._launches[spec.id] = _Launch(key, self._around.clock())
        launch.task = asyncio.create_task(self._launch(spec, launch), name=f"launch {spec.id}")
        launch.task.add_done_callback(lambda _: self._end(self._launches, spec.id, launch))

    def stop(self, id: str, grace: GraceKind, seconds: float) -> None:
        """Begin to stop, a launch under way included. A shorter grace replaces a longer one."""
        before = self._stops.get(id)
        if before is not None and before.task is not None:
            before.task.cancel()
        self._prober.forget(id)
        stop = self._stops[id] = _Stop(self._keys[id], grace)
        stop.task = asyncio.create_task(self._stop(id, seconds), name=f"stop {id}")
        stop.task.add_done_callback(lambda _: self._end(self._stops, id, stop))

    def forget(self, key: str) -> None:
        """Drop what is remembered of an endpoint that is gone."""
        for id in [id for id, owner in self._keys.items() if owner == key]:
            self._failed.pop(id, None)
            if id not in self._launches and id not in self._stops:
                del self._keys[id]

    async def close(self) -> None:
        """Let go: launches are cancelled and leave nothing behind, containers run on."""
        works: list[_Launch | _Stop] = [*self._launches.values(), *self._stops.values()]
        tasks = [work.task for work in works if work.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._prober.close()

    async def _logs(self, id: str) -> tuple[str, ...]:
        try:
            return tuple(await self._engine.logs(id, LOG_LINES))
        except Exception:  # an explanation without its log is better than no explanation
            self._log.exception("cannot read a log", container=id)
            return ()

    async def _launch(self, spec: ContainerSpec, launch: _Launch) -> None:
        def progress(text: str) -> None:
            launch.progress, now = text, self._around.clock()
            if now - launch.told_at >= PROGRESS_PAUSE:
                launch.told_at = now
                self._around.notify(launch.key)

        try:
            await self._engine.launch(spec, progress)
        except LaunchFailure as error:
            await self._note_failure(spec.id, error.step, error.message)
        except DiskFull as error:
            await self._note_failure(spec.id, "download", error.message, transient=True)
        except Transient as error:
            await self._note_failure(spec.id, "launch", error.message, transient=True)
        except Exception as error:
            self._log.exception("launching failed unexpectedly", endpoint=spec.endpoint, container=spec.id)
            await self._note_failure(spec.id, "create", f"{type(error).__name__}: {error}")

    async def _note_failure(self, id: str, step: str, message: str, *, transient: bool = False) -> None:
        log = await self._logs(id)
        self._failed[id] = LaunchFailed(self._around.clock(), step, message, transient, log)

    async def _stop(self, id: str, seconds: float) -> None:
        try:
            launch = self._launches.get(id)
            if launch is not None and launch.task is not None:
                launch.task.cancel()
                _, late = await asyncio.wait({launch.task}, timeout=CANCEL_PATIENCE)
                if late:
                    self._log.warning("a cancelled launch does not end", container=id)
            await self._around.before_stop()
            async with asyncio.timeout(seconds + STOP_PATIENCE):
                await self._engine.stop(id, seconds)
        except Transient as trouble:
            self._log.warning("cannot stop now; trying again", container=id, reason=trouble.message)
            await asyncio.sleep(STOP_RETRY)  # still counted as stopping: no hot loop
        except Exception:
            self._log.exception("stopping failed; trying again", container=id)
            await asyncio.sleep(STOP_RETRY)

    def _end(self, works: dict[str, _Work], id: str, work: _Work) -> None:
        """Forget a task that is done. A callback of the task, for one that is cancelled at once runs no `finally`."""
        if works.get(id) is work:  # else a stop with another grace has taken its place
            del works[id]
            self._around.notify(work.key)
