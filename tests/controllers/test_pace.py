"""The bounds of what loading may take of a machine, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from clary.controllers.pace import BURST, LONGEST, SHARE, Pace
from clary.testing import in_virtual_time, now


class Work:
    """Work of a known price, at a pace."""

    def __init__(self, processors: int, price: float) -> None:
        self._used = 0.0
        self._price = price
        self._pace = Pace(processors, lambda: self._used, now)

    async def do(self, seconds: float) -> int:
        """Work for a while; give how often."""
        done, until = 0, now() + seconds
        while now() < until:
            await self._pace.keep()
            self._used += self._price
            done += 1
            await asyncio.sleep(self._price)
        return done


@pytest.mark.parametrize("processors", [2, 4])
@in_virtual_time
async def test_in_the_long_run_it_takes_its_share(processors: int) -> None:
    price, seconds = 0.01, 60.0
    done = await Work(processors, price).do(seconds)
    assert done * price == pytest.approx(BURST + seconds * processors * SHARE, rel=0.02)


@in_virtual_time
async def test_a_few_are_not_held_up_and_after_a_rest_a_few_more() -> None:
    work = Work(2, 0.01)
    for _ in range(2):
        begun = now()
        assert await work.do(BURST) == pytest.approx(BURST / 0.01)
        assert now() - begun == pytest.approx(BURST)
        await asyncio.sleep(10)


@in_virtual_time
async def test_where_there_are_processors_to_spare_nothing_waits() -> None:
    assert await Work(64, 0.01).do(10.0) == 1000


@in_virtual_time
async def test_those_who_wait_go_in_the_order_in_which_they_came() -> None:
    used = 0.0
    pace = Pace(2, lambda: used, now)
    used, begun = BURST + 1.0, now()
    order: list[int] = []

    async def come(number: int) -> None:
        await pace.keep()
        order.append(number)

    await asyncio.gather(*(come(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]
    assert now() - begun == pytest.approx(LONGEST, abs=1e-3)


@in_virtual_time
async def test_what_else_the_process_does_holds_up_no_load_for_long() -> None:
    used = 0.0
    pace = Pace(2, lambda: used, now)
    for _ in range(5):
        used, begun = used + 3600.0, now()  # an hour of other work
        await pace.keep()
        assert now() - begun <= LONGEST + 1e-3
    await asyncio.sleep(LONGEST)
    begun = now()
    await pace.keep()
    assert now() == begun
