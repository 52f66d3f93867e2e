"""What a gateway does beside its requests, for as long as it lives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter

from clary.telemetry import logger

PAUSE = 1.0
"""Seconds after which work that failed is begun anew."""

PIECE = 0.0003
"""Seconds for which requests may have to wait for such a work."""

_log = logger("gateway")


async def forever(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do a work that has no end; where a defect ends it all the same, say so in the log and begin anew.

    Without this a task would die unheard, and take with it whatever it kept going. It ends by being cancelled alone.
    """
    while True:
        try:
            await work()
        except Exception:
            _log.exception("a work in the background failed and is begun anew", name=name)
        await asyncio.sleep(PAUSE)


class Pieces:
    """Divides a work that takes long into pieces, between which requests are served."""

    def __init__(self) -> None:
        self._begun = perf_counter()

    async def rest(self) -> None:
        """Let others go on, if this piece has taken its time."""
        if perf_counter() - self._begun > PIECE:
            await asyncio.sleep(0)
            self._begun = perf_counter()
