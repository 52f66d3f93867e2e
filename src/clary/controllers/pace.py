"""How much of a machine the loading of models may take while others answer."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

SHARE = 1 / 16
"""Of the time of all processors, for what loads cost this process; gateways and containers have half as much work with
them again. What is busy takes caches and clock from what runs beside it, too."""
BURST = 0.2
"""Seconds of processor time that may be used at once after a while of rest: some fifty loads."""
LONGEST = 0.1
"""Seconds that a piece of work waits for its turn at the most: this process may be busy with other things for hours."""


class Pace:
    """Lets work begin as fast as this process keeps within a share of the machine: a leaky bucket of processor time.

    `used` gives the seconds of processor time that this process has had, `clock` seconds.
    """

    def __init__(
        self,
        processors: int | None = None,
        used: Callable[[], float] = time.process_time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = SHARE * (processors or len(os.sched_getaffinity(0)))
        self._used, self._clock = used, clock
        self._used_before, self._looked_at = used(), clock()
        self._full = 0.0
        """Seconds of processor time that have been used and not been waited for."""
        self._first = asyncio.Lock()

    async def keep(self) -> None:
        """Wait until the next piece of work may begin; first come, first served."""
        async with self._first:
            if (over := self._look() - BURST) > 0:
                await asyncio.sleep(over / self._rate)

    def _look(self) -> float:
        used, now = self._used(), self._clock()
        leaked = (now - self._looked_at) * self._rate
        full = self._full + used - self._used_before - leaked
        self._full = min(max(0.0, full), BURST + LONGEST * self._rate)
        self._used_before, self._looked_at = used, now
        return self._full
