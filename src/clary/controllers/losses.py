"""What was given up here, on its way into the numbers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from clary.core.metrics import CLARY, MINUTE, Point, Statistics, series
from clary.telemetry import logger

INTERVAL = 10.0


class Losses:
    """Counts by kind, and tells `record` now and then. `clock` gives seconds since the epoch."""

    def __init__(
        self, record: Callable[[Sequence[Point]], Awaitable[None]], clock: Callable[[], float] = time.time
    ) -> None:
        self._record = record
        self._clock = clock
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, number: int) -> None:
        """Count. May be called from the loop alone."""
        self._counts[kind] += number

    async def run(self) -> None:
        """Tell for ever."""
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self.tell()
            except Exception:  # numbers are no reason to end; the next turn tells more
                logger("losses").exception("losses could not be counted")

    async def tell(self) -> None:
        """Record what was counted since the last time."""
        counts = self._counts.copy()
        start = int(self._clock()) // MINUTE * MINUTE
        points = []
        for kind, number in counts.items():
            lost = Statistics()
            lost.add(float(number))
            points.append(Point(series(CLARY, "Dropped", kind), start, lost))
        if points:
            await self._record(points)
            self._counts -= counts
