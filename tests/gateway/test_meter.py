"""The gateway's counters: AWS's semantics, exactly once over every kind of absence, bounded meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from clary.core.metrics import CLARY, INVOCATIONS, Delivery, Point, Statistics, bucket, middle, series
from clary.core.routing import EndpointRoute, Hop, RouteTable, Target, VariantRoute
from clary.gateway import background, meter
from clary.gateway.meter import Answered, Concurrency, Meter, MeterFeed, Snapshot, Successes

FINE = Answered(200, False, 0.012, 0.0004, 2)


def by_name(points: list[Point], *names: str) -> dict[str, Statistics]:
    found = {point.series: point.statistics for point in points}
    return {of.name: statistics for of, statistics in found.items() if tuple(dict(of.dimensions).values()) == names}


def counted(*answers: Answered) -> dict[str, Statistics]:
    counter = Meter()
    for answer in answers:
        counter.count("e", "v", answer)
    return by_name(counter.take(), "e", "v")


def test_an_invocation_counts_in_each_of_awss_metrics() -> None:
    found = counted(FINE)
    assert {name: (s.count, s.sum) for name, s in found.items() if "Latency" not in name} == {
        "Invocations": (1, 1.0),
        "Invocation4XXErrors": (1, 0.0),
        "Invocation5XXErrors": (1, 0.0),
        "InvocationModelErrors": (1, 0.0),
        "InvocationsPerInstance": (1, 0.5),
    }
    assert (found["ModelLatency"].sum, found["OverheadLatency"].sum) == (pytest.approx(12_000), pytest.approx(400))


@pytest.mark.parametrize(
    ("answer", "errors"),
    [
        (Answered(400, False, 0.0, 0.001, 1), (1, 0, 0)),
        (Answered(424, True, 0.1, 0.001, 1), (1, 0, 1)),
        (Answered(503, False, 0.0, 0.001, 1), (0, 1, 0)),
        (Answered(500, True, 0.1, 0.001, 1), (0, 1, 1)),
        (Answered(200, False, 0.1, 0.001, 1), (0, 0, 0)),
    ],
)
def test_errors_are_0_or_1_for_each_request(answer: Answered, errors: tuple[int, int, int]) -> None:
    found = counted(answer, FINE)
    names = ("Invocation4XXErrors", "Invocation5XXErrors", "InvocationModelErrors")
    assert tuple(found[name].sum for name in names) == errors
    assert all(found[name].count == 2 and found[name].minimum == 0 for name in names)
    assert found["Invocations"].sum == 2  # failed ones included


def test_what_no_container_was_asked_for_has_no_model_latency() -> None:
    found = counted(Answered(503, False, 0.0, 0.001, 0))
    assert "ModelLatency" not in found
    assert "InvocationsPerInstance" not in found
    assert found["OverheadLatency"].count == 1


def test_more_than_a_batch_is_counted_in_full() -> None:
    found = counted(*[Answered(200, False, 0.001 * number, 0.001, 1) for number in range(1, 1301)])
    latency = found["ModelLatency"]
    assert (latency.count, latency.minimum, latency.maximum) == (1300, 1000, pytest.approx(1_300_000))
    assert latency.percentile(50) == pytest.approx(650_000, rel=0.011)
    assert latency.percentile(99) == pytest.approx(1_287_000, rel=0.011)


def test_what_somebody_else_has_added_up_counts_like_what_came_one_by_one() -> None:
    told, model, overhead = Meter(), Statistics(), Statistics()
    for _ in range(3):
        model.add(12_000.0)
        overhead.add(400.0)
    told.ask(lambda: [Successes(("e", "v", ""), {2: 3}, model, overhead)])
    told.count("e", "v", FINE)
    assert by_name(told.take(), "e", "v") == counted(FINE, FINE, FINE, FINE)


def test_a_container_that_is_invoked_by_its_name_has_series_of_its_own() -> None:
    counter = Meter()
    counter.count("e", "v", FINE)
    counter.count("e", "v", FINE, "second")
    counter.container("e", "v", "second", 0.25)
    points = counter.take()
    assert {p.series.name for p in points if "second" in dict(p.series.dimensions).values()} == {
        "Invocations", "Invocation4XXErrors", "Invocation5XXErrors", "OverheadLatency", "ContainerLatency",
    }  # fmt: skip
    (latency,) = (p.statistics for p in points if p.series.name == "ContainerLatency")
    assert latency.sum == 250_000
    assert by_name(points, "e", "v")["Invocations"].sum == 1


def test_points_are_of_the_minute_in_which_the_counting_was() -> None:
    clock = [119.9]
    counter = Meter(lambda: clock[0])
    counter.count("e", "v", FINE)
    clock[0] = 120.0
    assert {point.start for point in counter.take()} == {60}
    counter.count("e", "v", FINE)
    assert {point.start for point in counter.take()} == {120}


def test_nothing_is_taken_twice() -> None:
    counter = Meter()
    counter.count("e", "v", FINE)
    counter.dropped("capture", 3)
    assert counter.take()
    assert counter.take() == []


def test_counting_costs_next_to_nothing() -> None:
    counter, answers = Meter(), [Answered(200, False, 0.01 + n * 1e-6, 0.0004, 1) for n in range(5120)]

    def cost() -> float:
        begun = time.process_time()
        for answer in answers:
            counter.count("e", "v", answer)
        return (time.process_time() - begun) / len(answers)

    # Ten times what it takes, for the slowest machine, which has as many attempts as it may need to be left alone once:
    # it is to fail for a regular expression or a lock in the way.
    assert any(cost() < 15e-6 for _ in range(200))


@pytest.mark.parametrize("value", [1e-9, 0.5, 1.0, 17.0, 123_456.0, 2.0**350])
def test_a_buckets_middle_is_within_a_hundredth(value: float) -> None:
    assert middle(bucket(value)) == pytest.approx(value, rel=0.01)
    assert middle(bucket(-value)) == pytest.approx(-value, rel=0.01)
    assert bucket(0.0) == 0 == middle(0)


def test_many_values_at_once_are_the_same_as_one_by_one() -> None:
    values = [1.02**number * sign for number in range(-300, 300) for sign in (1, -1)] + [0.0, 0.0, 7.0, 7.0]
    one_by_one, at_once = Statistics(), Statistics()
    for value in values:
        one_by_one.add(value)
    at_once.extend(values)
    assert at_once.histogram == one_by_one.histogram
    assert (at_once.count, at_once.minimum, at_once.maximum) == (len(values), min(values), max(values))


def test_concurrency_is_by_variant_and_follows_the_table() -> None:
    def table(*targets: str) -> RouteTable:
        hops = (Hop("c", "127.0.0.1", 1),)
        variant = VariantRoute("v", 1.0, tuple(Target(id, hops) for id in targets))
        shadow = VariantRoute("s", 1.0, (Target("shadowed", hops),))
        return RouteTable(1, {"e": EndpointRoute("e", "InService", (variant,), (shadow,))})

    concurrency = Concurrency()
    load = {"a": 2, "b": 3, "shadowed": 1, "gone": 9}
    assert concurrency.of(table("a", "b"), load) == {("e", "v"): 5, ("e", "s"): 1}
    assert concurrency.of(table("a"), load) == {("e", "v"): 2, ("e", "s"): 1}


# Delivery


class ControlPlane:
    """Takes deliveries, or does what it is told instead."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.taken: list[Delivery] = []
        self.status = 200
        self.answers = True
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post(meter.PATH, self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.socket)).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        document: Any = json.loads(await request.read())
        self.taken.append(Delivery.from_json(document))
        if not self.answers:
            assert request.transport is not None
            request.transport.abort()  # as a process does that is killed after its write
        return web.Response(status=self.status)


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    here = ControlPlane(tmp_path / "control.sock")
    await here.start()
    yield here
    await here.stop()


@pytest.fixture
async def session(control: ControlPlane) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.UnixConnector(str(control.socket))
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


def feed(counter: Meter, control: ControlPlane) -> MeterFeed:
    return MeterFeed(counter, lambda: Snapshot({"requests_under_way": 1.0}, {("e", "v"): 1}), control.socket)


async def test_a_delivery_has_points_and_the_moment(control: ControlPlane, session: aiohttp.ClientSession) -> None:
    counter = Meter()
    numbers = feed(counter, control)
    counter.count("e", "v", FINE)
    await numbers.collect()
    assert await numbers.deliver(session)
    (taken,) = control.taken
    assert (taken.number, taken.gauges, taken.concurrency) == (1, {"requests_under_way": 1.0}, [("e", "v", 1)])
    assert by_name(list(taken.points), "e", "v")["Invocations"].sum == 1


async def test_who_has_nothing_new_to_say_is_silent(control: ControlPlane, session: aiohttp.ClientSession) -> None:
    numbers = feed(Meter(), control)
    for _ in range(3):
        assert await numbers.deliver(session)
    assert len(control.taken) == 1


async def test_what_was_not_acknowledged_is_sent_again_as_it_was(
    control: ControlPlane, session: aiohttp.ClientSession
) -> None:
    counter = Meter()
    numbers = feed(counter, control)
    counter.count("e", "v", FINE)
    await numbers.collect()
    control.answers = False
    assert not await numbers.deliver(session)
    control.answers = True
    counter.count("e", "v", FINE)
    await numbers.collect()
    assert await numbers.deliver(session)
    assert await numbers.deliver(session)
    assert [delivery.number for delivery in control.taken] == [1, 1, 2]
    sums = [by_name(list(each.points), "e", "v")["Invocations"].sum for each in control.taken]
    assert sums == [1, 1, 1]  # what came in between is not in what is repeated


async def test_nothing_is_lost_while_the_control_plane_is_away(control: ControlPlane, tmp_path: Path) -> None:
    clock = [60.0]
    counter = Meter(lambda: clock[0])
    numbers = feed(counter, control)
    await control.stop()
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(control.socket))) as session:
        for second in range(180):
            clock[0] = 60.0 + second
            counter.count("e", "v", FINE)
            await numbers.collect()
            if second % 60 == 0:
                assert not await numbers.deliver(session)
        await control.start()
        assert await numbers.deliver(session)
        assert await numbers.deliver(session)
    points = [point for delivery in control.taken for point in delivery.points if point.series.name == "Invocations"]
    assert sum(point.statistics.sum for point in points) == 180
    assert len(points) <= 5  # minutes, not seconds


async def test_what_is_kept_is_bounded_and_what_is_given_up_is_counted(
    control: ControlPlane, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "MOST_WAITING", 20)
    clock = [60.0]
    counter = Meter(lambda: clock[0])
    numbers = feed(counter, control)
    for minute in range(1, 10):
        counter.count("e", "v", FINE)
        clock[0] = 60.0 * (minute + 1)
        await numbers.collect()
    await numbers.collect()
    assert await numbers.deliver(session)
    points = list(control.taken[0].points)
    assert len(points) <= 20
    assert max(point.start for point in points) >= 540  # the newest are kept
    dropped = [point for point in points if point.series == series(CLARY, "Dropped", "metrics")]
    assert sum(point.statistics.sum for point in dropped) > 0


async def test_a_delivery_of_many_numbers_lets_requests_through(
    control: ControlPlane, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "PIECE", 0.0)
    counter, turns = Meter(), 0
    numbers = feed(counter, control)
    for number in range(100):
        counter.count(f"e{number}", "v", FINE)

    async def request() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    asking = asyncio.create_task(request())
    await numbers.collect()
    assert turns >= 100
    before = turns
    assert await numbers.deliver(session)
    assert turns - before >= 100
    asking.cancel()
    (taken,) = control.taken
    assert len({point.series for point in taken.points}) == len(taken.points) == 700


async def test_what_was_being_taken_when_the_end_came_is_delivered(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "PIECE", 0.0)
    counter = Meter()
    numbers = feed(counter, control)
    for number in range(10):
        counter.count(f"e{number}", "v", FINE)
    taking = asyncio.create_task(numbers.collect())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    await numbers.finish()
    points = [point for delivery in control.taken for point in delivery.points]
    assert len({point.series for point in points}) == len(points) == 70


async def test_the_end_of_a_gateway_delivers_the_rest(control: ControlPlane) -> None:
    counter = Meter()
    numbers = feed(counter, control)
    counter.count("e", "v", FINE)
    await numbers.finish()
    assert [point.series.name for point in control.taken[0].points].count("Invocations") == 1


async def test_the_end_of_a_gateway_waits_for_nobody_who_is_away(control: ControlPlane) -> None:
    counter = Meter()
    numbers = feed(counter, control)
    counter.count("e", "v", FINE)
    await control.stop()
    async with asyncio.timeout(5):
        await numbers.finish()


async def test_what_can_never_be_taken_is_given_up(control: ControlPlane, session: aiohttp.ClientSession) -> None:
    counter = Meter()
    numbers = feed(counter, control)
    counter.count("e", "v", FINE)
    await numbers.collect()
    control.status = 400
    assert await numbers.deliver(session)
    control.status = 200
    await numbers.collect()
    assert await numbers.deliver(session)
    (dropped,) = control.taken[-1].points
    assert dropped.series == series(CLARY, "Dropped", "metrics")
    assert dropped.series.namespace != INVOCATIONS
