"""What gateways and the control plane itself count, on its way to the store and to Prometheus."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clary.core.metrics import (
    COMPONENT,
    INVOCATIONS,
    METRICS,
    VARIANT,
    Delivery,
    Point,
    Series,
    Statistics,
    series,
)
from clary.core.ports import MetricStore
from clary.errors import SerializationException
from clary.telemetry import logger

_log = logger("metrics")

TIDY = 3600.0
SILENCE = 30.0
"""Seconds after which a gateway process that says nothing, or an instance, is taken to be gone."""

_CONCURRENT = next(metric for metric in METRICS if metric.name == "ConcurrentRequestsPerModel")
_PER_COPY = next(metric for metric in METRICS if metric.name == "ConcurrentRequestsPerCopy")


@dataclass(slots=True)
class _Gateway:
    heard: float
    last: Delivery


class Ledger:
    """Takes what is counted. `clock` gives seconds since the epoch.

    Prometheus gets totals since this process began, which it knows how to read; the store keeps the minutes.
    """

    def __init__(self, store: MetricStore, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._gateways: dict[str, _Gateway] = {}
        self._totals: dict[Series, Statistics] = {}
        self._newest: dict[Series, tuple[float, float]] = {}
        """Values of gauges, and when they came."""
        self._sampled: dict[Series, Statistics] = {}
        self._sample_start = self._looks = 0

    async def take(self, document: Mapping[str, Any]) -> None:
        """Count a gateway's delivery, once. Raises SerializationException for what is none."""
        try:
            delivery = Delivery.from_json(document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SerializationException(f"This is no delivery of numbers: {error!r}") from error
        self._gateways[delivery.source] = _Gateway(self._clock(), delivery._replace(points=()))
        if delivery.points and await self._store.record(delivery.points, delivery.source, delivery.number):
            self._add(delivery.points)

    async def record(self, points: Sequence[Point]) -> None:
        """Count what the control plane measured by itself."""
        await self._store.record(points)
        self._add(points)

    async def run(self, retention: float, endpoints: Callable[[], Iterable[str]]) -> None:
        """Look once a second and tidy up once an hour, for ever; `retention` in seconds."""
        tidied = -math.inf
        while True:
            now = asyncio.get_running_loop().time()
            try:
                await self.sample()
                if now - tidied > TIDY:
                    tidied = now
                    await self._store.prune(int(self._clock() - retention))
                    self.keep(endpoints())
            except Exception:  # numbers are no reason to end; the next second tries again
                _log.exception("numbers could not be kept")
            await asyncio.sleep(1.0)

    async def sample(self) -> None:
        """Look at the requests under way, in all gateways together; to be called once a second.

        Each process knows its own share only, and shares of one moment add up where their means do not.
        """
        now = self._clock()
        start = int(now) // _CONCURRENT.resolution * _CONCURRENT.resolution
        if start != self._sample_start:
            await self.finish()
            self._sample_start = start
        self._forget_silent(now)
        self._looks += 1
        for names, number in self._concurrency().items():
            self._sampled.setdefault(_concurrent(*names), Statistics()).add(number)

    async def finish(self) -> None:
        """Record the samples of the span that is under way."""
        for found in self._sampled.values():
            if idle := self._looks - found.count:
                found.add(0.0, idle)  # seconds in which nothing was under way count too
        points = [Point(each, self._sample_start, found) for each, found in self._sampled.items()]
        self._sampled, self._looks = {}, 0
        if points:
            await self.record(points)

    def keep(self, owners: Iterable[str]) -> None:
        """Forget the totals of endpoints and components that are gone: Prometheus has what it wanted of them."""
        there = set(owners)
        for totals in (self._totals, self._newest):
            for each in [each for each in totals if _owner(each) not in (None, *there)]:
                del totals[each]

    def exposition(self) -> bytes:
        """Write everything in Prometheus' text format."""
        from clary.api.cloudwatch import (
            exposition,
        )  # here: its library takes as long to load as half of the control plane

        now = self._clock()
        self._forget_silent(now)
        revisions = [gateway.last.gauges.get("route_table_revision", 0.0) for gateway in self._gateways.values()]
        under_way, plain = (
            sum(gateway.last.gauges.get(name, 0.0) for gateway in self._gateways.values())
            for name in ("requests_under_way", "plain_requests")
        )
        gauges = {
            "control_plane_up": ("1 where the control plane answers, else 0.", 1.0),
            "gateways": ("Gateway processes that are there.", float(len(self._gateways))),
            "requests_under_way": ("Invocations that are being answered.", under_way),
            "plain_requests": ("Invocations that went the short way, since the gateways that are there began.", plain),
            "route_table_revision": ("The oldest route table that a gateway serves from.", min(revisions, default=0.0)),
        }
        concurrent = {_concurrent(*names): number for names, number in self._concurrency().items()}
        measured = {each: value for each, (value, at) in self._newest.items() if now - at <= SILENCE}
        return exposition.text(self._totals, {**measured, **concurrent}, gauges)

    def _add(self, points: Sequence[Point]) -> None:
        for point in points:
            metric = point.series.metric
            if metric is None or metric in (
                _CONCURRENT,
                _PER_COPY,
            ):  # Prometheus asks for concurrency at moments of its own
                continue
            if metric.kind == "gauge":
                self._newest[point.series] = (point.statistics.sum / point.statistics.count, self._clock())
            else:
                self._totals.setdefault(point.series, Statistics()).merge(point.statistics)

    def _concurrency(self) -> dict[tuple[str, str], float]:
        found: defaultdict[tuple[str, str], float] = defaultdict(float)
        for gateway in self._gateways.values():
            for endpoint, variant, number in gateway.last.concurrency:
                found[endpoint, variant] += number
        return found

    def _forget_silent(self, now: float) -> None:
        for source in [s for s, gateway in self._gateways.items() if now - gateway.heard > SILENCE]:
            del self._gateways[source]


def _concurrent(endpoint: str, name: str) -> Series:
    """Name the concurrency of a variant, or of a component, which stands under no endpoint."""
    if not endpoint:
        return series(INVOCATIONS, _PER_COPY.name, name)
    return series(INVOCATIONS, _CONCURRENT.name, endpoint, name)


def _owner(of: Series) -> str | None:
    """Give the endpoint or the inference component that a series is of."""
    dimensions = dict(of.dimensions)
    return dimensions.get(VARIANT[0]) or dimensions.get(COMPONENT[0])
