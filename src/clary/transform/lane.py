"""One instance's share of the work: as many requests at once as it may get, taken from the objects that are open.

Objects offer requests, senders take them in the order in which they were offered. What is offered and not yet written
down is bounded in bytes, over all objects, so memory does not grow with the input.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import repeat
from typing import Protocol

from clary.core.batching import MIB, Batch
from clary.core.transform import PRODUCT, Pace
from clary.transform.calls import Caller, CallFailed

LEAST_BUDGET = 8 * 1024 * 1024
"""Bytes that may be under way at least."""
WEIGHT = 512
"""Bytes that a request counts beyond its body: its objects here, and an answer."""
WHOLE = Batch(b"", records=0)
"""Offered in place of requests by an object that goes through as it comes: all of a job's do, or none."""
MOST_HELD = 64 * 1024 * 1024
"""Bytes of answers that wait for those before them, beyond which nothing more is asked."""
LATENESS = 0.5
"""Seconds that a request may have beyond its time."""


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

    async def flow(self, caller: Caller) -> None:
        """Send all of the object as one request, for WHOLE was offered."""
        ...


class Lane:
    """The senders of one instance."""

    def __init__(self, pace: Pace) -> None:
        # What is under way, and one more that waits.
        self._budget = max(LEAST_BUDGET, min(pace.concurrency * pace.payload, PRODUCT * MIB) + pace.payload)
        self._used = 0
        self._held = 0
        self._offered: deque[tuple[Asker, Batch]] = deque()
        self._callers: list[Caller] = []
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._waits = False
        """Whether somebody waits for room."""

    async def offer(self, asker: Asker, batches: Sequence[Batch]) -> None:
        """Have requests sent, and wait until there is room for more. Their room is to be given back by `release`."""
        self._used += sum([len(batch.body) for batch in batches]) + WEIGHT * len(batches)
        self._offered.extend(zip(repeat(asker), batches))
        self._more.set()
        while self._used >= self._budget:
            self._waits = True
            self._room.clear()
            await self._room.wait()

    def release(self, batch: Batch) -> None:
        """Give back the room of a request whose answer is written down, or does not matter."""
        self._used -= len(batch.body) + WEIGHT
        if self._waits and self._used < self._budget:
            self._waits = False
            self._room.set()

    def hold(self, answer: bytes) -> None:
        """Note that an answer is in memory until those before it are there. They are under way: none is held up."""
        self._held += len(answer)

    def let_go(self, answer: bytes) -> None:
        """Note that an answer that was held is no more."""
        self._held -= len(answer)
        if self._held < MOST_HELD:
            self._more.set()

    async def watch(self) -> None:
        """End requests that take too long, until cancelled."""
        while True:
            await asyncio.sleep(LATENESS)
            for caller in self._callers:
                caller.give_up_if_late()

    async def send(self, caller: Caller) -> None:
        """Be one sender, until cancelled."""
        self._callers.append(caller)
        sender = _Sender(self)
        while True:
            while sender.next() is None:
                self._more.clear()
                await self._more.wait()
            try:
                if sender.batch is WHOLE:
                    await sender.asker.flow(caller)
                else:
                    await caller.ask(sender)
            except CallFailed as failure:
                sender.asker.failed(sender.batch, failure)

    def take(self) -> tuple[Asker, Batch] | None:
        """Give a request that is to be sent now."""
        offered = self._offered
        while offered and self._held < MOST_HELD:
            asker, batch = offered.popleft()
            if not asker.is_over:
                return asker, batch
            asker.answered(batch, b"")
        return None


class _Sender:
    """What one sender asks for now."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self.asker: Asker
        self.batch: Batch

    @property
    def body(self) -> bytes:
        return self.batch.body

    def next(self) -> bytes | None:
        """Go on with the next request; None where there is none for now."""
        if (taken := self._lane.take()) is None:
            return None
        self.asker, self.batch = taken
        return self.batch.body

    def answered(self, answer: bytes) -> bytes | None:
        """Hand on the answer, and go on with the next request."""
        self.asker.answered(self.batch, answer)
        return self.next()
