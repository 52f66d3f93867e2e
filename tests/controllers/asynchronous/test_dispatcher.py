"""Queues are worked at: in order, in turn, as much at once as instances take, and every request to its end."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.controllers.asynchronous import dispatcher as module
from clary.controllers.asynchronous.datalog import DataLog
from clary.controllers.asynchronous.delivery import Times
from clary.controllers.asynchronous.dispatcher import Dispatcher, Surroundings
from clary.controllers.asynchronous.notifier import Notifier
from clary.controllers.asynchronous.numbers import Numbers
from clary.controllers.routes import Routes
from clary.core.asynchronous import AsyncRequest, Broken, Completed, Failed, Invoke, Outcome, Refused, Unavailable
from clary.core.metrics import Point
from clary.core.queues import Bound
from clary.core.routing import AsyncInference, EndpointRoute, Hop, Target, VariantRoute
from clary.errors import Fatal, Transient
from clary.logs.folder import LogFolder
from clary.testing import MemoryQueue, in_virtual_time, now, until

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

    async def publish(self, topic: str, message: str) -> None:
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

    def done(self, ids: Sequence[str]) -> bool:
        return all(id in self.queue.ended for id in ids)

    def totals(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for point in self.points:
            found[point.series.name] = found.get(point.series.name, 0.0) + point.statistics.sum
        return found

    def newest(self) -> dict[str, float]:
        return {point.series.name: point.statistics.maximum for point in self.points}


@in_virtual_time
async def test_requests_are_done_once_and_in_order_those_of_an_earlier_life_first(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a")
    world.attempts.behaviour = lambda request, instance: 1.0
    before = await world.ask("ep", 3)
    async with world.running():
        after = await world.ask("ep", 250)
        await until(lambda: world.done([*before, *after]))
    assert [id for id, _ in world.attempts.made] == [*before, *after]


@in_virtual_time
async def test_what_was_answered_in_an_earlier_life_is_not_asked_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a")
    before = await world.ask("ep", 3, topic="arn:t")
    world.attempts.answered = {before[1]}
    await asyncio.sleep(1)
    async with world.running():
        await asyncio.sleep(1)
        after = await world.ask("ep", 2)
        world.attempts.answered |= set(after)  # nobody looks
        await until(lambda: world.done([*before, *after]))
    assert [id for id, _ in world.attempts.made] == [before[0], before[2], *after]
    assert len(world.queue.notifications) == 3


@in_virtual_time
async def test_nothing_is_begun_before_the_routes_are_known(tmp_path: Path) -> None:
    world = World(tmp_path)
    ids = await world.ask("ep")
    task = asyncio.create_task(world.dispatcher.run())
    await asyncio.sleep(100)
    assert world.attempts.made == []
    world.route("ep", "a")
    world.routes.open()
    await until(lambda: world.done(ids))
    assert world.attempts.reported == {}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@in_virtual_time
async def test_an_instance_gets_as_many_at_once_as_its_endpoint_says(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a", "b", concurrency=3)
    world.attempts.behaviour = lambda request, instance: 1.0
    async with world.running():
        ids = await world.ask("ep", 30)
        begun = now()
        await until(lambda: world.done(ids))
        assert now() - begun == pytest.approx(5.0, abs=0.5)  # 30 requests, 6 places, a second each
    assert world.attempts.most == {"a": 3, "b": 3}


@in_virtual_time
async def test_a_flood_at_one_endpoint_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 4)
    world = World(tmp_path)
    world.route("flood", "a", concurrency=100)
    world.route("drop", "b", concurrency=100)
    world.attempts.behaviour = lambda request, instance: 1.0
    async with world.running():
        await world.ask("flood", 400)
        await asyncio.sleep(0.5)
        ids = await world.ask("drop", 4)
        begun = now()
        await until(lambda: world.done(ids))
        assert now() - begun < 5  # they take turns; behind the flood it would be a hundred seconds


@in_virtual_time
async def test_requests_wait_for_instances_and_begin_when_there_are_some(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep")
    async with world.running():
        ids = await world.ask("ep", 2)
        await asyncio.sleep(100)
        assert world.attempts.made == []
        world.route("ep", "a")
        await until(lambda: world.done(ids), 1.0)


@in_virtual_time
async def test_what_waits_too_long_fails_wherever_in_line_it_is(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep")
    async with world.running():
        patient = await world.ask("ep", 300)
        hasty = await world.ask("ep", ttl=60.0)
        await until(lambda: world.done(hasty), 62.0)
        assert not any(world.done([id]) for id in patient)
        world.route("ep", "a", concurrency=100)
        await until(lambda: world.done(patient))
    assert list(world.attempts.reported) == hasty
    assert "expired" in world.attempts.reported[hasty[0]]
    assert {id for id, _ in world.attempts.made} == set(patient)


@in_virtual_time
async def test_a_request_that_is_being_done_does_not_expire(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a")
    world.attempts.behaviour = lambda request, instance: 300.0
    async with world.running():
        ids = await world.ask("ep", ttl=60.0)
        await until(lambda: world.done(ids))
    assert world.attempts.reported == {}
    assert len(world.attempts.made) == 1


@in_virtual_time
async def test_a_container_that_breaks_hands_its_request_to_another(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a", "b")
    world.attempts.behaviour = lambda request, instance: Broken("primary") if instance == "a" else 0.1
    async with world.running():
        ids = await world.ask("ep", 2)
        await until(lambda: world.done(ids))
    assert world.attempts.reported == {}
    assert Counter(instance for _, instance in world.attempts.made)["b"] == 2


@in_virtual_time
async def test_what_breaks_every_container_fails_and_the_others_go_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a", "b")
    world.attempts.behaviour = lambda request, instance: Broken("primary") if request.id == "ep-1" else 0.0
    async with world.running():
        ids = await world.ask("ep", 5)
        await until(lambda: world.done(ids))
    assert list(world.attempts.reported) == ["ep-1"]
    assert Counter(id for id, _ in world.attempts.made)["ep-1"] == 3


@in_virtual_time
async def test_what_breaks_a_container_takes_none_of_its_neighbours_with_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a", concurrency=4)
    together: set[str] = set()

    async def attempt(request: AsyncRequest, place: Invoke, inline: bytes) -> tuple[Outcome, Times]:
        """Read four at a time; the container that has the bad one dies with all that it has."""
        world.attempts.made.append((request.id, place.target.id))
        together.add(request.id)
        await asyncio.sleep(1.0)
        dies = "ep-1" in together
        await asyncio.sleep(0.0)
        together.discard(request.id)
        return (Broken("primary") if dies else Completed("text/plain")), Times()

    world.attempts.attempt = attempt  # type: ignore[method-assign]
    async with world.running():
        ids = await world.ask("ep", 8)
        await until(lambda: world.done(ids))
    assert list(world.attempts.reported) == ["ep-1"]


@in_virtual_time
async def test_an_instance_that_is_being_restarted_has_its_end_held_against_the_request(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a")

    def behaviour(request: AsyncRequest, instance: str) -> Outcome | float:
        world.routes.put("ep", replace(world.routes.table.endpoints["ep"], variants=()))  # it exits, and is not ready
        asyncio.get_running_loop().call_later(0.5, world.route, "ep", "a")
        return Broken("primary")

    world.attempts.behaviour = behaviour
    async with world.running():
        ids = await world.ask("ep")
        await until(lambda: world.done(ids))
    assert len(world.attempts.made) == 3
    assert list(world.attempts.reported) == ids


@in_virtual_time
async def test_an_instance_that_left_the_routes_is_not_held_against_its_requests(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a")
    moves = iter("bcdefg")

    def behaviour(request: AsyncRequest, instance: str) -> Outcome | float:
        if instance == "g":
            return 0.0
        world.route("ep", next(moves))  # it is replaced while it works
        return Broken("primary")

    world.attempts.behaviour = behaviour
    async with world.running():
        ids = await world.ask("ep")
        await until(lambda: world.done(ids))
    assert world.attempts.reported == {}
    assert [instance for _, instance in world.attempts.made] == list("abcdefg")


@in_virtual_time
async def test_a_store_that_is_away_costs_time_and_nothing_else(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a")
    world.attempts.behaviour = lambda request, instance: Unavailable("away") if now() < back else 0.0
    async with world.running():
        back = now() + 200
        ids = await world.ask("ep", 3)
        await until(lambda: world.done(ids))
    assert world.attempts.reported == {}


@in_virtual_time
async def test_a_defect_of_ours_ends_one_request_and_not_the_work(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a")

    def behaviour(request: AsyncRequest, instance: str) -> Outcome | float:
        if request.id == "ep-1":
            raise RuntimeError("a defect")
        return 0.0

    world.attempts.behaviour = behaviour
    async with world.running():
        ids = await world.ask("ep", 3)
        await until(lambda: world.done(ids))
    assert list(world.attempts.reported) == ["ep-1"]


@in_virtual_time
async def test_what_cannot_be_ended_for_a_reason_of_ours_is_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a")
    world.attempts.behaviour = lambda request, instance: Refused("primary", 500, b"no")
    world.attempts.report_errors = [RuntimeError("a defect")] * 2
    async with world.running():
        ids = await world.ask("ep", 2)
        await until(lambda: world.done(ids))
    assert sorted(world.attempts.reported) == ids
    assert len(world.attempts.made) == 4


@in_virtual_time
async def test_what_expires_and_cannot_be_ended_leaves_the_work_going(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", status="Updating")
    world.attempts.report_errors = [RuntimeError("a defect")] * 2
    async with world.running():
        ids = await world.ask("ep", ttl=5)
        await until(lambda: world.done(ids))
    assert list(world.attempts.reported) == ids


@in_virtual_time
async def test_an_end_that_cannot_be_noted_is_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    world.route("ep", "a")

    def full(*told: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(world.log, "ended", full)
    async with world.running():
        ids = await world.ask("ep", 3)
        await until(lambda: world.done(ids))
        await asyncio.sleep(300)
    assert len(world.attempts.made) == 3


@in_virtual_time
async def test_a_failure_is_written_before_the_request_leaves_the_queue_however_long_that_takes(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a")
    world.attempts.behaviour = lambda request, instance: Refused("primary", 500, b"no")
    world.attempts.report_errors = [Transient("away")] * 7
    async with world.running():
        ids = await world.ask("ep")
        await asyncio.sleep(30)
        assert not world.done(ids)
        await until(lambda: world.done(ids))
    assert list(world.attempts.reported) == ids
    assert len(world.attempts.made) == 1


@in_virtual_time
async def test_a_failure_that_nobody_may_write_is_counted_and_over(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a")
    world.attempts.behaviour = lambda request, instance: Refused("primary", 500, b"no")
    world.attempts.report_errors = [Fatal("no such bucket")]
    async with world.running():
        ids = await world.ask("ep")
        await until(lambda: world.done(ids))
        await world.numbers.tell()
    assert world.totals()["ResponseUploadFailures"] == 1


@in_virtual_time
async def test_the_requests_of_an_endpoint_that_is_deleted_fail_and_say_so(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep")
    async with world.running():
        ids = await world.ask("ep", 250, topic="arn:t")
        await asyncio.sleep(5)
        world.routes.put("ep", None)
        await until(lambda: world.done(ids))
    assert set(world.attempts.reported) == set(ids)
    assert "was deleted before" in world.attempts.reported[ids[0]]
    assert len(world.queue.notifications) == 250
    assert world.attempts.made == []


@in_virtual_time
async def test_requests_of_an_earlier_endpoint_of_the_same_name_are_not_the_new_ones(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a")
    old = AsyncRequest("old", "q-before", "ep", "mine", now(), now() + 3600, 60.0, "s3://b/o", "s3://f/o")
    await world.queue.add([(old, b"")], Bound(10, 10))
    async with world.running():
        ids = await world.ask("ep")
        await until(lambda: world.done(["old", *ids]))
    assert list(world.attempts.reported) == ["old"]
    assert [id for id, _ in world.attempts.made] == ids


@in_virtual_time
async def test_routes_that_do_not_know_an_endpoint_are_not_believed_against_the_store(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.there.add("q-ep")
    async with world.running():
        ids = await world.ask("ep")
        await asyncio.sleep(100)
        assert not world.done(ids)
        world.route("ep", "a")
        await until(lambda: world.done(ids))
    assert world.attempts.reported == {}


@in_virtual_time
async def test_bodies_are_read_from_the_queue(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a")
    async with world.running():
        (id,) = await world.ask("ep", body=b"inline")
        await until(lambda: world.done([id]))
    assert world.attempts.bodies == {id: b"inline"}


@in_virtual_time
async def test_a_new_endpoint_with_topics_greets_them_and_one_of_an_earlier_life_does_not(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("old", topic="arn:old")
    async with world.running():
        await asyncio.sleep(1)
        world.route("new", topic="arn:new")
        world.route("new", "a", topic="arn:new")
        await until(lambda: bool(world.queue.notifications))
        await asyncio.sleep(1)
    (greeting,) = world.queue.notifications.values()
    assert (greeting.notification.topic, greeting.notification.message["eventName"]) == ("arn:new", "TestNotification")


@in_virtual_time
async def test_numbers_are_those_of_the_service(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a", "b", concurrency=1)
    world.attempts.behaviour = lambda request, instance: Refused("primary", 404, b"") if request.id == "ep-1" else 7.0
    async with world.running():
        ids = await world.ask("ep", 5)
        await until(lambda: world.done(ids))
        await world.numbers.tell()
        totals = world.totals()
    assert (totals["InvocationsProcesssed"], totals["InvocationFailures"]) == (5, 1)
    assert totals["ModelLatency"] == pytest.approx(4 * 7e6)
    assert totals["TimeInBacklog"] == pytest.approx(3 * 7000, rel=0.6)
    assert totals["TotalProcessingTime"] > totals["TimeInBacklog"]
    assert "Invocations" not in totals


@in_virtual_time
async def test_backlogs_are_looked_at_every_ten_seconds(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep")
    async with world.running():
        await world.ask("ep", 6)
        await asyncio.sleep(10.5)
        await world.numbers.tell()
        without = world.newest()
        world.points.clear()
        world.attempts.behaviour = lambda request, instance: 1000.0
        world.route("ep", "a", "b")
        await asyncio.sleep(10)
        await world.numbers.tell()
        with_two = world.newest()
    assert (without["ApproximateBacklogSize"], without["HasBacklogWithoutCapacity"]) == (6, 1)
    assert without["ApproximateAgeOfOldestRequest"] == pytest.approx(10, abs=1)
    assert "ApproximateBacklogSizePerInstance" not in without
    assert (with_two["ApproximateBacklogSizePerInstance"], with_two["HasBacklogWithoutCapacity"]) == (3, 0)


@in_virtual_time
async def test_a_failure_is_written_as_the_role_of_the_endpoint_that_is_gone(tmp_path: Path) -> None:
    world = World(tmp_path)
    request = AsyncRequest(
        *("old", "q-before", "ep", "mine", now(), now() + 3600, 60.0, "s3://b/o", "s3://f/o"), role_arn="arn:r"
    )
    await world.queue.add([(request, b"")], Bound(9, 9))
    async with world.running():
        await until(lambda: world.done(["old"]))
    assert world.attempts.roles == {"old": "arn:r"}


@in_virtual_time
async def test_an_endpoint_that_is_gone_without_a_word_is_noticed(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.there = {"q-ep"}
    async with world.running():
        ids = await world.ask("ep", 2)
        await asyncio.sleep(5)
        assert not world.queue.ended
        world.there.clear()  # the routes have not had it for long
        await asyncio.sleep(11)
        assert world.done(ids)
    assert all("was deleted" in text for text in world.attempts.reported.values())


@in_virtual_time
async def test_ends_are_in_the_data_log_of_the_instance(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a")
    world.attempts.behaviour = lambda request, instance: Refused("primary", 500, b"x\ny") if "1" in request.id else 1.0
    async with world.running():
        ids = await world.ask("ep", 2)
        await until(lambda: world.done(ids))
    lines = [line for found in world.log._waiting.values() for _, line in found]
    assert list(world.log._waiting) == [("/aws/sagemaker/Endpoints/ep", "v/a/data-log")]
    assert b"[mine-ep-1] Received server error (500) from primary with message" in lines[0]
    assert b"[sagemaker logs] [mine-ep-2] Inference request succeeded. ModelLatency: 1000000 us" in lines[1]


@settings(deadline=None, max_examples=30)
@given(
    lives=st.lists(st.floats(0.1, 20.0), max_size=4),
    seconds=st.lists(st.floats(0.0, 8.0), min_size=1, max_size=12),
    breaks=st.sets(st.integers(1, 12), max_size=3),
)
def test_however_often_it_dies_every_request_ends_once(
    lives: list[float], seconds: list[float], breaks: set[int]
) -> None:
    """Requests of so many seconds each; some break their first container; the dispatcher lives so long each time."""

    @in_virtual_time
    async def check() -> None:
        with tempfile.TemporaryDirectory() as folder:
            world = World(Path(folder))
            world.route("ep", "a", "b", concurrency=2)
            broken: set[str] = set()

            def behaviour(request: AsyncRequest, instance: str) -> Outcome | float:
                number = int(request.id.removeprefix("ep-"))
                if number in breaks and request.id not in broken:
                    broken.add(request.id)
                    return Broken("primary")
                return seconds[number - 1]

            world.attempts.behaviour = behaviour
            ids = await world.ask("ep", len(seconds), topic="arn:t")
            for life in lives:
                async with world.running():
                    await asyncio.sleep(life)
                world.reborn()
            async with world.running():
                await until(lambda: world.done(ids))
            assert world.attempts.reported == {}
            told = Counter(each.notification.message["inferenceId"] for each in world.queue.notifications.values())
            assert told == Counter(f"mine-{id}" for id in ids)
            assert all(number <= 2 for number in world.attempts.most.values())

    check()
