"""What a gateway does beside its requests, for as long as it lives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from clary.telemetry import logger

PAUSE = 1.0
"""Seconds after which work that failed is begun anew."""

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
