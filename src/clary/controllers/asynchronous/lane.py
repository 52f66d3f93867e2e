"""One queue as far as it is in memory: the head of the line, and who has how much of it."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass

from clary.core.asynchronous import AsyncRequest, Invoke, Past
from clary.core.queues import AsyncQueue

PAGE = 100
"""Requests that are read at once."""


@dataclass(slots=True, eq=False)
class Entry:
    """A request that has not ended."""

    request: AsyncRequest
    attempts: int = 0
    breaks: int = 0
    """Attempts that ended with a broken container."""
    avoid: str = ""
    """The instance of the last attempt."""
    trouble: str = ""
    """What that came to, in words."""

    @property
    def past(self) -> Past:
        """Give what it has gone through."""
        return Past(self.avoid, self.breaks, self.trouble)


class Lane:
    """The requests of one queue, in the order in which they came; those that are tried again come first."""

    def __init__(self, name: str, queue: AsyncQueue) -> None:
        self.name = name
        self._queue = queue
        self.waiting: deque[Entry] = deque()
        self.load: Counter[str] = Counter()
        """The room that is taken, in requests, by instance."""
        self.served: Counter[str] = Counter()
        """Requests that each variant got."""
        self.out: set[str] = set()
        """Ids of requests that left the line and have not ended: they are tried, or wait to be tried again."""
        self.stirred = asyncio.Event()
        """There may be something to do: a request has come or ended, or the routes have changed."""
        self._last = 0
        self._more = True
        self._reading = False
        self._ended: set[str] = set()
        """Ids of requests that ended while the store was read: what was read may still have them."""

    def notify(self) -> None:
        """Have the store looked at again."""
        self._more = True
        self.stirred.set()

    async def fill(self) -> None:
        """Read on where the line in memory has come to its end."""
        if self.waiting or not self._more:
            return
        self._more, self._reading = False, True
        try:
            page = await self._queue.waiting(self.name, self._last, PAGE)
        finally:
            self._reading = False
        if page:
            self._last = page[-1].number
            self._more = True
        known = self.out | self._ended
        self._ended.clear()
        self.waiting.extend(Entry(each.request) for each in page if each.request.id not in known)

    def take(self, entry: Entry) -> None:
        """Let a request leave the line, or the store where the line does not reach so far."""
        if entry in self.waiting:
            self.waiting.remove(entry)
        self.out.add(entry.request.id)

    def find(self, id: str) -> Entry | None:
        """Give the entry of a request that is in the line in memory."""
        return next((entry for entry in self.waiting if entry.request.id == id), None)

    def begin(self, entry: Entry, place: Invoke) -> None:
        """Note that an instance has a request."""
        self.load[place.target.id] += place.room
        self.served[place.variant.name] += 1
        entry.attempts += 1
        entry.avoid = place.target.id

    def end(self, place: Invoke) -> None:
        """Note that an instance has a request no more."""
        self.load[place.target.id] -= place.room
        if self.load[place.target.id] <= 0:
            del self.load[place.target.id]
        self.stirred.set()

    def put_back(self, entry: Entry) -> None:
        """Put a request at the head of the line again."""
        self.out.discard(entry.request.id)
        self.waiting.appendleft(entry)
        self.stirred.set()

    def forget(self, entry: Entry) -> None:
        """A request has ended."""
        self.out.discard(entry.request.id)
        if self._reading:
            self._ended.add(entry.request.id)
        self.stirred.set()

    def weigh(self, variants: set[str]) -> None:
        """Begin to count anew where there are other variants than before: a new one is not behind by all the past."""
        if not self.served.keys() <= variants or len(self.served) != len(variants):
            self.served = Counter(dict.fromkeys(variants, 0))

    @property
    def has_more(self) -> bool:
        """Whether the store may have requests that are not in memory."""
        return self._more

    @property
    def idle(self) -> bool:
        """Whether nothing is left."""
        return not (self.waiting or self.out or self._more)
