"""Turns: few at once, and nobody waits for one that takes long."""

from __future__ import annotations

import asyncio

import pytest

from clary.controllers.turns import LONGEST, Turns
from clary.testing import in_virtual_time, now


@in_virtual_time
async def test_as_many_work_at_once_as_may() -> None:
    turns, ends = Turns(2), []
    begun = now()

    async def work() -> None:
        async with turns.turn():
            await asyncio.sleep(1)
        ends.append(now() - begun)

    await asyncio.gather(*(work() for _ in range(5)))
    assert ends == pytest.approx([1, 1, 2, 2, 3])


@in_virtual_time
async def test_one_that_takes_long_makes_place_for_one_other_and_for_no_more_when_it_ends() -> None:
    turns, begins = Turns(1), []
    begun = now()

    async def work(seconds: float) -> None:
        async with turns.turn():
            begins.append(now() - begun)
            await asyncio.sleep(seconds)

    await asyncio.gather(work(LONGEST + 1), work(2), work(2))
    assert begins == pytest.approx([0, LONGEST, LONGEST + 2])
