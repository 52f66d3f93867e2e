"""Turns at work of which only little is to be done at once, and some of which may take for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LONGEST = 3.0
"""Seconds after which whoever works no longer keeps others from it: it is likely to wait for something else."""


class Turns:
    """Lets `at_once` in at a time, those first that came first. One that takes long goes on, and counts no more."""

    def __init__(self, at_once: int) -> None:
        self._free = asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it."""
        await self._free.acquire()
        counts = True

        def give_back() -> None:
            nonlocal counts
            if counts:
                counts = False
                self._free.release()

        timer = asyncio.get_running_loop().call_later(LONGEST, give_back)
        try:
            yield
        finally:
            timer.cancel()
            give_back()
