"""Requests that are made again, as often as allowed and no oftener; pipelines; containers that come and go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from clary.channel import Broken
from clary.core.routing import Hop
from clary.core.transform import Work
from clary.transform import calls as module
from clary.transform.calls import Caller, CallFailed, parameters_of

from .container import CLOSE, Container, Places, Request, good


class Asked:
    """Wants these requests made, one after the other."""

    def __init__(self, bodies: Sequence[bytes]) -> None:
        self._left = list(bodies)
        self.body = self._left.pop(0)
        self.answers: list[bytes] = []

    def answered(self, answer: bytes) -> bytes | None:
        self.answers.append(answer)
        if not self._left:
            return None
        self.body = self._left.pop(0)
        return self.body


def work(**client: int) -> Work:
    return Work(
        {
            "TransformInput": {"ContentType": "text/csv"},
            "TransformOutput": {"Accept": "x/y"},
            "ModelClientConfig": client,
        }
    )


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)


@asynccontextmanager
async def calling(answer: Callable[[Request], Iterable[bytes | None]], **client: int) -> AsyncIterator[tuple[Any, Any]]:
    async with asyncio.timeout(60), Container(answer) as container:
        caller = Caller(Places(container.hop), work(**client), "i")  # type: ignore[arg-type]
        yield caller, container
        caller.close()


async def test_one_request_follows_the_other_over_one_connection() -> None:
    async with calling(lambda request: [good(request.body.upper())]) as (caller, container):
        asked = Asked([b"a", b"b", b"c"])
        await caller.ask(asked)
        assert asked.answers == [b"A", b"B", b"C"]
        assert container.connections == 1
        head = container.requests[0].head.decode().split("\r\n")
        assert head[0] == "POST /invocations HTTP/1.1"
        assert head[2:] == ["Content-Type: text/csv", "Accept: x/y", "Content-Length: 1"]


async def test_attempts_are_counted_for_each_request() -> None:
    seen: list[bytes] = []

    def answer(request: Request) -> Iterable[bytes]:
        seen.append(request.body)
        first = seen.count(request.body) == 1
        return [good(b"oops", status=b"500 Oops") if first else good(request.body)]

    async with calling(answer, InvocationsMaxRetries=1) as (caller, _):
        asked = Asked([b"a", b"b", b"c"])
        await caller.ask(asked)
        assert asked.answers == [b"a", b"b", b"c"]
        assert seen == [b"a", b"a", b"b", b"b", b"c", b"c"]


@pytest.mark.parametrize(
    ("status", "attempts", "blame"),
    [
        (b"500 Oops", 3, "AlgorithmError"),
        (b"429 Slow Down", 3, "ClientError"),
        (b"400 Bad Request", 1, "ClientError"),
        (b"302 Found", 3, "AlgorithmError"),
    ],
)
async def test_what_is_refused_is_asked_again_where_that_can_help(status: bytes, attempts: int, blame: str) -> None:
    def answer(request: Request) -> Iterable[bytes]:
        return [good(b"no" * 10_000, status=status) if request.body == b"bad" else good(b"")]

    async with calling(answer, InvocationsMaxRetries=2) as (caller, container):
        asked = Asked([b"good", b"bad", b"never"])
        with pytest.raises(CallFailed) as raised:
            await caller.ask(asked)
        assert (raised.value.blame, raised.value.status) == (blame, int(status[:3]))
        assert raised.value.body == b"no" * 4096
        assert asked.body == b"bad"
        assert container.bodies == [b"good", *[b"bad"] * attempts]


async def test_a_connection_that_is_closed_between_two_requests_costs_no_attempt() -> None:
    async with calling(lambda request: [good(request.body), CLOSE], InvocationsMaxRetries=0) as (caller, container):
        asked = Asked([b"%d" % number for number in range(5)])
        await caller.ask(asked)
        assert asked.answers == [b"%d" % number for number in range(5)]
        assert container.connections == 5


@pytest.mark.parametrize("pieces", [(CLOSE,), (good(b"hello")[:-1], CLOSE), (b"nonsense\r\n\r\n",)])
async def test_a_request_without_a_whole_answer_has_failed(pieces: tuple[bytes | None, ...]) -> None:
    async with calling(lambda request: pieces, InvocationsMaxRetries=1) as (caller, container):
        with pytest.raises(CallFailed, match="Unable to get response from algorithm") as raised:
            await caller.ask(Asked([b"a"]))
        assert raised.value.blame == "AlgorithmError"
        assert container.bodies == [b"a", b"a"]


async def test_a_request_that_takes_too_long_has_failed() -> None:
    async with calling(lambda request: [], InvocationsMaxRetries=0, InvocationsTimeoutInSeconds=1) as (caller, _):

        async def watch() -> None:
            while True:
                await asyncio.sleep(0.05)
                caller.give_up_if_late()

        watching = asyncio.create_task(watch())
        begun = time.monotonic()
        with pytest.raises(CallFailed, match="no answer within 1 s"):
            await caller.ask(Asked([b"a"]))
        assert time.monotonic() - begun >= 1
        watching.cancel()


async def test_what_one_container_of_a_pipeline_answers_the_next_is_asked() -> None:
    def first(request: Request) -> Iterable[bytes]:
        kind = b"Content-Type: kind/" + request.body
        return [good(b"no", status=b"500 Oops") if request.body == b"bad" else good(request.body * 2, kind)]

    async with (
        asyncio.timeout(60),
        Container(first) as one,
        Container(lambda request: [good(b"<" + request.body + b">")]) as other,
    ):
        hops = replace(one.hop, name="first"), replace(other.hop, name="second")
        caller = Caller(Places(*hops), work(InvocationsMaxRetries=0), "i")  # type: ignore[arg-type]
        asked = Asked([b"a", b"b"])
        await caller.ask(asked)
        assert asked.answers == [b"<aa>", b"<bb>"]
        assert [request.header(b"content-type") for request in one.requests] == [b"text/csv"] * 2
        assert [request.header(b"content-type") for request in other.requests] == [b"kind/a", b"kind/b"]
        assert [request.header(b"accept") for request in (*one.requests, *other.requests)] == [None] * 2 + [b"x/y"] * 2
        with pytest.raises(CallFailed, match="500 from container first"):
            await caller.ask(Asked([b"bad"]))
        assert len(other.requests) == 2
        caller.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((good(b"no", status=b"400 No"),), "ClientError: 400 from container second$"),
        ((CLOSE,), "second: the container"),
    ],
)
async def test_what_fails_in_a_pipeline_is_named(answer: tuple[bytes | None, ...], words: str) -> None:
    async with (
        asyncio.timeout(10),
        Container(lambda request: [good(b"a")]) as one,
        Container(lambda _: answer) as other,
    ):
        hops = replace(one.hop, name="first"), replace(other.hop, name="second")
        caller = Caller(Places(*hops), work(InvocationsMaxRetries=0), "i")  # type: ignore[arg-type]
        with pytest.raises(CallFailed, match=words):
            await caller.ask(Asked([b"a"]))
        caller.close()


async def test_a_container_that_starts_afresh_is_waited_for() -> None:
    async with (
        asyncio.timeout(60),
        Container(lambda request: [CLOSE]) as old,
        Container(lambda request: [good(b"new")]) as new,
    ):
        places = Places(old.hop)
        caller = Caller(places, work(InvocationsMaxRetries=1), "i")  # type: ignore[arg-type]
        asked = Asked([b"a"])
        asking = asyncio.create_task(caller.ask(asked))
        while not old.requests:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        places.hops = None
        await asyncio.sleep(0.05)
        assert not asking.done()
        places.hops = (new.hop,)
        await asking
        assert asked.answers == [b"new"]
        caller.close()


async def test_the_parameters_of_a_container_are_what_it_says_with_200() -> None:
    async with asyncio.timeout(60), Container(lambda request: [good(b"{}")]) as container:
        assert await parameters_of(container.hop, 5) == b"{}"
        assert container.requests[0].head.startswith(b"GET /execution-parameters HTTP/1.1\r\n")
    for answer in (good(b"no", status=b"404 Not Found"), b"nonsense\r\n\r\n"):
        async with asyncio.timeout(60), Container(lambda request, answer=answer: [answer]) as container:  # type: ignore[misc]
            with pytest.raises(Broken):
                await parameters_of(container.hop, 5)
    with pytest.raises(Broken, match="takes no connection"):
        await parameters_of(Hop("gone", "127.0.0.1", 1), 5)
