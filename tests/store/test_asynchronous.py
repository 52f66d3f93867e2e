"""Asynchronous requests on real files, and the fake beside it: both keep the same promises."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from clary.core.asynchronous import AsyncRequest, Backlog, Notification, Settled
from clary.core.queues import AsyncQueue, Bound, Outbox
from clary.store.store import Store
from clary.testing import MemoryQueue
from tests.stores import new_store

NOW = 1_700_000_000.0
BOUND = Bound(100, 1000)


class Queue(AsyncQueue, Outbox, Protocol):
    """Both sides of the same table."""


class Stored:
    """The store's two halves as one."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __getattr__(self, name: str) -> object:
        half = self.store.async_requests if hasattr(self.store.async_requests, name) else self.store.notifications
        return getattr(half, name)


@pytest.fixture(params=["store", "fake"])
async def queue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Queue]:
    if request.param == "fake":
        yield MemoryQueue(lambda: NOW)
        return
    store = await new_store(tmp_path, lambda: NOW)
    yield Stored(store)  # type: ignore[misc]
    await store.close()


def asked(id: str, queue: str = "q", *, accepted: float = NOW, expires: float = NOW + 60) -> AsyncRequest:
    return AsyncRequest(id, queue, "ep", "mine", accepted, expires, 60.0, f"s3://b/{id}.out")


async def add(queue: Queue, *requests: AsyncRequest, body: bytes = b"") -> list[bool]:
    return list(await queue.add([(request, body) for request in requests], BOUND))


async def ids(queue: Queue, name: str = "q", after: int = 0, limit: int = 100) -> list[str]:
    return [each.request.id for each in await queue.waiting(name, after, limit)]


async def test_requests_wait_in_the_order_in_which_they_came(queue: Queue) -> None:
    await add(queue, asked("b"), asked("a"), asked("z", "other"))
    await add(queue, asked("c"))
    assert await ids(queue) == ["b", "a", "c"]
    assert await ids(queue, "other") == ["z"]
    first, second = await queue.waiting("q", 0, 2)
    assert await ids(queue, after=second.number) == ["c"]
    assert await ids(queue, after=first.number, limit=1) == ["a"]


async def test_a_request_comes_back_as_it_was_with_its_body(queue: Queue) -> None:
    request = asked("a")
    await add(queue, request, body=b"\x00\xff")
    ((_, found),) = await queue.waiting("q", 0, 10)
    assert found == request
    assert await queue.body("a") == b"\x00\xff"


async def test_what_is_handed_over_twice_is_there_once_even_when_it_has_ended(queue: Queue) -> None:
    assert await add(queue, asked("a")) == [True]
    assert await add(queue, asked("a"), asked("b")) == [True, True]
    assert await ids(queue) == ["a", "b"]
    await queue.settle([Settled("a")])
    assert await add(queue, asked("a")) == [True]
    assert await ids(queue) == ["b"]


async def test_a_full_queue_takes_no_more_and_others_do(queue: Queue) -> None:
    kept = await queue.add([(asked(str(n)), b"") for n in range(5)], Bound(3, 100))
    assert list(kept) == [True, True, True, False, False]
    assert list(await queue.add([(asked("x"), b""), (asked("y", "other"), b"")], Bound(3, 100))) == [False, True]
    assert list(await queue.add([(asked("0"), b"")], Bound(3, 100))) == [True]  # it is there
    await queue.settle([Settled("1")])
    assert list(await queue.add([(asked("x"), b"")], Bound(3, 100))) == [True]


async def test_bodies_fill_a_queue_too(queue: Queue) -> None:
    kept = await queue.add([(asked("a"), b"x" * 60), (asked("b"), b"x" * 41), (asked("c"), b"x" * 40)], Bound(10, 100))
    assert list(kept) == [True, False, True]
    await queue.settle([Settled("a")])
    assert list(await queue.add([(asked("b"), b"x" * 60)], Bound(10, 100))) == [True]


async def test_what_may_wait_no_longer_is_found_and_what_has_ended_is_not(queue: Queue) -> None:
    await add(queue, asked("late", expires=NOW), asked("early", "other", expires=NOW - 5), asked("fine"))
    assert {each.request.id for each in await queue.expired(NOW, 10)} == {"late", "early"}
    await queue.settle([Settled("late")])
    assert [each.request.id for each in await queue.expired(NOW, 10)] == ["early"]


async def test_backlogs_count_what_has_not_ended(queue: Queue) -> None:
    await add(queue, asked("a", accepted=NOW - 9), asked("b", accepted=NOW - 5), asked("c", "other"))
    assert dict(await queue.backlogs()) == {"q": Backlog(2, NOW - 9), "other": Backlog(1, NOW)}
    await queue.settle([Settled("a"), Settled("c")])
    assert dict(await queue.backlogs()) == {"q": Backlog(1, NOW - 5)}


async def test_an_end_and_its_notification_are_one_step_and_the_first_end_counts(queue: Queue) -> None:
    await add(queue, asked("a"), asked("b"))
    told = Notification("arn:t", {"inferenceId": "mine"}, "ep", "v")
    await queue.settle([Settled("a", told), Settled("b")])
    await queue.settle([Settled("a", told)])
    (unsent,) = await queue.unsent(0, 10)
    assert (unsent.notification, unsent.since) == (told, NOW)
    await queue.sent([unsent.number])
    assert list(await queue.unsent(0, 10)) == []


async def test_notifications_come_in_pages(queue: Queue) -> None:
    await queue.post([Notification("arn:t", {"n": n}, "ep") for n in range(3)])
    first = await queue.unsent(0, 2)
    rest = await queue.unsent(first[-1].number, 2)
    assert [each.notification.message["n"] for each in (*first, *rest)] == [0, 1, 2]


async def test_ended_requests_are_forgotten_in_time(queue: Queue) -> None:
    await add(queue, asked("a"), asked("b"))
    await queue.settle([Settled("a")])
    await queue.forget(NOW)
    assert await add(queue, asked("a")) == [True]
    assert await ids(queue) == ["b"]
    await queue.forget(NOW + 1)
    assert await ids(queue) == ["b"]
    assert await add(queue, asked("c")) == [True]


async def test_what_waits_survives(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "clary.db")
    await store.async_requests.add([(asked("a"), b"body"), (asked("b"), b"")], BOUND)
    await store.async_requests.settle([Settled("b", Notification("arn:t", {}, "ep"))])
    await store.close()
    store = await Store.open(tmp_path / "clary.db")
    assert [each.request.id for each in await store.async_requests.waiting("q", 0, 10)] == ["a"]
    assert await store.async_requests.body("a") == b"body"
    assert len(await store.notifications.unsent(0, 10)) == 1
    await store.close()


async def test_numbers_are_never_given_twice(tmp_path: Path) -> None:
    """A reader that is behind them would miss what comes next."""
    store = await Store.open(tmp_path / "clary.db", time.time)
    await store.async_requests.add([(asked("a"), b"")], BOUND)
    ((first, _),) = await store.async_requests.waiting("q", 0, 10)
    await store.async_requests.settle([Settled("a")])
    await store.notifications.forget(time.time() + 1)
    await store.async_requests.add([(asked("b"), b"")], BOUND)
    ((second, _),) = await store.async_requests.waiting("q", first, 10)
    assert second > first
    await store.close()
