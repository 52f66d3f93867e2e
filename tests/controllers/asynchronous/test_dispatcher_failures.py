"""Queues when something fails: containers, the store, an endpoint, or we ourselves."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from clary.controllers.asynchronous.delivery import Times
from clary.core.asynchronous import AsyncRequest, Broken, Completed, Invoke, Outcome, Refused, Unavailable
from clary.core.queues import Bound
from clary.errors import Fatal, Transient
from clary.testing import in_virtual_time, now, until
from tests.controllers.asynchronous.world import World


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
async def test_what_expires_after_attempts_says_what_the_last_one_came_to(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a")
    world.attempts.behaviour = lambda request, instance: Unavailable("s3://in/x: no answer")
    async with world.running():
        ids = await world.ask("ep", ttl=60.0)
        await until(lambda: world.done(ids), 75.0)
    assert world.attempts.reported[ids[0]].endswith("(RequestTTLSeconds). The last attempt: s3://in/x: no answer")


@in_virtual_time
async def test_a_container_that_breaks_hands_its_request_to_another(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a", "b")
    world.attempts.behaviour = lambda request, instance: Broken("primary") if instance == "a" else 0.1
    await world.served("ep", 2)
    assert world.attempts.reported == {}
    assert Counter(instance for _, instance in world.attempts.made)["b"] == 2


@in_virtual_time
async def test_what_breaks_every_container_fails_and_the_others_go_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a", "b")
    world.attempts.behaviour = lambda request, instance: Broken("primary") if request.id == "ep-1" else 0.0
    await world.served("ep", 5)
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
    await world.served("ep", 8)
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
    ids = await world.served("ep")
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
    await world.served("ep")
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
    await world.served("ep", 3)
    assert list(world.attempts.reported) == ["ep-1"]


@in_virtual_time
async def test_what_cannot_be_ended_for_a_reason_of_ours_is_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", "a")
    world.attempts.behaviour = lambda request, instance: Refused("primary", 500, b"no")
    world.attempts.report_errors = [RuntimeError("a defect")] * 2
    ids = await world.served("ep", 2)
    assert sorted(world.attempts.reported) == ids
    assert len(world.attempts.made) == 4


@in_virtual_time
async def test_what_expires_and_cannot_be_ended_leaves_the_work_going(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.route("ep", status="Updating")
    world.attempts.report_errors = [RuntimeError("a defect")] * 2
    ids = await world.served("ep", ttl=5)
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
