"""Notifications: each is sent at least once, and what cannot be sent holds up no other."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence

import pytest

from clary.controllers.asynchronous import notifier as module
from clary.controllers.asynchronous.notifier import Notifier
from clary.core.asynchronous import Notification
from clary.core.routing import AsyncInference
from clary.errors import Fatal, Transient
from clary.testing import MemoryQueue, in_virtual_time, until


class Publisher:
    """Publishes, but for topics that are in trouble."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.tried: Counter[str] = Counter()
        self.ids: list[str] = []
        self.trouble: dict[str, Exception] = {}

    async def publish(self, topic: str, message: str, id: str) -> None:
        self.tried[topic] += 1
        self.ids.append(id)
        if topic in self.trouble:
            raise self.trouble[topic]
        self.sent.append((topic, message))


class Logged:
    """What is warned of."""

    def __init__(self) -> None:
        self.warnings: list[dict[str, object]] = []

    def warning(self, event: str, **details: object) -> None:
        self.warnings.append(details)


class World:
    def __init__(self) -> None:
        self.queue = MemoryQueue(clock=lambda: 0.0)
        self.publisher = Publisher()
        self.failed: list[tuple[str, str]] = []
        self.notifier = Notifier(
            self.queue, self.publisher, lambda endpoint, variant: self.failed.append((endpoint, variant))
        )

    async def post(self, *topics: str) -> None:
        await self.queue.post([Notification(topic, {"n": n}, "ep", "v") for n, topic in enumerate(topics)])


@in_virtual_time
async def test_what_waits_is_sent_and_forgotten() -> None:
    world = World()
    await world.post("a", "b")
    assert not await world.notifier.send()
    assert sorted(world.publisher.sent) == [("a", json.dumps({"n": 0})), ("b", json.dumps({"n": 1}))]
    assert world.queue.notifications == {}


@in_virtual_time
async def test_a_topic_in_trouble_holds_up_no_other_and_is_tried_again(monkeypatch: object) -> None:
    world = World()
    world.queue = MemoryQueue(clock=module.time.time)  # since when they wait is told by the same clock
    world.notifier = Notifier(world.queue, world.publisher, lambda endpoint, variant: None)
    world.publisher.trouble = {"bad": Transient("away")}
    await world.post(*["bad", "good"] * 300)
    running = asyncio.create_task(world.notifier.run())
    await until(lambda: world.publisher.tried["bad"] > 600)
    assert Counter(topic for topic, _ in world.publisher.sent) == {"good": 300}
    world.publisher.trouble = {}
    await until(lambda: not world.queue.notifications)
    assert Counter(topic for topic, _ in world.publisher.sent) == {"good": 300, "bad": 300}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@in_virtual_time
async def test_an_outage_is_told_once_and_each_is_known_by_one_id(monkeypatch: pytest.MonkeyPatch) -> None:
    world, told = World(), Logged()
    world.queue = MemoryQueue(clock=module.time.time)
    monkeypatch.setattr(module, "logger", lambda area: told)
    world.notifier = Notifier(world.queue, world.publisher, lambda endpoint, variant: None)
    world.publisher.trouble = {"bad": Transient("away")}
    await world.post(*["bad"] * 300)
    for _ in range(3):
        assert await world.notifier.send()
    assert told.warnings == [{"count": 300, "reason": "away"}]
    assert set(Counter(world.publisher.ids).values()) == {3}


@in_virtual_time
async def test_what_never_can_be_sent_is_given_up_and_counted() -> None:
    world = World()
    world.publisher.trouble = {"gone": Fatal("no such topic"), "away": Transient("for an hour")}
    await world.post("gone", "away")  # since 1970
    assert not await world.notifier.send()
    assert world.failed == [("ep", "v"), ("ep", "v")]
    assert world.queue.notifications == {}


@in_virtual_time
async def test_a_new_one_is_sent_at_once() -> None:
    world = World()
    running = asyncio.create_task(world.notifier.run())
    await asyncio.sleep(1)
    await world.post("a")
    world.notifier.notify()
    await until(lambda: bool(world.publisher.sent), 0.1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@in_virtual_time
async def test_topics_of_a_new_endpoint_are_greeted() -> None:
    world = World()
    await world.notifier.greet("ep", AsyncInference("q", "s3://b", success_topic="ok", error_topic="bad"))
    await world.notifier.send()
    greeting = '{"eventVersion": "1.0", "eventSource": "aws:sagemaker", "eventName": "TestNotification"}'
    assert sorted(world.publisher.sent) == [("bad", greeting), ("ok", greeting)]


@in_virtual_time
async def test_a_store_in_trouble_is_asked_again() -> None:
    world = World()
    await world.post("a")
    unsent, failures = world.queue.unsent, 3

    async def failing(after: int, limit: int) -> Sequence[object]:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise OSError("disk")
        return await unsent(after, limit)

    world.queue.unsent = failing  # type: ignore[method-assign, assignment]
    running = asyncio.create_task(world.notifier.run())
    await until(lambda: bool(world.publisher.sent))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
