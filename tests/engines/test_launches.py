"""Launches: one at a time for each container, and cancelled as a whole."""

from __future__ import annotations

import asyncio

import pytest

from clary.core.containers import Container
from clary.engines.launches import Launches
from clary.errors import LaunchFailure


def made(number: int) -> Container:
    return Container("c", "e", "v", "i", "d", "running", "127.0.0.1", number, 0.0)


async def test_launches_of_one_container_follow_each_other() -> None:
    launches, at_work, most = Launches(), 0, 0

    async def work() -> Container:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0.001)
        at_work -= 1
        return made(most)

    await asyncio.gather(*(launches.run("c", work) for _ in range(5)))
    assert most == 1
    assert "c" not in launches.ids()


async def test_whoever_is_cancelled_waits_for_the_cleaning_up() -> None:
    launches, cleaned = Launches(), asyncio.Event()

    async def work() -> Container:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0.001)
            cleaned.set()
        return made(1)

    task = asyncio.ensure_future(launches.run("c", work))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned.is_set()


async def test_a_launch_that_somebody_else_cancels_has_failed() -> None:
    launches = Launches()

    async def work() -> Container:
        await asyncio.sleep(1000)
        return made(1)

    task = asyncio.ensure_future(launches.run("c", work))
    await asyncio.sleep(0)
    await launches.cancel("c")
    await launches.cancel("nobody")
    with pytest.raises(LaunchFailure, match="stopped before it had started"):
        await task
