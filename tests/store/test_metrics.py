"""Metrics on real files: points add up, deliveries count once, what was acknowledged survives."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clary.core.metrics import Point, Selection, Series, Statistics
from clary.store.store import Store
from tests.stores import new_store

NOW = 1_700_000_040.0


def series(name: str = "Invocations", endpoint: str = "e", unit: str = "None") -> Series:
    return Series("AWS/SageMaker", name, (("EndpointName", endpoint), ("VariantName", "v")), unit)


def point(of: Series, start: int, *values: float) -> Point:
    statistics = Statistics()
    for value in values:
        statistics.add(value)
    return Point(of, start, statistics)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await new_store(tmp_path, lambda: NOW)
    yield store
    await store.close()


async def test_points_of_one_minute_add_up_whether_they_come_together_or_one_after_the_other(store: Store) -> None:
    assert await store.metrics.record([point(series(), 60, 1.0, 2.0), point(series(), 60, 4.0)])
    assert await store.metrics.record([point(series(), 60, 8.0), point(series(), 120, 16.0)])
    first, second = await store.metrics.points(series(), 0, 1000)
    assert (first.start, second.start) == (60, 120)
    s = first.statistics
    assert (s.count, s.sum, s.minimum, s.maximum) == (4, 15.0, 1.0, 8.0)
    assert sorted(s.histogram.values()) == [1, 1, 1, 1]


async def test_a_span_has_its_start_and_not_its_end(store: Store) -> None:
    await store.metrics.record([point(series(), at, 1.0) for at in (60, 120, 180)])
    assert [found.start for found in await store.metrics.points(series(), 60, 180)] == [60, 120]


async def test_a_delivery_that_comes_twice_counts_once(store: Store) -> None:
    delivery = [point(series(), 60, 1.0)]
    assert await store.metrics.record(delivery, "gateway-a", 1)
    assert not await store.metrics.record(delivery, "gateway-a", 1)
    assert await store.metrics.record(delivery, "gateway-b", 1)
    assert await store.metrics.record(delivery, "gateway-a", 2)
    (found,) = await store.metrics.points(series(), 0, 1000)
    assert found.statistics.count == 3


async def test_more_points_than_one_statement_takes(store: Store) -> None:
    await store.metrics.record([point(series(endpoint=f"e{number}"), 60, 1.0) for number in range(1001)])
    rows = await store.metrics.series(Selection(), 0, 2000)
    assert len(rows) == 1001
    (last,) = await store.metrics.points(series(endpoint="e1000"), 0, 100)
    assert last.statistics.count == 1


async def test_series_are_found_by_namespace_name_and_dimensions(store: Store) -> None:
    tricky = Series("Mine", "M", (("EndpointName", '["EndpointName","e"]'), ("Other", "é")))
    found = [series(), series("ModelLatency", unit="Microseconds"), series(endpoint="f"), tricky]
    await store.metrics.record([point(each, 60, 1.0) for each in found])

    async def select(*arguments: object) -> list[Series]:
        return [each for _, each in await store.metrics.series(Selection(*arguments), 0, 100)]  # type: ignore[arg-type]

    assert await select() == found
    assert await select("Mine") == [tricky]
    assert await select(None, "ModelLatency") == [found[1]]
    assert await select(None, None, (("EndpointName", "e"),)) == found[:2]
    assert await select(None, None, (("VariantName", None), ("EndpointName", "f"))) == [found[2]]
    assert await select(None, None, (("Other", "é"),)) == [tricky]
    assert await select(None, None, (("Endpoint", None),)) == []


async def test_series_come_in_pages_and_by_activity(store: Store) -> None:
    await store.metrics.record([point(series(endpoint="old"), 60, 1.0), point(series(endpoint="new"), 6000, 1.0)])
    ((first, old),) = await store.metrics.series(Selection(), 0, 1)
    assert old == series(endpoint="old")
    ((_, new),) = await store.metrics.series(Selection(), first, 1)
    assert new == series(endpoint="new")
    assert [each for _, each in await store.metrics.series(Selection(active_since=6000), 0, 9)] == [new]


async def test_pruning_takes_old_points_and_series_without_any(store: Store) -> None:
    old, both = series(endpoint="old"), series(endpoint="both")
    await store.metrics.record([point(old, 60, 1.0), point(both, 60, 1.0), point(both, 6000, 1.0)])
    await store.metrics.prune(6000)
    assert [each for _, each in await store.metrics.series(Selection(), 0, 9)] == [both]
    assert [found.start for found in await store.metrics.points(both, 0, 10_000)] == [6000]
    await store.metrics.record([point(old, 6060, 1.0)])
    assert [found.start for found in await store.metrics.points(old, 0, 10_000)] == [6060]


async def test_pruning_many_points_takes_several_rounds(store: Store) -> None:
    await store.metrics.record([point(series(), 60 * number, 1.0) for number in range(6001)])
    await store.metrics.prune(60 * 6000)
    assert [found.start for found in await store.metrics.points(series(), 0, 60 * 7000)] == [60 * 6000]


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from clary.core.metrics import Point, Series, Statistics
from clary.store.store import Store

async def main():
    store = await Store.open(Path(sys.argv[1]))
    statistics = Statistics()
    statistics.add(7.0)
    await store.metrics.record([Point(Series("N", "m", ()), 60, statistics)], "gateway", 1)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "clary.db"
    done = subprocess.run([sys.executable, "-c", KILLED, str(file)], capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    store = await Store.open(file)
    (found,) = await store.metrics.points(Series("N", "m", ()), 0, 100)
    assert found.statistics.sum == 7.0
    assert not await store.metrics.record([found], "gateway", 1)
    await store.close()
