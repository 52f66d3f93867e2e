"""The store and the queue in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from clary.core.asynchronous import AsyncRequest, Backlog, Notification, Settled
from clary.core.ports import ListQuery, Page
from clary.core.queues import Bound, Unsent, Waiting
from clary.core.resources import KINDS, Kind, Resource
from clary.testing.clock import now

_KINDS = {kind.name: kind for kind in KINDS}


class MemoryStore:
    """A ResourceStore and SpecStore in a dict, with the same promises but the one about surviving."""

    def __init__(self, clock: Callable[[], float] = now) -> None:
        self._clock = clock
        self._rows: dict[tuple[str, str], Resource] = {}
        self._tags: dict[str, Mapping[str, str]] = {}

    def _key(self, kind: Kind, name: str) -> tuple[str, str]:
        return kind.name, name.lower() if kind.case_insensitive else name

    async def insert(self, resource: Resource, tags: Mapping[str, str]) -> Resource | None:
        key = self._key(_KINDS[resource.kind], resource.name)
        if key in self._rows:
            return None
        at = self._clock()
        self._tags[resource.arn] = dict(tags)
        self._rows[key] = replace(resource, created_at=at, modified_at=at)
        return self._rows[key]

    async def get(self, kind: Kind, name: str) -> Resource | None:
        return self._rows.get(self._key(kind, name))

    async def list(self, kind: Kind, query: ListQuery) -> Page:
        of_kind = (r for r in self._rows.values() if r.kind == kind.name)
        rows = sorted(
            (r for r in of_kind if all(r.spec.get(member) == value for member, value in query.members)),
            key=lambda r: r.name,
        )
        start = query.after[1] if query.after else 0
        page = rows[start : start + query.limit]
        more = start + query.limit < len(rows)
        return Page(page, (page[-1].name, start + query.limit) if more else None)

    async def set_status(self, resource: Resource, status: Mapping[str, object], *, touch: bool = True) -> bool:
        key = self._key(_KINDS[resource.kind], resource.name)
        row = self._rows.get(key)
        if row is None or row.generation != resource.generation or row.created_at != resource.created_at:
            return False
        self._rows[key] = replace(row, status=status, modified_at=self._clock() if touch else row.modified_at)
        return True

    async def replace(self, resource: Resource, spec: Mapping[str, object]) -> Resource | None:
        key = self._key(_KINDS[resource.kind], resource.name)
        row = self._rows.get(key)
        if row is None or row.generation != resource.generation or row.created_at != resource.created_at:
            return None
        self._rows[key] = replace(row, spec=spec, generation=row.generation + 1, modified_at=self._clock())
        return self._rows[key]

    async def mark_deleting(self, kind: Kind, name: str, status: Mapping[str, object]) -> Resource | None:
        key = self._key(kind, name)
        row = self._rows.get(key)
        if row is None:
            return None
        row = replace(row, status=status, deleting=True, generation=row.generation + 1, modified_at=self._clock())
        self._rows[key] = row
        return row

    async def remove(self, kind: Kind, name: str) -> bool:
        row = self._rows.pop(self._key(kind, name), None)
        if row is not None:
            self._tags.pop(row.arn, None)
        return row is not None


class MemoryQueue:
    """An AsyncQueue and an Outbox in lists, with the same promises but the one about surviving."""

    def __init__(self, clock: Callable[[], float] = now) -> None:
        self._clock = clock
        self._rows: list[tuple[AsyncRequest, bytes]] = []
        self.ended: dict[str, float] = {}
        self.notifications: dict[int, Unsent] = {}
        self._number = 0

    async def add(self, requests: Sequence[tuple[AsyncRequest, bytes]], bound: Bound) -> Sequence[bool]:
        kept = []
        for request, body in requests:
            there = any(request.id == known.id for known, _ in self._rows)
            held = [len(each) for known, each in self._rows if known.queue == request.queue and self._waits(known)]
            fits = len(held) < bound.requests and sum(held) + len(body) <= bound.bytes
            if fits and not there:
                self._rows.append((request, body))
            kept.append(fits or there)
        return kept

    def _waits(self, request: AsyncRequest) -> bool:
        return request.id not in self.ended

    async def waiting(self, queue: str, after: int, limit: int) -> Sequence[Waiting]:
        numbered = enumerate((request for request, _ in self._rows), 1)
        found = [Waiting(n, each) for n, each in numbered if n > after and each.queue == queue and self._waits(each)]
        return found[:limit]

    async def body(self, id: str) -> bytes:
        return next(body for request, body in self._rows if request.id == id)

    async def expired(self, now: float, limit: int) -> Sequence[Waiting]:
        numbered = enumerate((request for request, _ in self._rows), 1)
        return [Waiting(n, each) for n, each in numbered if self._waits(each) and each.expires_at <= now][:limit]

    async def settle(self, ends: Sequence[Settled]) -> None:
        for end in ends:
            if end.id not in self.ended:
                self.ended[end.id] = self._clock()
                await self.post([end.notification] if end.notification is not None else [])

    async def backlogs(self) -> Mapping[str, Backlog]:
        found: dict[str, Backlog] = {}
        for request, _ in self._rows:
            if self._waits(request):
                before = found.get(request.queue, Backlog(0, request.accepted_at))
                found[request.queue] = Backlog(before.size + 1, before.oldest)
        return found

    async def post(self, notifications: Sequence[Notification]) -> None:
        for notification in notifications:
            self._number += 1
            self.notifications[self._number] = Unsent(self._number, self._clock(), notification)

    async def unsent(self, after: int, limit: int) -> Sequence[Unsent]:
        return [each for number, each in sorted(self.notifications.items()) if number > after][:limit]

    async def sent(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            del self.notifications[number]

    async def forget(self, before: float) -> None:
        gone = {id for id, at in self.ended.items() if at < before}
        self._rows = [row for row in self._rows if row[0].id not in gone]
