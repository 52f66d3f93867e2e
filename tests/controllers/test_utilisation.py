"""CPU, memory and disk of instances, in AWS's percentages."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from clary.controllers.utilisation import INTERVAL, Utilisation
from clary.core.containers import Container, Usage
from clary.core.metrics import Point
from clary.errors import Transient
from clary.testing import in_virtual_time, now

GIB = 1024**3


def container(id: str, instance: str = "i-1", variant: str = "v") -> Container:
    return Container(id, "e", variant, instance, "d", "running", "127.0.0.1", 1, 0.0)


class Engine:
    """Says what it is told."""

    def __init__(self, *containers: Container) -> None:
        self.containers = containers
        self.used: dict[str, Usage] = {}
        self.trouble: Exception | None = None

    async def observe(self) -> Sequence[Container]:
        return self.containers

    async def usage(self) -> Mapping[str, Usage]:
        if self.trouble is not None:
            raise self.trouble
        return self.used


def measured(engine: Engine) -> tuple[Utilisation, list[Point]]:
    points: list[Point] = []

    async def record(found: Sequence[Point]) -> None:
        points.extend(found)

    return Utilisation(engine, record, now), points


def values(points: Sequence[Point]) -> dict[str, float]:
    assert all(point.start % 60 == 0 for point in points)
    return {point.series.name: point.statistics.sum for point in points}


@in_virtual_time
async def test_cpu_is_the_sum_over_cores_between_two_looks() -> None:
    engine = Engine(container("a"))
    utilisation, points = measured(engine)
    engine.used = {"a": Usage(10.0, GIB, 4 * GIB, 50.0)}
    await utilisation.measure()
    assert values(points) == {"MemoryUtilization": 25.0, "DiskUtilization": 50.0}
    points.clear()
    await asyncio.sleep(10)
    engine.used = {"a": Usage(35.0, GIB, 4 * GIB, 50.0)}
    await utilisation.measure()
    assert values(points)["CPUUtilization"] == pytest.approx(250.0)


@in_virtual_time
async def test_the_containers_of_an_instance_count_together_and_instances_apart() -> None:
    engine = Engine(container("a"), container("b"), container("c", "i-2"))
    utilisation, points = measured(engine)
    engine.used = {id: Usage(0.0, GIB, 4 * GIB, 10.0) for id in "abc"}
    await utilisation.measure()
    (memory,) = (point.statistics for point in points if point.series.name == "MemoryUtilization")
    assert (memory.count, memory.minimum, memory.maximum) == (2, 25.0, 50.0)


@in_virtual_time
async def test_a_process_that_took_its_time_with_it_makes_no_negative_number() -> None:
    engine = Engine(container("a"))
    utilisation, points = measured(engine)
    for seconds in (10.0, 4.0):
        engine.used = {"a": Usage(seconds, GIB, GIB, 0.0)}
        await utilisation.measure()
        await asyncio.sleep(10)
    assert values(points)["CPUUtilization"] == 0.0


@in_virtual_time
async def test_what_is_not_measured_is_not_told() -> None:
    utilisation, points = measured(Engine(container("a")))
    await utilisation.measure()
    assert points == []


@in_virtual_time
async def test_trouble_passes() -> None:
    engine = Engine(container("a"))
    utilisation, points = measured(engine)
    running = asyncio.create_task(utilisation.run())
    for trouble in (Transient("not now"), OSError("by mistake"), None):
        engine.trouble, engine.used = trouble, {"a": Usage(1.0, GIB, GIB, 0.0)}
        await asyncio.sleep(INTERVAL)
    await asyncio.sleep(1)
    assert points
    running.cancel()
