"""What asynchronous requests come to in numbers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from clary.controllers.asynchronous.delivery import Times
from clary.core.asynchronous import AsyncRequest, Backlog, Completed, Failed, Kind
from clary.core.metrics import INVOCATIONS, MINUTE, Point, Series, Statistics, series
from clary.core.routing import EndpointRoute
from clary.telemetry import logger

INTERVAL = 5.0
"""Seconds between two deliveries."""
_MICROS, _MILLIS = 1e6, 1e3
_OF_KIND: Mapping[Kind, str] = {
    "expired": "ExpiredRequests",
    "download": "RequestDownloadFailures",
    "upload": "ResponseUploadFailures",
}


class Numbers:
    """Counts, and tells `record` now and then. `now` gives seconds since the epoch."""

    def __init__(
        self, record: Callable[[Sequence[Point]], Awaitable[None]], now: Callable[[], float] = time.time
    ) -> None:
        self._record = record
        self._now = now
        self._counted: dict[tuple[Series, int], Statistics] = {}

    def ended(self, request: AsyncRequest, variant: str, end: Completed | Failed, times: Times, begun: float) -> None:
        """Count a request that ended. `begun`: when its last attempt began, or 0 where there was none."""
        now, endpoint = self._now(), request.endpoint
        failed = isinstance(end, Failed)
        values = {
            "InvocationsProcesssed": 1.0,
            "InvocationFailures": float(failed),
            "TotalProcessingTime": (now - request.accepted_at) * _MILLIS,
        }
        if isinstance(end, Failed) and end.kind in _OF_KIND:
            values[_OF_KIND[end.kind]] = 1.0
        if begun:
            values["TimeInBacklog"] = max(0.0, begun - request.accepted_at) * _MILLIS
            values["RequestDownloadLatency"] = times.download * _MICROS
        if times.model:
            values["ModelLatency"] = times.model * _MICROS
            broke = isinstance(end, Failed) and end.kind == "model" and not end.status
            values["Invocation4XXErrors"] = float(400 <= end.status < 500)
            values["Invocation5XXErrors"] = float(end.status >= 500 or broke)
            values["InvocationModelErrors"] = float(isinstance(end, Failed) and end.kind == "model")
        if isinstance(end, Completed):
            values["ResponseUploadLatency"] = times.upload * _MICROS
        for name, value in values.items():
            self._add(series(INVOCATIONS, name, endpoint, variant), value)

    def failed_upload(self, endpoint: str, variant: str) -> None:
        """Count a failure that could not be put anywhere."""
        self._add(series(INVOCATIONS, "ResponseUploadFailures", endpoint, variant), 1.0)

    def failed_notification(self, endpoint: str, variant: str) -> None:
        """Count a notification that could not be sent."""
        if variant:
            self._add(series(INVOCATIONS, "NotificationFailures", endpoint, variant), 1.0)

    def look(self, routes: Iterable[EndpointRoute], backlogs: Mapping[str, Backlog]) -> None:
        """Count what waits at each asynchronous endpoint now."""
        now = self._now()
        for route in routes:
            if route.asynchronous is None:
                continue
            backlog = backlogs.get(route.asynchronous.queue, Backlog(0, now))
            instances = sum(len(variant.targets) for variant in route.variants)
            values = {
                "ApproximateBacklogSize": float(backlog.size),
                "ApproximateAgeOfOldestRequest": max(0.0, now - backlog.oldest),
                "HasBacklogWithoutCapacity": float(backlog.size > 0 and not instances),
            }
            if instances:
                values["ApproximateBacklogSizePerInstance"] = backlog.size / instances
            for name, value in values.items():
                self._add(series(INVOCATIONS, name, route.name), value)

    async def run(self) -> None:
        """Tell for ever."""
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self.tell()
            except Exception:  # numbers are no reason to end; the next turn tells more
                logger("asynchronous").exception("numbers could not be counted")

    async def tell(self) -> None:
        """Record what was counted since the last time."""
        counted = [Point(of, start, found) for (of, start), found in self._counted.items()]
        if counted:
            await self._record(counted)
        for point in counted:
            del self._counted[point.series, point.start]

    def _add(self, of: Series, value: float) -> None:
        start = int(self._now()) // MINUTE * MINUTE
        self._counted.setdefault((of, start), Statistics()).add(value)
