"""Connections to containers, and the writes of one turn, on a transport that only takes notes."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock, call

from clary.gateway.outbox import LARGE, Outbox
from clary.gateway.upstream import Pool, UpstreamConnection

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def opened(pool: Pool) -> UpstreamConnection:
    connection = UpstreamConnection(pool)
    connection.connection_made(Mock(spec=asyncio.Transport, is_closing=lambda: False))
    return connection


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


async def test_writes_of_one_turn_go_out_at_its_end_in_order() -> None:
    outbox = Outbox(asyncio.get_running_loop())
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


async def test_a_large_piece_goes_out_at_once_and_after_what_came_before() -> None:
    outbox = Outbox(asyncio.get_running_loop())
    transport = Mock(is_closing=lambda: False)
    large = b"x" * (LARGE + 1)
    outbox.write(transport, b"head")
    outbox.write(transport, large)
    assert transport.write.mock_calls == [call(b"head"), call(large)]
    await asyncio.sleep(0)
    assert transport.write.call_count == 2


async def test_nothing_is_written_to_who_is_gone_by_then() -> None:
    outbox = Outbox(asyncio.get_running_loop())
    gone, here = Mock(is_closing=lambda: True), Mock(is_closing=lambda: False)
    outbox.write(gone, b"a")
    outbox.write(here, b"b")
    outbox.flush()
    assert not gone.write.called and here.write.mock_calls == [call(b"b")]
