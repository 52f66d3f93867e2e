"""One instance's share of the work: as many requests at once as it may get, taken from the objects that are open.

Objects offer requests, senders take them in the order in which they were offered. What is offered and not yet written
down is bounded in bytes, over all objects, so memory does not grow with the input.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from clary.core.batching import Batch
from clary.core.transform import Pace
from clary.transform.calls import Caller, CallFailed

LEAST_BUDGET = 8 * 1024 * 1024
"""Bytes that may be under way at least."""
WEIGHT = 512
"""Bytes that a request counts beyond its body: its objects here, and an answer."""


class Asker(Protocol):
    """Who offers requests: one object."""

    @property
    def is_over(self) -> bool:
        """Whether the answer does not matter any more."""
        ...

    def answered(self, batch: Batch, answer: bytes) -> None:
        """Take an answer; those of one object come in any order."""
        ...

    def failed(self, batch: Batch, failure: CallFailed) -> None: ...


class Lane:
    """The senders of one instance."""

    def __init__(self, pace: Pace) -> None:
        self._budget = max(LEAST_BUDGET, 2 * pace.concurrency * pace.payload)
        self._used = 0
        self._offered: deque[tuple[Asker, Batch]] = deque()
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def offer(self, asker: Asker, batch: Batch) -> None:
        """Have a request sent, once there is room for it. Its room is to be given back by `release`."""
        while not self._room.is_set():
            await self._room.wait()
        self._used += len(batch.body) + WEIGHT
        if self._used >= self._budget:
            self._room.clear()
        self._offered.append((asker, batch))
        self._more.set()

    def release(self, batch: Batch) -> None:
        """Give back the room of a request whose answer is written down, or does not matter."""
        self._used -= len(batch.body) + WEIGHT
        if self._used < self._budget:
            self._room.set()

    async def send(self, caller: Caller) -> None:
        """Be one sender, until cancelled."""
        offered = self._offered
        while True:
            while not offered:
                self._more.clear()
                await self._more.wait()
            asker, batch = offered.popleft()
            if asker.is_over:
                asker.answered(batch, b"")
                continue
            try:
                answer = await caller.call(batch.body)
            except CallFailed as failure:
                asker.failed(batch, failure)
            else:
                asker.answered(batch, answer)
