"""The seams of asynchronous inference: its queue, and the notifications that wait; with a fake in `clary.testing`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from clary.core.asynchronous import AsyncRequest, Backlog, Notification, Settled


class Waiting(NamedTuple):
    """A request that waits, and its place in the line: those with smaller numbers came before."""

    number: int
    request: AsyncRequest


class Bound(NamedTuple):
    """How much one queue may hold."""

    requests: int
    bytes: int
    """Of the bodies that are kept with their requests."""


class AsyncQueue(Protocol):
    """Keeps asynchronous requests. What a call has returned from survives the death of the process."""

    async def add(self, requests: Sequence[tuple[AsyncRequest, bytes]], bound: Bound) -> Sequence[bool]:
        """Add requests with the bodies that came with them, in one transaction; False for those there is no room for.

        One that was added before, by its id, is there: adding it again changes nothing, even when it has ended since.
        """
        ...

    async def waiting(self, queue: str, after: int, limit: int) -> Sequence[Waiting]:
        """Give requests that have not ended, in the order in which they came, from behind number `after` on."""
        ...

    async def body(self, id: str) -> bytes:
        """Give the body that is kept with a request."""
        ...

    async def expired(self, now: float, limit: int) -> Sequence[Waiting]:
        """Give requests that have not ended and may wait no longer."""
        ...

    async def settle(self, ends: Sequence[Settled]) -> None:
        """Let requests leave the queue, in one transaction; their notifications wait to be sent from then on."""
        ...

    async def backlogs(self) -> Mapping[str, Backlog]:
        """Give what there is by queue; none that are empty."""
        ...


class Unsent(NamedTuple):
    """A notification that waits to be sent, and since when."""

    number: int
    since: float
    notification: Notification


class Outbox(Protocol):
    """Keeps notifications until they are sent. What a call has returned from survives the death of the process."""

    async def post(self, notifications: Sequence[Notification]) -> None:
        """Add notifications that are about no request."""
        ...

    async def unsent(self, after: int, limit: int) -> Sequence[Unsent]:
        """Give notifications in the order in which they came, those after number `after`."""
        ...

    async def sent(self, numbers: Sequence[int]) -> None:
        """Forget notifications that were sent, or given up."""
        ...

    async def forget(self, before: float) -> None:
        """Forget which requests ended before then: nobody adds those again."""
        ...
