"""Connections to containers, and the writes of one turn, on a transport that only takes notes."""

from __future__ import annotations

import asyncio
import errno
from itertools import pairwise
from unittest.mock import Mock, call

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.gateway.outbox import LARGE, Outbox
from clary.gateway.shortcut.compiled import compiled
from clary.gateway.upstream import MAX_FRUITLESS, Pool, UpstreamConnection, is_ours

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


INTERIM = b"HTTP/1.1 100 Continue\r\nX-Odd: 1\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3;x=y\r\ntwo\r\n0\r\nT: 1\r\n\r\n"


class Heard:
    """An answer that notes what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.status = 0
        self.payload = b""

    def head(self, status: int, headers: list[tuple[bytes, bytes]], *, final: bool) -> None:
        self.said.append("head" if final else "interim")
        self.status = status

    def body(self, data: bytes) -> None:
        self.payload += data

    def received(self) -> None:
        return

    def end(self) -> None:
        self.said.append("end")

    def broken(self, error: Exception, *, answered: bool) -> None:
        self.said.append("broken")


def opened(pool: Pool, unsent: int = 0) -> UpstreamConnection:
    connection = UpstreamConnection(pool)
    transport = Mock(spec=asyncio.Transport, is_closing=lambda: False, get_write_buffer_size=lambda: unsent)
    connection.connection_made(transport)
    return connection


def asked(unsent: int = 0) -> tuple[UpstreamConnection, Mock, Heard]:
    """Give a connection that has sent a request, its pool and who hears the answer."""
    pool, heard = Mock(spec=Pool, outbox=Mock(spec=Outbox), ear=None), Heard()
    connection = opened(pool, unsent)
    connection.send(b"request", heard)
    return connection, pool, heard


@given(
    raw=st.sampled_from((ANSWER, CHUNKED, INTERIM + ANSWER, INTERIM * 2 + CHUNKED)),
    cuts=st.lists(st.integers(0, 200), max_size=8),
)
def test_however_the_bytes_are_cut_the_answer_is_the_same(raw: bytes, cuts: list[int]) -> None:
    connection, pool, heard = asked()
    bounds = sorted({0, len(raw), *(cut % len(raw) for cut in cuts)})
    for start, end in pairwise(bounds):
        connection.data_received(raw[start:end])
    assert heard.said == ["interim"] * raw.count(INTERIM) + ["head", "end"]
    assert (heard.status, heard.payload) == (200, b"onetwo" if raw.endswith(CHUNKED) else b"ok")
    assert pool.give_back.called


@pytest.mark.parametrize("cut", [b"HTTP/1.1 200 OK\r\nServer: x\r\nX-", INTERIM])
def test_a_connection_that_ends_before_the_head_does_has_not_answered(cut: bytes) -> None:
    connection, _, heard = asked()
    connection.data_received(cut)
    connection.connection_lost(None)
    assert heard.said[-1] == "broken" and "end" not in heard.said


@pytest.mark.parametrize("more", [b"garbage", b"\x00", ANSWER, b"HTTP/1.1 200"])
@pytest.mark.parametrize("raw", [ANSWER, CHUNKED, ANSWER.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)])
def test_a_whole_answer_is_whole_whatever_follows_but_the_connection_is_used_no_more(raw: bytes, more: bytes) -> None:
    connection, pool, heard = asked()
    connection.data_received(raw + more)
    assert heard.said == ["head", "end"]
    assert connection.transport.close.called and not pool.give_back.called  # type: ignore[attr-defined]


def test_a_connection_with_a_part_of_its_request_unsent_is_used_no_more() -> None:
    connection, pool, heard = asked(unsent=1)
    connection.data_received(ANSWER)
    assert heard.said == ["head", "end"]
    assert connection.transport.abort.called and not pool.give_back.called  # type: ignore[attr-defined]


@pytest.mark.parametrize("coding", [b"identity", b"chunked, gzip", b"gzip"])
def test_a_body_without_a_length_ends_with_the_connection_unless_chunks_were_to_end_it(coding: bytes) -> None:
    connection, _, heard = asked()
    connection.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %b\r\n\r\nok" % coding)
    connection.connection_lost(None)
    assert (heard.said, heard.payload) == (["head", "end"], b"ok")
    connection, _, heard = asked()
    connection.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n2\r\nok\r\n")
    connection.connection_lost(None)
    assert heard.said == ["head", "broken"]


@pytest.mark.parametrize("status", [b"000", b"099"])
def test_a_status_that_means_nothing_is_no_answer(status: bytes) -> None:
    connection, _, heard = asked()
    connection.data_received(b"HTTP/1.1 %b Odd\r\nContent-Length: 2\r\n\r\nok" % status)
    assert heard.said == ["broken"] and connection.transport.abort.called  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Long: " + b"x" * 1000 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 1000),
        (b"", INTERIM * 20),
        (CHUNKED[:-2], b"X-Long: " + b"x" * 1000 + b"\r\n"),
    ],
    ids=["headers", "one header", "interim answers", "trailers"],
)
def test_a_head_without_end_is_given_up(start: bytes, piece: bytes) -> None:
    connection, _, heard = asked()
    connection.data_received(start)
    for _ in range(MAX_FRUITLESS // len(piece) + 1):
        connection.data_received(piece)
    assert heard.said[-1] == "broken" and connection.transport.abort.called  # type: ignore[attr-defined]


def test_a_long_body_in_large_reads_is_no_head_without_end() -> None:
    connection, _, heard = asked()
    piece = b"x" * 256 * 1024
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (4 * len(piece)))
    for _ in range(4):
        connection.data_received(piece)
    assert heard.said == ["head", "end"] and len(heard.payload) == 4 * len(piece)


def test_no_container_is_blamed_for_what_this_machine_lacks() -> None:
    assert is_ours(OSError(errno.EMFILE, "Too many open files"))
    assert not is_ours(ConnectionRefusedError(errno.ECONNREFUSED, "refused")) and not is_ours(TimeoutError())


async def test_who_has_heard_the_end_can_neither_pause_nor_cancel_the_next_ones_connection() -> None:
    loop = asyncio.get_running_loop()
    connection = opened(Pool(loop, Outbox(loop)))
    answer = Mock()
    answer.end.side_effect = lambda: (connection.pause(), connection.cancel())  # its client is full, then gone
    connection.send(b"request", answer)
    connection.pause()
    connection.resume()
    connection.data_received(ANSWER)
    assert answer.end.called
    transport = connection.transport
    assert transport.mock_calls == [call.pause_reading(), call.resume_reading()]  # type: ignore[attr-defined]


MODULE = compiled()
BOTH = pytest.mark.parametrize("made", [Outbox] if MODULE is None else [Outbox, MODULE.Outbox])


@BOTH
async def test_writes_of_one_turn_go_out_at_its_end_in_order(made: type[Outbox]) -> None:
    outbox = made(asyncio.get_running_loop())
    one, other = Mock(is_closing=lambda: False), Mock(is_closing=lambda: False)
    outbox.write(one, b"a")
    outbox.write(other, b"b")
    outbox.write(one, b"c")
    assert not one.write.called
    await asyncio.sleep(0)
    assert one.write.mock_calls == [call(b"a"), call(b"c")] and other.write.mock_calls == [call(b"b")]
    outbox.write(other, b"d")
    await asyncio.sleep(0)
    assert other.write.mock_calls[1:] == [call(b"d")]


@BOTH
async def test_a_large_piece_goes_out_at_once_and_after_what_came_before(made: type[Outbox]) -> None:
    outbox = made(asyncio.get_running_loop())
    transport = Mock(is_closing=lambda: False)
    large = b"x" * (LARGE + 1)
    outbox.write(transport, b"head")
    outbox.write(transport, large)
    assert transport.write.mock_calls == [call(b"head"), call(large)]
    await asyncio.sleep(0)
    assert transport.write.call_count == 2


@BOTH
async def test_nothing_is_written_to_who_is_gone_by_then(made: type[Outbox]) -> None:
    outbox = made(asyncio.get_running_loop())
    gone, here = Mock(is_closing=lambda: True), Mock(is_closing=lambda: False)
    outbox.write(gone, b"a")
    outbox.write(here, b"b")
    outbox.flush()
    assert not gone.write.called and here.write.mock_calls == [call(b"b")]


@BOTH
@pytest.mark.parametrize(
    ("under_way", "waits"), [((), True), (({}, {}), False), (({1: 1}, {}), False), (({1: 1}, {2: 2}), True)]
)
async def test_where_one_request_alone_is_under_way_nothing_waits(
    made: type[Outbox], under_way: tuple[dict[int, int], ...], waits: bool
) -> None:
    outbox, transport = made(asyncio.get_running_loop(), *under_way), Mock(is_closing=lambda: False)
    outbox.write(transport, b"a")
    assert transport.write.called is not waits
    outbox.flush()
    assert transport.write.mock_calls == [call(b"a")]
