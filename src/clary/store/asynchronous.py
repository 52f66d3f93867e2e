"""The statements about asynchronous requests and notifications, on the threads of `Store`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from clary.core.asynchronous import AsyncRequest, Backlog, Notification, Settled
from clary.core.queues import Bound, Unsent, Waiting
from clary.store.metrics import Transactions
from clary.store.tables import ASYNC_REQUESTS, NOTIFICATIONS

_c = ASYNC_REQUESTS.c


class AsyncRequests:
    """The `AsyncQueue` of `core.queues`, in the store's file."""

    def __init__(self, read: Transactions, write: Transactions, clock: Callable[[], float]) -> None:
        self._read = read
        self._write = write
        self._clock = clock

    async def add(self, requests: Sequence[tuple[AsyncRequest, bytes]], bound: Bound) -> Sequence[bool]:
        """Add requests with the bodies that came with them, in one transaction; False for those there is no room for.

        One that was added before, by its id, is there: adding it again changes nothing, even when it has ended since.
        """

        def work(connection: Connection) -> list[bool]:
            keys = [request.id for request, _ in requests]
            there = set(connection.execute(select(_c.key).where(_c.key.in_(keys))).scalars())
            held = {queue: _held(connection, queue) for queue in {request.queue for request, _ in requests}}
            rows, taken = [], []
            for request, body in requests:
                count, size = held[request.queue]
                fits = count < bound.requests and size + len(body) <= bound.bytes
                taken.append(fits or request.id in there)
                if fits and request.id not in there:
                    held[request.queue] = (count + 1, size + len(body))
                    rows.append(_values(request, body))
            if rows:
                connection.execute(insert(ASYNC_REQUESTS), rows)
            return taken

        return await self._write(work)

    async def waiting(self, queue: str, after: int, limit: int) -> Sequence[Waiting]:
        """Give requests that have not ended, in the order in which they came, from behind number `after` on."""
        condition = _c.waiting & (_c.queue == queue) & (_c.id > after)
        statement = select(_c.id, _c.request).where(condition).order_by(_c.id).limit(limit)
        return await self._read(lambda connection: [_waiting(*row) for row in connection.execute(statement)])

    async def body(self, id: str) -> bytes:
        """Give the body that is kept with a request."""
        statement = select(_c.body).where(_c.key == id)
        return await self._read(lambda connection: connection.execute(statement).scalar() or b"")

    async def expired(self, now: float, limit: int) -> Sequence[Waiting]:
        """Give requests that have not ended and may wait no longer."""
        condition = _c.waiting & (_c.expires_at <= _micros(now))
        statement = select(_c.id, _c.request).where(condition).order_by(_c.expires_at).limit(limit)
        return await self._read(lambda connection: [_waiting(*row) for row in connection.execute(statement)])

    async def settle(self, ends: Sequence[Settled]) -> None:
        """Let requests leave the queue, in one transaction; their notifications wait to be sent from then on."""
        now = _micros(self._clock())
        ended = update(ASYNC_REQUESTS).where(_c.key.in_([end.id for end in ends]), _c.waiting)
        told = {end.id: end.notification for end in ends if end.notification is not None}

        def work(connection: Connection) -> None:
            # Of one that is settled twice, the first time counts.
            left = connection.execute(ended.values(waiting=False, ended_at=now, body=None).returning(_c.key)).scalars()
            _post(connection, [told[key] for key in left if key in told], now)

        await self._write(work)

    async def backlogs(self) -> Mapping[str, Backlog]:
        """Give what there is by queue; none that are empty."""
        # The first to come is the oldest, to a moment: several gateways acknowledge.
        first = select(_c.queue, func.count().label("size"), func.min(_c.id).label("first")).where(_c.waiting)
        grouped = first.group_by(_c.queue).subquery()
        statement = select(grouped, _c.accepted_at).join(ASYNC_REQUESTS, _c.id == grouped.c.first)

        def work(connection: Connection) -> dict[str, Backlog]:
            rows = connection.execute(statement)
            return {row.queue: Backlog(row.size, row.accepted_at / 1_000_000) for row in rows}

        return await self._read(work)


class Notifications:
    """The `Outbox` of `core.queues`, in the store's file."""

    def __init__(self, read: Transactions, write: Transactions, clock: Callable[[], float]) -> None:
        self._read = read
        self._write = write
        self._clock = clock

    async def post(self, notifications: Sequence[Notification]) -> None:
        """Add notifications that are about no request."""
        now = _micros(self._clock())
        await self._write(lambda connection: _post(connection, notifications, now))

    async def unsent(self, after: int, limit: int) -> Sequence[Unsent]:
        """Give notifications in the order in which they came, those after number `after`."""
        c = NOTIFICATIONS.c
        statement = select(NOTIFICATIONS).where(c.id > after).order_by(c.id).limit(limit)

        def work(connection: Connection) -> list[Unsent]:
            rows = connection.execute(statement)
            return [
                Unsent(row.id, row.at / 1_000_000, Notification(row.topic, row.message, row.endpoint, row.variant))
                for row in rows
            ]

        return await self._read(work)

    async def sent(self, numbers: Sequence[int]) -> None:
        """Forget notifications that were sent, or given up."""
        statement = delete(NOTIFICATIONS).where(NOTIFICATIONS.c.id.in_(numbers))
        await self._write(lambda connection: connection.execute(statement))

    async def forget(self, before: float) -> None:
        """Forget which requests ended before then: nobody adds those again."""
        statement = delete(ASYNC_REQUESTS).where(_c.ended_at < _micros(before))
        await self._write(lambda connection: connection.execute(statement))


def _post(connection: Connection, notifications: Sequence[Notification], at: int) -> None:
    if notifications:
        connection.execute(insert(NOTIFICATIONS), [{**each._asdict(), "at": at} for each in notifications])


def _held(connection: Connection, queue: str) -> tuple[int, int]:
    """Give how many requests a queue has, and the bytes of their bodies."""
    condition = _c.waiting & (_c.queue == queue)
    row = connection.execute(select(func.count(), func.coalesce(func.sum(_c.size), 0)).where(condition)).one()
    return row[0], row[1]


def _values(request: AsyncRequest, body: bytes) -> dict[str, object]:
    return {
        "key": request.id,
        "queue": request.queue,
        "waiting": True,
        "accepted_at": _micros(request.accepted_at),
        "expires_at": _micros(request.expires_at),
        "size": len(body),
        "request": asdict(request),
        "body": body or None,
    }


def _waiting(number: int, request: Mapping[str, Any]) -> Waiting:
    return Waiting(number, AsyncRequest(**request))


def _micros(seconds: float) -> int:
    return round(seconds * 1_000_000)
