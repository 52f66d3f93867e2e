"""CPU, memory and disk of the instances, looked at every ten seconds."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence

from clary.controllers.reservation import numbers
from clary.core.containers import Container, Usage
from clary.core.metrics import INSTANCES, MINUTE, TRANSFORMS, Point, Statistics, merged, series
from clary.core.occupancy import Occupied
from clary.core.ports import Meters
from clary.core.resources import TRANSFORM_JOB
from clary.errors import Transient
from clary.telemetry import logger

INTERVAL = 10.0


class Utilisation:
    """Measures instances: what the containers of one use together. `clock` gives seconds since the epoch."""

    def __init__(
        self,
        engine: Meters,
        record: Callable[[Sequence[Point]], Awaitable[None]],
        clock: Callable[[], float] = time.time,
        packed: Callable[[], Awaitable[Sequence[tuple[str, Occupied]]]] | None = None,
    ) -> None:
        """`packed` tells of the instances that components share, each with its endpoint."""
        self._engine = engine
        self._record = record
        self._clock = clock
        self._packed = packed
        self._before: dict[str, tuple[float, float]] = {}
        """CPU seconds of each container, and when (in the loop's time)."""

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self.measure()
            except Transient as trouble:
                logger("utilisation").warning("cannot measure now", reason=trouble.message)
            except Exception:  # numbers are no reason to end
                logger("utilisation").exception("measuring failed")

    async def measure(self) -> None:
        """Look once, and count what is seen. CPU time needs two looks."""
        usage = await self._engine.usage()
        now = asyncio.get_running_loop().time()
        packed = await self._packed() if self._packed is not None else ()
        shared = {instance.id for _, instance in packed}
        measured: dict[str, tuple[Usage, float | None]] = {}
        instances: defaultdict[tuple[tuple[str, ...], str], list[tuple[Usage, float | None]]] = defaultdict(list)
        before, self._before = self._before, {}
        for container in await self._engine.observe():
            if (used := usage.get(container.id)) is not None:
                cores = _cores(before.get(container.id), used, now)
                measured[container.id] = (used, cores)
                instances[_place(container), container.instance_id].append((used, cores))
                self._before[container.id] = (used.cpu_seconds, now)
        start = int(self._clock()) // MINUTE * MINUTE
        points = [
            Point(series(namespace, name, *dimensions), start, statistics)
            for ((namespace, *dimensions), id), found in instances.items()
            for name, statistics in _of_instance(found)
            if namespace == INSTANCES or name in _OF_TRANSFORMS
            # The limits of copies are not those of their instance.
            if id not in shared or name != "MemoryUtilization"
        ]
        for endpoint, instance in packed:
            points += [Point(of, start, _one(value)) for of, value in numbers(endpoint, instance, measured)]
        if points:
            await self._record(merged(points))


_OF_TRANSFORMS = ("CPUUtilization", "MemoryUtilization")


def _place(container: Container) -> tuple[str, ...]:
    """Give the namespace and the dimensions of an instance's numbers."""
    if container.kind == TRANSFORM_JOB.name:
        return TRANSFORMS, f"{container.endpoint}/{container.instance_id}"
    return INSTANCES, container.endpoint, container.variant


def _cores(before: tuple[float, float] | None, used: Usage, now: float) -> float | None:
    """Give how many cores were busy; None at the first look."""
    if before is None or now <= before[1]:
        return None
    # Less than before: a process of it has ended and nobody has its time any more.
    return max(0.0, used.cpu_seconds - before[0]) / (now - before[1])


def _of_instance(found: Sequence[tuple[Usage, float | None]]) -> list[tuple[str, Statistics]]:
    values = {
        "MemoryUtilization": 100.0
        * sum(used.memory for used, _ in found)
        / max(used.memory_limit for used, _ in found),
        "DiskUtilization": max(used.disk_percent for used, _ in found),
    }
    cores = [each for _, each in found if each is not None]
    if cores:
        values["CPUUtilization"] = 100.0 * sum(cores)
    statistics = []
    for name, value in values.items():
        statistics.append((name, _one(value)))
    return statistics


def _one(value: float) -> Statistics:
    one = Statistics()
    one.add(value)
    return one
