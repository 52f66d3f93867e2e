"""Answers in any form, in any pieces; and a connection that is used for one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from clary import channel as module
from clary.channel import LARGE, Broken, Channel, Reply, Take
from tests.transform.container import good

HEAD = b"POST /invocations HTTP/1.1\r\nContent-Length: "


class Conversation:
    """A channel without a network, in the middle of a request."""

    def __init__(self, take: Take | None = None, body: bytes = b"first") -> None:
        self.channel = Channel()
        self.transport = Mock(spec=asyncio.Transport)
        self.channel.connection_made(self.transport)
        self.future: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        self.channel.ask(HEAD, body, self.future, take)

    @property
    def written(self) -> list[bytes]:
        return [call.args[0] for call in self.transport.write.call_args_list]

    def hears(self, *pieces: bytes) -> None:
        for piece in pieces:
            if not self.channel.is_closed and piece:
                self.channel.data_received(piece)


def within(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


ANSWERS = {
    good(b"hello", b"Content-Type: text/csv"): Reply(200, b"hello", b"text/csv"),
    good(b"", b"content-type:text/csv"): Reply(200, b"", b"text/csv"),
    good(b"x", b"Connection: keep-alive", status=b"201 Created"): Reply(201, b"x"),
    good(b"x", b"Connection: close"): Reply(200, b"x"),
    good(b"no", status=b"400 Bad Request"): Reply(400, b"no"),
    good(b"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"): Reply(
        200, b"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    ),
    b"HTTP/1.1 100 Continue\r\n\r\n" + good(b"late"): Reply(200, b"late"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n": Reply(200, b"abcde"),
    b"HTTP/1.1 204 No Content\r\n\r\n": Reply(204, b""),
    b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nto the end": Reply(200, b"to the end"),
    b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold": Reply(200, b"old"),
}


@given(answer=some.sampled_from(list(ANSWERS)), cuts=some.lists(some.integers(0, 80), max_size=5))
def test_an_answer_is_the_same_in_any_pieces(answer: bytes, cuts: list[int]) -> None:
    async def test() -> None:
        for take in (None, lambda body: None):
            talk = Conversation(take)
            places = [0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
            talk.hears(*(answer[start:end] for start, end in pairwise(places)))
            if answer.endswith(b"to the end"):
                talk.channel.connection_lost(None)
            reply = await talk.future
            keeps = b"close" not in answer and b"HTTP/1.0" not in answer and b"to the end" not in answer
            assert talk.channel.is_closed is not keeps
            taken = take is not None and keeps and 200 <= ANSWERS[answer].status < 300
            assert reply == (None if taken else ANSWERS[answer])

    within(test)


LINES = some.sampled_from(
    [b"Content-Length: 5", b"content-length:5", b"Content-Length: 3", b"Content-Length: +5", b"Content-Length: 5, 5",
     b"Transfer-Encoding: chunked", b"Connection: close", b"Connection: keep-alive", b"Connection: Keep-Alive, x",
     b"Upgrade: h2c", b" folded", b"Content-Length : 5", b": 5", b"no colon", b"X: y",
     b"Content-Length: " + b"9" * 5000, b"Content-Type: a", b"Content-Type: b"]
)  # fmt: skip


@given(lines=some.lists(LINES, max_size=5), status=some.sampled_from([b"200", b"201", b"204", b"205", b"2x", b"500"]))
@example([b"Content-Length: 5", b"Content-Length: 3"], b"200")
@example([b"Content-Length: 5", b"Transfer-Encoding: chunked"], b"200")
def test_what_is_read_by_hand_is_what_the_parser_reads(lines: list[bytes], status: bytes) -> None:
    answer = b"\r\n".join((b"HTTP/1.1 " + status + b" OK", *lines, b"", b"hello"))

    async def heard(by_hand: bool) -> object:
        talk = Conversation()
        with pytest.MonkeyPatch.context() as patch:
            if not by_hand:
                patch.setattr(module, "_plain", lambda head: None)
            talk.hears(answer)
        if not talk.future.done():
            talk.channel.connection_lost(None)
        try:
            return await talk.future, talk.channel.is_closed
        except Broken as error:
            return error.answered

    async def test() -> None:
        assert await heard(True) == await heard(False)

    within(test)


def test_the_next_request_is_written_where_the_answer_was_read() -> None:
    async def test() -> None:
        taken: list[bytes] = []
        following = iter([b"second!", b"third", None])

        def take(answer: bytes) -> bytes | None:
            taken.append(answer)
            return next(following)

        talk = Conversation(take)
        talk.hears(good(b"1"), good(b"22")[:-1], b"2")
        assert not talk.future.done()
        talk.hears(good(b"333"))
        assert await talk.future is None
        assert taken == [b"1", b"22", b"333"]
        assert talk.written == [HEAD + b"5\r\n\r\nfirst", HEAD + b"7\r\n\r\nsecond!", HEAD + b"5\r\n\r\nthird"]

    within(test)


def test_an_answer_that_is_not_good_ends_the_conversation_at_its_request() -> None:
    async def test() -> None:
        talk = Conversation(lambda answer: b"second")
        talk.hears(good(b"1"), good(b"broken", status=b"500 Oops"))
        assert await talk.future == Reply(500, b"broken")
        assert talk.channel.asked == b"second"
        assert not talk.channel.is_closed

    within(test)


def test_what_taking_an_answer_raises_is_for_who_waits() -> None:
    async def test() -> None:
        def take(answer: bytes) -> bytes | None:
            raise ZeroDivisionError

        talk = Conversation(take)
        talk.hears(good(b"1"))
        with pytest.raises(ZeroDivisionError):
            await talk.future

    within(test)


@pytest.mark.parametrize("pieces", [(good(b"hello") + b"HTTP/1.1 200",), (good(b"hello")[:-1], b"o" + b"more")])
def test_who_says_more_than_was_asked_is_not_asked_again(pieces: tuple[bytes, ...]) -> None:
    async def test() -> None:
        talk = Conversation(lambda answer: b"second")
        talk.hears(*pieces)
        assert await talk.future == Reply(200, b"hello")
        assert talk.channel.is_closed
        assert len(talk.written) == 1

    within(test)


def test_bytes_that_nobody_asked_for_close_the_connection() -> None:
    async def test() -> None:
        talk = Conversation(lambda answer: None)
        talk.hears(good(b"1"), good(b"1"))
        assert talk.channel.is_closed
        talk.transport.abort.assert_called()

    within(test)


@pytest.mark.parametrize(
    ("heard", "answered"),
    [(b"", False), (b"HTT", True), (good(b"hello")[:-1], True), (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: c", True)],
)
def test_a_connection_that_ends_early_says_whether_an_answer_had_begun(heard: bytes, answered: bool) -> None:
    async def test() -> None:
        talk = Conversation(lambda answer: None)
        talk.hears(heard)
        talk.channel.connection_lost(None)
        with pytest.raises(Broken, match="closed the connection") as raised:
            await talk.future
        assert raised.value.answered is answered

    within(test)


def test_a_request_that_takes_too_long_is_given_up_and_an_idle_connection_is_not() -> None:
    async def test() -> None:
        talk = Conversation(lambda answer: None)
        talk.channel.give_up_if_late(60)
        assert not talk.future.done()
        talk.channel.since -= 61
        talk.channel.give_up_if_late(60)
        with pytest.raises(Broken, match="no answer within 60 s") as raised:
            await talk.future
        assert raised.value.answered
        idle = Conversation(lambda answer: None)
        idle.hears(good(b""))
        idle.channel.since -= 61
        idle.channel.give_up_if_late(60)
        assert not idle.channel.is_closed

    within(test)


def test_a_large_body_is_not_copied_behind_its_head() -> None:
    async def test() -> None:
        body = b"x" * (LARGE + 1)
        assert Conversation(body=body).written == [HEAD + b"%d\r\n\r\n" % len(body), body]

    within(test)
