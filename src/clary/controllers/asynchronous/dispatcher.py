"""Gives what waits to instances that have room, endpoint by endpoint in turn, and sees every request to its end.

What a request has gone through is in memory alone: when this process dies, all that had not ended waits in the store
and is done by the next one.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from clary.controllers.asynchronous.datalog import DataLog
from clary.controllers.asynchronous.delivery import Times
from clary.controllers.asynchronous.lane import Entry, Lane
from clary.controllers.asynchronous.notifier import Notifier
from clary.controllers.asynchronous.numbers import Numbers
from clary.controllers.asynchronous.settlement import Settlement
from clary.controllers.routes import Routes
from clary.core.asynchronous import (
    Again,
    AsyncRequest,
    Broken,
    Completed,
    Failed,
    Invoke,
    Outcome,
    Settled,
    Unavailable,
    Wait,
    judge,
    next_step,
)
from clary.core.notification import notification
from clary.core.queues import AsyncQueue
from clary.core.routing import AsyncInference, EndpointRoute, RouteTable
from clary.errors import Fatal, Transient
from clary.telemetry import logger

AT_ONCE = 1000
"""Requests that are worked at, of all endpoints together."""
TICK = 1.0
"""Seconds between looks at what has waited for too long."""
LOOK = 10.0
"""Seconds between looks at the backlogs."""
EXPIRED = 100
"""Requests that are given up at once."""
REPORT_DELAYS = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before a failure is written once more; the last one stays."""

AFTER_DEFECT = 60.0
"""Seconds before a request is tried again that could not be seen to its end for a reason of our own."""


class Attempts(Protocol):
    """What makes attempts (`Delivery`)."""

    async def attempt(self, request: AsyncRequest, place: Invoke, inline: bytes) -> tuple[Outcome, Times]: ...

    async def found(self, request: AsyncRequest) -> Completed | None: ...

    async def report(self, request: AsyncRequest, failed: Failed, role: str) -> None: ...


Gone = Callable[[AsyncRequest], Awaitable[bool]]
"""Tells whether the endpoint of a request is there no more, which the routes alone do not."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What is told of a request when it has ended."""

    variant: str
    """Empty where its endpoint is gone."""
    role: str
    instance: str = ""
    """The last one that had it; empty: there was none."""
    times: Times = field(default_factory=Times)
    begun: float = 0.0
    """When that was."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the dispatcher asks and tells besides."""

    gone: Gone
    numbers: Numbers
    log: DataLog
    notifier: Notifier
    region: str
    now: Callable[[], float] = time.time
    """Gives seconds since the epoch."""


class Dispatcher:
    """Works at the queues."""

    def __init__(self, queue: AsyncQueue, routes: Routes, attempts: Attempts, around: Surroundings) -> None:
        self._queue = queue
        self._routes = routes
        self._attempts = attempts
        self._around = around
        self._now = around.now
        self._settlement = Settlement(queue)
        self._permits = asyncio.Semaphore(AT_ONCE)
        self._lanes: dict[str, Lane] = {}
        self._group: asyncio.TaskGroup | None = None
        self._since = math.inf
        """When this began: what was acknowledged before may have been worked at in an earlier life."""
        self._log = logger("asynchronous")

    def notify(self, queue: str) -> None:
        """Look at a queue soon: something was added."""
        if self._group is not None:
            self._lane(queue).notify()

    async def run(self) -> None:
        """Work until cancelled; nothing is begun before the routes are known."""
        await self._routes.newer(-1)
        self._since = self._now()
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                group.create_task(self._settlement.run())
                group.create_task(self._watch_routes())
                group.create_task(self._every(LOOK, self._look))
                await self._every(TICK, self._expire)
            finally:
                self._group = None

    def _lane(self, name: str) -> Lane:
        if name not in self._lanes:
            lane = self._lanes[name] = Lane(name, self._queue)
            self._spawn(self._follow(lane))
        return self._lanes[name]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._group is not None
        self._group.create_task(work)

    # -- what goes on for ever -----------------------------------------------------------------------------------------

    async def _watch_routes(self) -> None:
        table = self._routes.table
        known = _topics(table)
        while True:
            table = await self._routes.newer(table.revision)
            for lane in self._lanes.values():
                lane.stirred.set()
            before, known = known, _topics(table)
            for endpoint, config in known.items() - before.items():
                await self._around.notifier.greet(endpoint, config)

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except Exception:  # the store, most likely; the next turn tries again
                self._log.exception("a look at the queues failed")
            await asyncio.sleep(seconds)

    async def _look(self) -> None:
        backlogs = await self._queue.backlogs()
        self._around.numbers.look(self._routes.table.endpoints.values(), backlogs)
        for name in backlogs:  # all of them, whatever was forgotten: an endpoint that is gone says so to nobody
            self._lane(name).notify()

    async def _expire(self) -> None:
        out = sum(len(lane.out) for lane in self._lanes.values())
        for _, request in await self._queue.expired(self._now(), EXPIRED + out):
            lane = self._lane(request.queue)
            if request.id in lane.out:
                continue
            entry = lane.find(request.id) or Entry(request)
            route = self._route(request)
            step = next_step(request, route, self._now(), lane.load, lane.served, entry.past)
            if isinstance(step, Failed) and not (step.kind == "deleted" and not await self._around.gone(request)):
                lane.take(entry)
                self._spawn(self._guarded(lane, entry, self._fail(lane, entry, step, route)))

    # -- one queue -----------------------------------------------------------------------------------------------------

    async def _follow(self, lane: Lane) -> None:
        """Empty a queue, for as long as there is one."""
        while True:
            lane.stirred.clear()
            try:
                await lane.fill()
                await self._dispatch(lane)
            except Exception:
                self._log.exception("a queue could not be worked at; trying again", queue=lane.name)
                await asyncio.sleep(TICK)
                continue
            if lane.idle and lane.name not in self._known():
                del self._lanes[lane.name]
                return
            if lane.waiting or not lane.has_more:
                await lane.stirred.wait()

    def _known(self) -> set[str]:
        found = (route.asynchronous for route in self._routes.table.endpoints.values())
        return {each.queue for each in found if each is not None}

    async def _dispatch(self, lane: Lane) -> None:
        """Give what waits to whoever has room, until nobody has."""
        while lane.waiting:
            await self._permits.acquire()  # first come, first served: queues take turns
            begun = False
            try:
                begun = await self._begin(lane)
            finally:
                if not begun:
                    self._permits.release()
            if not begun:
                return
            await lane.fill()

    async def _begin(self, lane: Lane) -> bool:
        """Begin the next step of the first in line; False where it has to wait."""
        if not lane.waiting:
            return False
        entry = lane.waiting[0]
        route = self._route(entry.request)
        if route is not None:
            lane.weigh({variant.name for variant in route.variants})
        step = next_step(entry.request, route, self._now(), lane.load, lane.served, entry.past)
        if isinstance(step, Failed) and step.kind == "deleted" and not await self._around.gone(entry.request):
            return False
        if isinstance(step, Wait) or entry not in lane.waiting:
            return False
        lane.take(entry)
        if isinstance(step, Failed):
            self._spawn(self._permitted(lane, entry, self._fail(lane, entry, step, route)))
        else:
            lane.begin(entry, step)
            self._spawn(self._permitted(lane, entry, self._try(lane, entry, step)))
        return True

    def _route(self, request: AsyncRequest) -> EndpointRoute | None:
        return self._routes.table.endpoints.get(request.endpoint)

    async def _permitted(self, lane: Lane, entry: Entry, work: Coroutine[Any, Any, None]) -> None:
        try:
            await self._guarded(lane, entry, work)
        finally:
            self._permits.release()

    async def _guarded(self, lane: Lane, entry: Entry, work: Coroutine[Any, Any, None]) -> None:
        """See a request to its end; should that fail, it is still in the store, and waits in line again later."""
        try:
            await work
        except Exception:
            self._log.exception("a request could not be seen to its end; it is tried again", request=entry.request.id)
            self._spawn(self._put_back(lane, entry))

    async def _put_back(self, lane: Lane, entry: Entry) -> None:
        await asyncio.sleep(AFTER_DEFECT)
        lane.put_back(entry)

    # -- one request ---------------------------------------------------------------------------------------------------

    async def _try(self, lane: Lane, entry: Entry, place: Invoke) -> None:
        request, begun = entry.request, self._now()
        try:
            outcome, times = await self._attempt(entry, place)
        except Transient as trouble:
            outcome, times = Unavailable(trouble.message), Times()
        except Exception:
            self._log.exception("an attempt failed for a reason of our own", request=request.id)
            outcome, times = Broken(place.target.hops[0].name), Times()
        finally:
            lane.end(place)
        if isinstance(outcome, Broken) and outcome.reached:
            entry.breaks += 1
        route = self._route(request)
        removed = route is None or place.target.id not in route.instances
        verdict = judge(request, outcome, entry.attempts, entry.breaks, removed=removed)
        if isinstance(verdict, Again):
            self._log.info("a request is tried again", request=request.id, outcome=str(outcome), attempt=entry.attempts)
            entry.trouble = verdict.trouble
            await asyncio.sleep(verdict.delay)
            lane.put_back(entry)
            return
        ending = Ending(place.variant.name, place.variant.role_arn, place.target.id, times, begun)
        await self._end(entry, verdict, ending)
        lane.forget(entry)

    async def _attempt(self, entry: Entry, place: Invoke) -> tuple[Outcome, Times]:
        request = entry.request
        if request.accepted_at < self._since and (found := await self._attempts.found(request)) is not None:
            return found, Times()
        inline = b"" if request.input_location else await self._queue.body(request.id)
        return await self._attempts.attempt(request, place, inline)

    async def _fail(self, lane: Lane, entry: Entry, failed: Failed, route: EndpointRoute | None) -> None:
        """End a request that no instance gets."""
        first = route.variants[0] if route is not None and route.variants else None
        await self._end(entry, failed, Ending(first.name if first else "", entry.request.role_arn))
        lane.forget(entry)

    async def _end(self, entry: Entry, end: Completed | Failed, ending: Ending) -> None:
        request = entry.request
        if isinstance(end, Failed):
            self._log.info("a request failed", endpoint=request.endpoint, request=request.id, reason=end.reason)
            if request.failure_location:
                await self._report(request, end, ending)
        told = notification(request, end, ending.variant, self._around.region, self._now())
        await self._settlement.settle(Settled(request.id, told))
        if told is not None:
            self._around.notifier.notify()
        try:
            self._note(request, end, ending)
        except Exception:  # it has ended all the same, and must not be tried again
            self._log.exception("the end of a request could not be noted", request=request.id)

    def _note(self, request: AsyncRequest, end: Completed | Failed, ending: Ending) -> None:
        if ending.variant:
            self._around.numbers.ended(request, ending.variant, end, ending.times, ending.begun)
        if ending.instance:
            stream = f"{ending.variant}/{ending.instance}"
            self._around.log.ended(request, stream, end, ending.times, ending.begun)

    async def _report(self, request: AsyncRequest, failed: Failed, ending: Ending) -> None:
        """Write down that a request failed; for as long as that takes."""
        tries = 0
        while True:
            try:
                await self._attempts.report(request, failed, ending.role)
                return
            except Transient as trouble:
                self._log.warning("a failure cannot be written now", request=request.id, reason=trouble.message)
            except Fatal as error:
                self._log.error("a failure cannot be written", url=request.failure_location, reason=error.message)
                if ending.variant:
                    self._around.numbers.failed_upload(request.endpoint, ending.variant)
                return
            await asyncio.sleep(REPORT_DELAYS[min(tries, len(REPORT_DELAYS) - 1)])
            tries += 1


def _topics(table: RouteTable) -> dict[str, AsyncInference]:
    """Give the asynchronous endpoints that have topics to tell of their results."""
    found = ((route.name, route.asynchronous) for route in table.endpoints.values())
    return {name: config for name, config in found if config and (config.success_topic or config.error_topic)}
