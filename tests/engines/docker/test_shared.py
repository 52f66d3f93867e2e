"""One answer for all who ask at the same time."""

from __future__ import annotations

import asyncio

import pytest

from clary.engines.docker.shared import Shared


async def test_who_asks_before_it_begins_shares_the_answer_and_who_asks_later_does_not() -> None:
    asked = 0

    async def ask() -> int:
        nonlocal asked
        asked += 1
        mine = asked
        await asyncio.sleep(0.001)
        return mine

    question = Shared(ask)
    first = [asyncio.ensure_future(question()) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert asked == 1
    later = [asyncio.ensure_future(question()) for _ in range(3)]
    assert await asyncio.gather(*first, *later) == [1, 1, 1, 2, 2, 2]


async def test_an_error_is_everybodys_and_the_next_question_is_asked_anew() -> None:
    troubles = [OSError("away")]

    async def ask() -> str:
        if troubles:
            raise troubles.pop()
        return "fine"

    question = Shared(ask)
    assert [type(each) for each in await asyncio.gather(question(), question(), return_exceptions=True)] == [
        OSError
    ] * 2
    assert await question() == "fine"


async def test_one_who_goes_takes_the_answer_from_nobody() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def ask() -> str:
        begun.set()
        await go_on.wait()
        return "fine"

    question = Shared(ask)
    impatient, patient = asyncio.ensure_future(question()), asyncio.ensure_future(question())
    await begun.wait()
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    go_on.set()
    assert await patient == "fine"


async def test_closing_ends_it() -> None:
    question = Shared(asyncio.Event().wait)
    asking = asyncio.ensure_future(question())
    await asyncio.sleep(0)
    await question.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
