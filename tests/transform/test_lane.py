"""What is under way at one instance: how much, in which order, and until when."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from clary.core.batching import MIB, Batch
from clary.core.transform import Pace
from clary.transform import lane as module
from clary.transform.calls import Asking, Caller, CallFailed
from clary.transform.lane import WEIGHT, Asker, Lane


class Opened:
    """An object that notes what becomes of its requests, and gives their room back."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self.is_over = False
        self.answers: list[tuple[int, bytes]] = []
        self.failures: list[tuple[int, str]] = []
        self.flowed = 0

    def answered(self, batch: Batch, answer: bytes) -> None:
        self.answers.append((batch.first, answer))
        self._lane.release(batch)

    def failed(self, batch: Batch, failure: CallFailed) -> None:
        self.failures.append((batch.first, failure.words))
        self._lane.release(batch)

    async def flow(self, caller: Caller) -> None:
        self.flowed += 1
        self._lane.release(module.WHOLE)


class Instance:
    """Answers a request when it is told to; many callers may ask it."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.may_answer = asyncio.Semaphore(0)
        self.late_checks = 0

    def open(self, answers: int = 10_000) -> None:
        for _ in range(answers):
            self.may_answer.release()

    async def ask(self, asking: Asking) -> None:
        body: bytes | None = asking.body
        while body is not None:
            self.asked.append(body)
            await self.may_answer.acquire()
            if body == b"bad":
                raise CallFailed("ClientError", "it is bad")
            body = asking.answered(body.upper())

    def give_up_if_late(self) -> None:
        self.late_checks += 1


class Scene:
    def __init__(self, senders: int = 2, payload: int = MIB) -> None:
        self.lane, self.instance = Lane(Pace(senders, payload, True)), Instance()
        caller = cast("Caller", self.instance)
        self._tasks = [asyncio.create_task(self.lane.send(caller)) for _ in range(senders)]
        self.tasks = [*self._tasks, asyncio.create_task(self.lane.watch())]

    async def __aenter__(self) -> Scene:
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def opened(self) -> Opened:
        made = Opened(self.lane)
        _: Asker = made
        return made


def batches(*bodies: bytes) -> list[Batch]:
    return [Batch(body, number) for number, body in enumerate(bodies, 1)]


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_as_many_at_once_as_there_are_senders_in_the_order_of_the_offers() -> None:
    async with asyncio.timeout(60), Scene(senders=2) as scene:
        one, other = scene.opened(), scene.opened()
        await scene.lane.offer(one, batches(b"a", b"b"))
        await scene.lane.offer(other, batches(b"c"))
        await settled()
        assert scene.instance.asked == [b"a", b"b"]
        scene.instance.open()
        await settled()
        assert scene.instance.asked == [b"a", b"b", b"c"]
        assert (sorted(one.answers), other.answers) == ([(1, b"A"), (2, b"B")], [(1, b"C")])


async def test_an_offer_waits_until_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_BUDGET", 3 * (WEIGHT + 1))
    async with asyncio.timeout(60), Scene(senders=1, payload=0) as scene:
        one = scene.opened()
        await scene.lane.offer(one, batches(b"a", b"b"))
        offering = asyncio.create_task(scene.lane.offer(one, batches(b"c", b"d")))
        await settled()
        assert not offering.done()
        scene.instance.open(1)
        await settled()
        assert not offering.done()  # three are left, which is as much as there may be
        scene.instance.open(1)
        await offering
        assert scene.instance.asked == [b"a", b"b", b"c"]


async def test_nothing_is_asked_while_too_many_answers_wait_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_HELD", 10)
    async with asyncio.timeout(60), Scene(senders=1) as scene:
        one = scene.opened()
        scene.lane.hold(b"x" * 10)
        await scene.lane.offer(one, batches(b"a"))
        await settled()
        assert scene.instance.asked == []
        scene.lane.let_go(b"x" * 10)
        await settled()
        assert scene.instance.asked == [b"a"]


async def test_requests_of_an_object_that_is_over_are_not_made_and_give_their_room_back() -> None:
    async with asyncio.timeout(60), Scene(senders=1) as scene:
        one, over = scene.opened(), scene.opened()
        await scene.lane.offer(one, batches(b"a"))
        await scene.lane.offer(over, batches(b"b", b"c"))
        await scene.lane.offer(one, batches(b"d"))
        over.is_over = True
        scene.instance.open()
        await settled()
        assert scene.instance.asked == [b"a", b"d"]
        assert over.answers == [(1, b""), (2, b"")]


async def test_one_that_fails_is_told_which_and_the_others_go_on() -> None:
    async with asyncio.timeout(60), Scene(senders=1) as scene:
        one, other = scene.opened(), scene.opened()
        await scene.lane.offer(one, batches(b"a", b"bad", b"b"))
        await scene.lane.offer(other, batches(b"c"))
        scene.instance.open()
        await settled()
        assert one.failures == [(2, "it is bad")]
        assert one.answers == [(1, b"A"), (3, b"B")]
        assert other.answers == [(1, b"C")]


async def test_objects_that_go_through_as_they_come_take_a_sender_each() -> None:
    async with asyncio.timeout(60), Scene(senders=2) as scene:
        found = [scene.opened() for _ in range(3)]
        for each in found:
            await scene.lane.offer(each, [module.WHOLE])
        await settled()
        assert [each.flowed for each in found] == [1, 1, 1]
        assert scene.instance.asked == []


async def test_callers_are_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LATENESS", 0.001)
    async with asyncio.timeout(60), Scene(senders=1) as scene:
        while scene.instance.late_checks < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
