from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from clary.controllers.loop import RESYNC, Loop
from clary.errors import Transient
from clary.testing import in_virtual_time, now


@asynccontextmanager
async def running(
    reconcile: Callable[[str], Awaitable[float | None]], *keys: str, first: Callable[[], None] = lambda: None
) -> AsyncIterator[Loop]:
    async def list_keys() -> list[str]:
        return list(keys)

    loop = Loop(reconcile, list_keys, now)
    task = asyncio.create_task(loop.run(first))
    await asyncio.sleep(0)
    try:
        yield loop
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1, "nothing is left running"


@in_virtual_time
async def test_a_key_has_one_worker_and_many_notifications_are_one_more_look() -> None:
    at_work, most, looks = 0, 0, 0

    async def reconcile(key: str) -> None:
        nonlocal at_work, most, looks
        at_work, looks = at_work + 1, looks + 1
        most = max(most, at_work)
        await asyncio.sleep(1)
        at_work -= 1

    async with running(reconcile) as loop:
        loop.notify("a")
        await asyncio.sleep(0.5)
        for _ in range(10):
            loop.notify("a")
        await asyncio.sleep(5)
    assert (most, looks) == (1, 2)


@in_virtual_time
async def test_keys_do_not_wait_for_each_other() -> None:
    done: list[tuple[str, float]] = []
    start = now()

    async def reconcile(key: str) -> None:
        await asyncio.sleep(10 if key == "slow" else 1)
        done.append((key, now() - start))

    async with running(reconcile, "slow", "quick"):
        await asyncio.sleep(15)
    assert done == [("quick", 1.0), ("slow", 10.0)]


@in_virtual_time
async def test_everything_is_looked_at_at_start_and_every_thirty_seconds() -> None:
    looks: list[float] = []
    start = now()

    async def reconcile(key: str) -> None:
        looks.append(round(now() - start))

    async with running(reconcile, "a"):
        await asyncio.sleep(2 * RESYNC + 1)
    assert looks == [0, 30, 60]


@in_virtual_time
async def test_it_wakes_when_it_was_asked_to_and_a_notification_replaces_the_alarm() -> None:
    looks: list[float] = []
    start = now()

    async def reconcile(key: str) -> float | None:
        looks.append(round(now() - start))
        return now() + 7 if len(looks) < 3 else None

    async with running(reconcile) as loop:
        loop.notify("a")
        await asyncio.sleep(3)
        loop.notify("a")
        await asyncio.sleep(20)
    assert looks == [0, 3, 10]


@in_virtual_time
async def test_an_unexpected_error_is_tried_again_with_growing_pauses_and_stops_nobody() -> None:
    looks: dict[str, list[float]] = {"bad": [], "good": []}
    start = now()

    async def reconcile(key: str) -> None:
        looks[key].append(round(now() - start, 1))
        if key == "bad":
            raise ZeroDivisionError

    async with running(reconcile, "bad") as loop:
        await asyncio.sleep(4)
        loop.notify("good")
        await asyncio.sleep(10)
    assert looks["bad"] == [0.0, 0.1, 0.6, 1.6, 3.6, 8.6]
    assert looks["good"] == [4.0]


@in_virtual_time
async def test_the_first_pass_ends_when_all_keys_succeeded_once() -> None:
    first: list[float] = []
    start = now()
    failures = {"a": 2}

    async def reconcile(key: str) -> None:
        if failures.get(key, 0):
            failures[key] -= 1
            raise OSError("not yet")

    async with running(reconcile, "a", "b", first=lambda: first.append(round(now() - start, 1))):
        await asyncio.sleep(5)
    assert first == [0.6]


@in_virtual_time
async def test_the_first_pass_does_not_wait_for_ever() -> None:
    first: list[float] = []
    start = now()

    async def reconcile(key: str) -> None:
        await asyncio.sleep(1000)

    async with running(reconcile, "a", first=lambda: first.append(round(now() - start))):
        await asyncio.sleep(20)
    assert first == [10]


@in_virtual_time
async def test_a_listing_that_fails_is_tried_again() -> None:
    calls = 0
    looked = asyncio.Event()

    async def keys() -> list[str]:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise OSError("database is away")
        return ["a"]

    async def reconcile(key: str) -> None:
        looked.set()

    task = asyncio.create_task(Loop(reconcile, keys, now).run())
    await asyncio.wait_for(looked.wait(), 5)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@in_virtual_time
async def test_a_look_that_hangs_is_given_up_and_repeated() -> None:
    looks: list[float] = []
    start = now()

    async def reconcile(key: str) -> None:
        looks.append(round(now() - start))
        await asyncio.sleep(1e6 if len(looks) == 1 else 0)

    async with running(reconcile) as loop:
        loop.notify("a")
        await asyncio.sleep(100)
    assert looks == [0, 60]


@in_virtual_time
async def test_an_engine_that_is_away_is_asked_again_when_it_said() -> None:
    looks: list[float] = []
    start = now()

    async def reconcile(key: str) -> None:
        looks.append(now() - start)
        if len(looks) < 3:
            raise Transient("Docker is away", retry_after=2.0)

    async with running(reconcile, "a"):
        await asyncio.sleep(20)
    assert looks == [0.0, 2.0, 4.0]
