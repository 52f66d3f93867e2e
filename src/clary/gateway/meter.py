"""The gateway's counters: what each invocation adds, and how it gets to the control plane.

Counting is on the hot path, so it only writes down; adding up is done for many at once, mostly by loops in C. Once a
second what was counted becomes points of the minute that it was counted in and is delivered. Deliveries are numbered,
and one that was not acknowledged is sent again as it was, so that everything counts exactly once. While the control
plane is away, seconds of one minute melt into one point: an hour of absence is sixty points for each series.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import aiohttp

from clary.core.metrics import (
    CLARY,
    INVOCATIONS,
    MINUTE,
    Delivery,
    Point,
    Series,
    Statistics,
    series,
)
from clary.core.routing import RouteTable
from clary.gateway.background import Pieces
from clary.telemetry import logger

PATH = "/_clary/metrics"
"""Where deliveries go, on the control plane's socket."""
INTERVAL = 1.0
SHARE = 10.0
"""A delivery that takes a second is followed by the next ten seconds later: the control plane has other work."""
HEARTBEAT = 10.0
"""Seconds after which a gateway that counted nothing says that it is there all the same."""
MOST_WAITING = 50_000
"""Points that are kept for a control plane that is away; beyond that the oldest minute is given up."""
_LAST_DELIVERY = 2.0
"""Seconds that the end of a gateway waits for its numbers to be taken."""

_BATCH = 512
"""Answers that are added up at once, in a third of a millisecond."""
_MICROS = 1e6
_Key = tuple[str, str, str]
"""Endpoint, variant, and the container that was invoked by its name, else empty. Of an inference component, its name
alone, in the last place."""


class Answered(NamedTuple):
    """How one invocation ended."""

    status: int
    """The container's; 500 for one that gave no answer, and that of the answer to the client where none was asked."""
    model_failed: bool
    """The container gave no 2xx answer."""
    model_seconds: float
    """The containers' time; 0.0 where none was asked."""
    overhead_seconds: float
    active_instances: int


class Successes(NamedTuple):
    """What somebody else has added up of invocations that the containers answered with 200. In microseconds."""

    whose: _Key
    instances: Mapping[int, int]
    """Invocations by how many instances were active."""
    model: Statistics
    overhead: Statistics


class _Tally:
    """What was counted of one variant, or of one container of it. Latencies in microseconds."""

    def __init__(self) -> None:
        self.invocations = self.client_errors = self.server_errors = self.model_errors = 0
        self.instances: Counter[int] = Counter()
        """Invocations by how many instances were active."""
        self.model = Statistics()
        self.overhead = Statistics()

    def add(self, answers: Sequence[Answered]) -> None:
        statuses, failures, model, overhead, instances = zip(*answers, strict=True)
        self.invocations += len(answers)
        self.client_errors += sum(400 <= status < 500 for status in statuses)
        self.server_errors += sum(status >= 500 for status in statuses)
        self.model_errors += sum(failures)
        self.instances.update(instances)
        self.model.extend(seconds * _MICROS for seconds in model if seconds > 0.0)
        self.overhead.extend(seconds * _MICROS for seconds in overhead)

    def succeeded(self, told: Successes) -> None:
        self.invocations += sum(told.instances.values())
        self.instances.update(told.instances)
        self.model.merge(told.model)
        self.overhead.merge(told.overhead)


class _Counted:
    """What was counted since numbers were taken last."""

    def __init__(self) -> None:
        self.answers: dict[_Key, list[Answered]] = {}
        self.tallies: dict[_Key, _Tally] = {}
        self.seconds: dict[_Key, list[float]] = {}
        self.waits: dict[tuple[str, str], list[float]] = {}
        self.dropped: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        """For want of copies, by component."""

    def tally(self, key: _Key) -> None:
        self.tallies.setdefault(key, _Tally()).add(self.answers.pop(key))

    def points(self, start: int, told: Sequence[Successes]) -> Iterator[Point]:
        """Make the points of this and of what others have counted, one by one."""
        for each in told:
            self.tallies.setdefault(each.whose, _Tally()).succeeded(each)
        for key in self.answers.keys() - self.tallies.keys():
            self.tallies[key] = _Tally()
        for key, tally in self.tallies.items():
            if key in self.answers:
                tally.add(self.answers[key])
            yield from (Point(of, start, found) for of, found in _of_tally(key, tally))
        for names, values in self.seconds.items():
            latency = Statistics()
            latency.extend(each * _MICROS for each in values)
            yield Point(series(INVOCATIONS, "ContainerLatency", *names), start, latency)
        for variant, waits in self.waits.items():
            yield from (Point(of, start, found) for of, found in _of_waits(variant, waits))
        for component, number in self.refused.items():
            of = series(INVOCATIONS, "NoCapacityInvocationFailures", component)
            yield Point(of, start, _repeated({1.0: number}))
        for kind, number in self.dropped.items():
            yield Point(series(CLARY, "Dropped", kind), start, _repeated({float(number): 1}))


class Meter:
    """Counts. For one thread; `now` gives seconds since the epoch."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._sources: list[Callable[[], list[Successes]]] = []
        self._start = self._minute()
        self._counted = _Counted()

    def count(self, route: str, variant: str, answer: Answered, container: str = "") -> None:
        """Count an invocation, under AWS's names of endpoint and variant.

        `container`: the one that was invoked by its name, whose own series this is for; call it again without for the
        variant's.
        """
        key = (route, variant, container)
        answers = self._counted.answers.get(key)
        if answers is None:
            answers = self._counted.answers[key] = []
        answers.append(answer)
        if len(answers) >= _BATCH:
            self._counted.tally(key)

    def component(self, name: str, answer: Answered, *, has_capacity: bool) -> None:
        """Count an invocation of an inference component; without capacity it was refused, for there are no copies."""
        self.count("", "", answer, name)
        if not has_capacity:
            self._counted.refused[name] += 1

    def ask(self, source: Callable[[], list[Successes]]) -> None:
        """Have somebody asked, whenever numbers are taken, for what he has counted since the last time."""
        self._sources.append(source)

    def container(self, route: str, variant: str, container: str, seconds: float) -> None:
        """Count the answer of one container of a pipeline (ContainerLatency)."""
        self._counted.seconds.setdefault((route, variant, container), []).append(seconds)

    def model(self, route: str, variant: str, waited: float) -> None:
        """Count a request for one of many models, and the seconds for which it waited for it; 0.0: it was loaded."""
        self._counted.waits.setdefault((route, variant), []).append(waited)

    def dropped(self, kind: str, number: int = 1) -> None:
        """Count what was given up so that requests need not wait."""
        self._counted.dropped[kind] += number

    def take(self) -> list[Point]:
        """Give what was counted since the last time, as points of the minute in which that time was."""
        return list(self.drain())

    def drain(self) -> Iterator[Point]:
        """Give the same, made one by one; what is counted from now on belongs to the next time."""
        start, self._start = self._start, self._minute()
        counted, self._counted = self._counted, _Counted()
        return counted.points(start, [told for source in self._sources for told in source()])

    def _minute(self) -> int:
        return int(self._now()) // MINUTE * MINUTE


def _of_tally(key: _Key, tally: _Tally) -> Iterator[tuple[Series, Statistics]]:
    is_component = not key[0]
    names = key[2:] if is_component else key if key[2] else key[:2]

    def named(name: str) -> Series:
        return series(INVOCATIONS, name, *names)

    def flags(ones: int) -> Statistics:
        return _repeated({0.0: tally.invocations - ones, 1.0: ones})

    yield named("Invocations"), _repeated({1.0: tally.invocations})
    yield named("Invocation4XXErrors"), flags(tally.client_errors)
    yield named("Invocation5XXErrors"), flags(tally.server_errors)
    yield named("OverheadLatency"), tally.overhead
    if is_component or not key[2]:
        yield named("InvocationModelErrors"), flags(tally.model_errors)
        shares = {1.0 / active: number for active, number in tally.instances.items() if active > 0}
        if shares:
            yield named("InvocationsPerCopy" if is_component else "InvocationsPerInstance"), _repeated(shares)
        if tally.model.count:
            yield named("ModelLatency"), tally.model


def _of_waits(variant: tuple[str, str], waits: Sequence[float]) -> Iterator[tuple[Series, Statistics]]:
    missed = [seconds * _MICROS for seconds in waits if seconds]
    yield series(INVOCATIONS, "ModelCacheHit", *variant), _repeated({1.0: len(waits) - len(missed), 0.0: len(missed)})
    if missed:
        waited = Statistics()
        waited.extend(missed)
        yield series(INVOCATIONS, "ModelLoadingWaitTime", *variant), waited


def _repeated(values: dict[float, int]) -> Statistics:
    statistics = Statistics()
    for value, times in values.items():
        if times:
            statistics.add(value, times)
    return statistics


class Snapshot(NamedTuple):
    """What a gateway process is like at one moment."""

    gauges: dict[str, float]
    concurrency: dict[tuple[str, str], float]
    """Requests under way by endpoint and variant, shadows included."""


class Concurrency:
    """Counts requests by variant, where a gateway counts them by instance."""

    def __init__(self) -> None:
        self._table: RouteTable | None = None
        self._owners: dict[str, tuple[str, str]] = {}
        self._copies: dict[str, tuple[str, int]] = {}
        """The component of each of its copies, and how many there are."""

    def of(self, table: RouteTable, load: Mapping[str, int]) -> dict[tuple[str, str], float]:
        """Give the requests under way; those on instances that have left the table since count no more.

        Beside the variants' numbers those of components stand under no endpoint, divided by their copies.
        """
        if table is not self._table:
            self._table = table
            self._owners = {
                target.id: (route.name, variant.name)
                for each in table.endpoints.values()
                for route in (each, *(each.components or {}).values())
                if not route.adapter  # its targets are its base's
                for variant in (*route.variants, *route.shadows)
                for target in variant.targets
            }
            self._copies = {
                target.id: (route.component, len(variant.targets))
                for each in table.endpoints.values()
                for route in (each.components or {}).values()
                if not route.adapter
                for variant in route.variants
                for target in variant.targets
            }
        found: defaultdict[tuple[str, str], float] = defaultdict(int)
        for id, number in load.items():
            if (owner := self._owners.get(id)) is not None:
                found[owner] += number
            if (copy := self._copies.get(id)) is not None:
                found["", copy[0]] += number / copy[1]
        return dict(found)


class _Sent:
    """Points under the number that they keep, however often they are sent."""

    def __init__(self, number: int, points: Sequence[Point]) -> None:
        self.number = number
        self.points = points
        self._encoded: list[str] = []

    async def encoded(self, moment: Delivery) -> bytes:
        """Give the delivery as JSON; `moment` is all of it but the points."""
        pieces = Pieces()
        for point in self.points[len(self._encoded) :]:
            self._encoded.append(json.dumps(point.to_json()))
            await pieces.rest()
        rest = {name: value for name, value in moment.to_json().items() if name != "points"}
        return f"""{json.dumps(rest)[:-1]}, "points": [{", ".join(self._encoded)}]}}""".encode()


class MeterFeed:
    """Delivers a meter's numbers to the control plane."""

    def __init__(self, meter: Meter, snapshot: Callable[[], Snapshot], control_socket: Path) -> None:
        self._meter = meter
        self._snapshot = snapshot
        self._socket = control_socket
        self._source = uuid4().hex
        self._number = 0
        self._unacknowledged: _Sent | None = None
        self._taken: Iterator[Point] = iter(())
        """Taken from the meter, and not waiting yet."""
        self._waiting: dict[tuple[Series, int], Point] = {}
        self._last: tuple[Snapshot, float] = (Snapshot({}, {}), -math.inf)
        self._log = logger("meter")

    async def follow(self) -> None:
        """Deliver once a second, on the second, for ever; less often where the control plane has much to write."""
        loop = asyncio.get_running_loop()
        due = 0.0
        async with self._session() as session:
            while True:
                await asyncio.sleep(INTERVAL - time.time() % INTERVAL)
                await self.collect()
                if (begun := loop.time()) >= due:
                    await self.deliver(session)
                    due = begun + SHARE * (loop.time() - begun)

    async def finish(self) -> None:
        """Deliver what is left; at most two seconds long."""
        await self.collect()
        async with self._session() as session:
            try:
                async with asyncio.timeout(_LAST_DELIVERY):
                    while (self._unacknowledged or self._waiting) and await self.deliver(session):
                        continue
            except TimeoutError:
                self._log.warning("the last numbers were not delivered", points=len(self._waiting))

    async def collect(self) -> None:
        """Take what was counted, to be delivered."""
        self._taken = chain(self._taken, self._meter.drain())
        pieces = Pieces()
        for point in self._taken:
            before = self._waiting.setdefault((point.series, point.start), point)
            if before is not point:
                before.statistics.merge(point.statistics)
            await pieces.rest()
        while len(self._waiting) > MOST_WAITING:
            oldest = min(start for _, start in self._waiting)
            given_up = [key for key in self._waiting if key[1] == oldest]
            for key in given_up:
                del self._waiting[key]
            self._meter.dropped("metrics", len(given_up))

    async def deliver(self, session: aiohttp.ClientSession) -> bool:
        """Hand over what waits, if anything does or changed; False where the control plane did not take it."""
        snapshot = self._snapshot()
        now = asyncio.get_running_loop().time()
        if not (self._unacknowledged or self._waiting) and (
            snapshot == self._last[0] and now - self._last[1] < HEARTBEAT
        ):
            return True
        if self._unacknowledged is None:
            self._number += 1
            points, self._waiting = list(self._waiting.values()), {}
            self._unacknowledged = _Sent(self._number, points)
        sent = self._unacknowledged
        concurrency = [(*names, number) for names, number in snapshot.concurrency.items()]
        moment = Delivery(self._source, sent.number, (), snapshot.gauges, concurrency)
        try:
            async with session.post(f"http://control{PATH}", data=await sent.encoded(moment)) as answer:
                if answer.status >= 500:
                    return False
                if answer.status != 200:  # sending it again would change nothing
                    self._log.error("numbers were refused", status=answer.status, reason=await answer.text())
                    self._meter.dropped("metrics", len(sent.points))
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False
        self._unacknowledged = None
        self._last = (snapshot, now)
        return True

    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.UnixConnector(str(self._socket))
        return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=10))
