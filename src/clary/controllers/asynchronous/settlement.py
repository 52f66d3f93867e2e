"""Ends of requests on their way into the store, many at once: alone, each would wait for the disk."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from clary.core.asynchronous import Settled
from clary.core.queues import AsyncQueue
from clary.telemetry import logger

PAUSE = 1.0
"""Seconds after which a transaction that failed is tried again."""


class _Waiting(NamedTuple):
    end: Settled
    done: asyncio.Event


class Settlement:
    """Settles requests. What comes while a transaction is under way makes the next one."""

    def __init__(self, queue: AsyncQueue) -> None:
        self._queue = queue
        self._waiting: list[_Waiting] = []
        self._arrived = asyncio.Event()

    async def settle(self, end: Settled) -> None:
        """Return once this request has left the queue for good."""
        done = asyncio.Event()
        self._waiting.append(_Waiting(end, done))
        self._arrived.set()
        await done.wait()

    async def run(self) -> None:
        """Settle what comes, for ever."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            batch, self._waiting = self._waiting, []
            while True:
                try:
                    await self._queue.settle([each.end for each in batch])
                    break
                except Exception:  # a full disk, say; what is not settled is done again after the next start
                    logger("asynchronous").exception("ends of requests cannot be written; trying again")
                    await asyncio.sleep(PAUSE)
            for each in batch:
                each.done.set()
