"""Queues are worked at: in order, in turn, as much at once as instances take, and every request to its end."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.controllers.asynchronous import dispatcher as module
from clary.core.asynchronous import AsyncRequest, Broken, Outcome, Refused
from clary.core.queues import Bound
from clary.testing import in_virtual_time, now, until
from tests.controllers.asynchronous.world import World


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
async def test_a_request_that_is_being_done_does_not_expire(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a")
    world.attempts.behaviour = lambda request, instance: 300.0
    await world.served("ep", ttl=60.0)
    assert world.attempts.reported == {}
    assert len(world.attempts.made) == 1


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
    (id,) = await world.served("ep", body=b"inline")
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
async def test_ends_are_in_the_data_log_of_the_instance(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a")
    world.attempts.behaviour = lambda request, instance: Refused("primary", 500, b"x\ny") if "1" in request.id else 1.0
    await world.served("ep", 2)
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
