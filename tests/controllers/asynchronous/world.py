"""A dispatcher and what is around it, in memory and in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clary.controllers.asynchronous.datalog import DataLog
from clary.controllers.asynchronous.delivery import Times
from clary.controllers.asynchronous.dispatcher import Dispatcher, Surroundings
from clary.controllers.asynchronous.notifier import Notifier
from clary.controllers.asynchronous.numbers import Numbers
from clary.controllers.routes import Routes
from clary.core.asynchronous import AsyncRequest, Completed, Failed, Invoke, Outcome
from clary.core.metrics import Point
from clary.core.queues import Bound
from clary.core.routing import AsyncInference, EndpointRoute, Hop, Target, VariantRoute
from clary.logs.folder import LogFolder
from clary.testing import MemoryQueue, now, until

Behaviour = Callable[[AsyncRequest, str], Outcome | float]
"""What comes of a request at an instance, at once or, a number, as a whole answer after so many seconds."""


@dataclass
class FakeAttempts:
    """Attempts that end as they are told; an answer where nothing is said."""

    behaviour: Behaviour = lambda request, instance: 0.0
    made: list[tuple[str, str]] = field(default_factory=list)
    """Request and instance, in the order in which they began."""
    running: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    answered: set[str] = field(default_factory=set)
    """Requests that were answered in an earlier life."""
    reported: dict[str, str] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    report_errors: list[Exception] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)

    async def attempt(self, request: AsyncRequest, place: Invoke, inline: bytes) -> tuple[Outcome, Times]:
        instance = place.target.id
        self.made.append((request.id, instance))
        self.bodies[request.id] = inline
        self.running[instance] += 1
        self.most[instance] = max(self.most[instance], self.running[instance])
        try:
            outcome = self.behaviour(request, instance)
            if isinstance(outcome, float):
                await asyncio.sleep(outcome)
                return Completed("text/plain"), Times(0.001, outcome, 0.002)
            return outcome, Times()
        finally:
            self.running[instance] -= 1

    async def found(self, request: AsyncRequest) -> Completed | None:
        return Completed("text/plain") if request.id in self.answered else None

    async def report(self, request: AsyncRequest, failed: Failed, role: str) -> None:
        if self.report_errors:
            raise self.report_errors.pop(0)
        self.reported[request.id] = failed.text
        self.roles[request.id] = role


class Nowhere:
    """A publisher that nobody asks."""

    async def publish(self, topic: str, message: str, id: str) -> None:
        raise AssertionError("the notifier does not run here")


class World:
    """A dispatcher and what is around it."""

    def __init__(self, tmp_path: Path) -> None:
        self.queue = MemoryQueue()
        self.routes = Routes()
        self.attempts = FakeAttempts()
        self.points: list[Point] = []
        self.there: set[str] = set()
        """Queues of endpoints that are there, whatever the routes say."""

        async def record(points: Sequence[Point]) -> None:
            self.points += points

        async def gone(request: AsyncRequest) -> bool:
            return request.queue not in self.there

        self.numbers = Numbers(record, now)
        self.log = DataLog(LogFolder(tmp_path, now), now)
        self.notifier = Notifier(self.queue, Nowhere(), lambda endpoint, variant: None)
        self._around = Surroundings(gone, self.numbers, self.log, self.notifier, "us-east-1", now)
        self.reborn()
        self._count = 0

    def reborn(self) -> None:
        """Begin anew, with what is in the store."""
        self.dispatcher = Dispatcher(self.queue, self.routes, self.attempts, self._around)

    def route(self, name: str, *ids: str, concurrency: int = 1, topic: str = "", status: str = "InService") -> None:
        targets = tuple(Target(id, (Hop(id, "127.0.0.1", 9000),)) for id in ids)
        config = AsyncInference(f"q-{name}", "s3://b", concurrency=concurrency, success_topic=topic)
        variant = VariantRoute("v", 1.0, targets)
        self.routes.put(name, EndpointRoute(name, status, (variant,), instances=ids, asynchronous=config))

    async def ask(
        self, name: str, number: int = 1, *, ttl: float = 3600.0, body: bytes = b"", topic: str = ""
    ) -> list[str]:
        requests = []
        for _ in range(number):
            self._count += 1
            id = f"{name}-{self._count}"
            request = AsyncRequest(
                id, f"q-{name}", name, f"mine-{id}", now(), now() + ttl, 60.0, f"s3://b/{id}.out", f"s3://f/{id}.out"
            )
            requests.append((replace(request, success_topic=topic, error_topic=topic), body))
        assert all(await self.queue.add(requests, Bound(100_000, 10**9)))
        self.dispatcher.notify(f"q-{name}")
        return [request.id for request, _ in requests]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        if not self.routes.is_open:
            self.routes.open()
        task = asyncio.create_task(self.dispatcher.run())
        try:
            yield
            assert not task.done(), task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def served(self, name: str, number: int = 1, **more: Any) -> list[str]:
        """Work until so many requests, which are asked as by `ask`, are done with."""
        async with self.running():
            ids = await self.ask(name, number, **more)
            await until(lambda: self.done(ids))
        return ids

    def done(self, ids: Sequence[str]) -> bool:
        return all(id in self.queue.ended for id in ids)

    def totals(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for point in self.points:
            found[point.series.name] = found.get(point.series.name, 0.0) + point.statistics.sum
        return found

    def newest(self) -> dict[str, float]:
        return {point.series.name: point.statistics.maximum for point in self.points}
