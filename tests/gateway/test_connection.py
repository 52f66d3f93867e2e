"""HTTP as clients really speak it: ahead of answers, in pieces, broken, with offers that we do not take."""

from __future__ import annotations

import asyncio
import logging
import math

import pytest

from clary.gateway import connection
from tests.gateway.conftest import Gateway, answer, read_reply, says, wait_for, wait_until_still

HEALTH = b"GET /_clary/health HTTP/1.1\r\nHost: x\r\n\r\n"
UNKNOWN = b"POST /endpoints/demo/invocations HTTP/1.1\r\nHost: x\r\nAuthorization: x\r\nContent-Length: 2000000\r\n\r\n"


async def test_a_request_whose_body_comes_later_is_answered_after_one_sent_ahead(gateway: Gateway) -> None:
    await gateway.serve("demo", says(answer(b"ok")))
    last = gateway.signed("/endpoints/demo/invocations", b"abcd")
    reader, writer = await gateway.connect()
    writer.write(HEALTH + HEALTH + last[:-2])
    for _ in range(2):
        assert (await read_reply(reader)).status == 200
    writer.write(last[-2:])
    assert (await asyncio.wait_for(read_reply(reader), 60)).body == b"ok"
    writer.close()


async def test_any_number_of_refused_requests_may_be_sent_ahead(gateway: Gateway) -> None:
    reader, writer = await gateway.connect()
    writer.write(HEALTH + 210 * b"GET /endpoints/demo/unknown HTTP/1.1\r\nHost: x\r\n\r\n" + HEALTH)
    async with asyncio.timeout(10):
        assert [(await read_reply(reader)).status for _ in range(212)] == [200, *[403] * 210, 200]
    writer.close()


async def test_garbage_after_a_request_is_refused_after_its_answer(gateway: Gateway) -> None:
    release = asyncio.Event()

    async def slow(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        await writer.drain()
        await release.wait()
        writer.write(b"half")

    await gateway.serve("demo", slow)
    reader, writer = await gateway.connect()
    writer.write(gateway.signed("/endpoints/demo/invocations", b"{}"))
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(4) == b"half"
    writer.write(b"GARBAGE\r\n\r\n")
    await asyncio.sleep(0.05)
    release.set()
    assert await reader.readexactly(4) == b"half"
    refused = await read_reply(reader)
    assert (refused.status, refused.headers["connection"]) == (400, "close")
    writer.close()


async def test_a_body_that_breaks_the_protocol_ends_its_own_request_alone(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    reader, writer = await gateway.connect()
    writer.write(HEALTH + b"PUT /b/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    assert (await read_reply(reader)).status == 200
    assert (await read_reply(reader)).status == 400
    assert await reader.read() == b""
    writer.close()
    assert caplog.records == []


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


async def test_an_upgrade_that_is_offered_is_ignored(gateway: Gateway) -> None:
    reader, writer = await gateway.connect()
    writer.write(b"GET /_clary/health HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"\r\n" + HEALTH)
    for _ in range(2):
        assert (await read_reply(reader)).status == 200
    writer.close()


@pytest.mark.parametrize("framing", [b"Content-Length: 2\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_an_upgrade_that_is_offered_with_a_body_is_ignored(gateway: Gateway, framing: bytes, step: int) -> None:
    body = b"{}" if framing.startswith(b"Content") else b"2\r\n{}\r\n0\r\n\r\n"
    request = b"PUT /bucket/key HTTP/1.1\r\nHost: x\r\n" + framing + UPGRADE + b"\r\n" + body
    reader, writer = await gateway.connect()
    for at in range(0, 2 * len(request), step):
        writer.write((2 * request)[at : at + step])
        await asyncio.sleep(0)
    for _ in range(2):
        assert (await read_reply(reader)).body == b"s3 got 2"
    writer.close()


async def test_any_number_of_upgrades_may_be_offered_at_once(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    reader, writer = await gateway.connect()
    writer.write((b"GET /_clary/health HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"\r\n") * 2000)
    for _ in range(2000):
        assert (await read_reply(reader)).status == 200
    writer.close()
    assert caplog.records == []


async def test_two_authorizations_are_refused(gateway: Gateway) -> None:
    twice = gateway.signed("/endpoints/demo/invocations", b"").replace(b"\r\n", b"\r\nAuthorization: x\r\n", 1)
    assert (await gateway.send(twice)).body == b"There is more than one Authorization header."


async def test_a_client_that_still_sends_learns_why_it_is_refused(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LINGER", 600.0)  # the time is up when this test says so
    _, writer = await gateway.connect()
    writer.write(UNKNOWN)
    await wait_for(lambda: any(each.deaf for each in gateway.door._connections))
    [refused] = gateway.door._connections
    for _ in range(3):
        writer.write(b"x" * 1000)
        await wait_for(lambda: refused._size)
        refused._linger(math.inf)
        assert not refused.transport.is_closing()
    refused._linger(math.inf)  # without a byte in between
    assert refused.transport.is_closing()
    writer.close()


async def test_a_client_that_sends_without_end_is_left_in_the_end(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LINGER", 0.05)
    monkeypatch.setattr(connection, "LINGER_MOST", 0.2)
    _, writer = await gateway.connect()
    writer.write(UNKNOWN)
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(60):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
    writer.close()


async def test_a_client_that_does_not_read_is_let_go(gateway: Gateway) -> None:
    piece = b"x" * 65536

    async def endless(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(piece)
            await writer.drain()

    await gateway.serve("demo", endless)
    reader, writer = await gateway.connect()
    writer.write(gateway.signed("/endpoints/demo/invocations", b"{}"))
    await reader.readuntil(b"\r\n\r\n")
    [stuck] = gateway.door._connections
    await wait_for(lambda: stuck.unsent)
    await wait_until_still(lambda: stuck.unsent)
    for now in (1000.0, 1005.0, 1060.0):
        gateway.door.sweep(now)
        assert not stuck.transport.is_closing()
    gateway.door.sweep(1066.0)
    await wait_for(lambda: not gateway.state.load and stuck.idle)
    assert stuck.transport.is_closing()
    writer.transport.abort()  # type: ignore[attr-defined]


async def test_a_client_that_reads_slowly_is_kept(gateway: Gateway) -> None:
    await gateway.serve("demo", says(answer(b"x" * 50_000_000)))
    reader, writer = await gateway.connect()
    writer.write(gateway.signed("/endpoints/demo/invocations", b"{}"))
    await reader.readuntil(b"\r\n\r\n")
    [slow] = gateway.door._connections
    left, now = 50_000_000, 1000.0
    while left:
        left -= len(await reader.readexactly(min(left, 5_000_000)))
        await asyncio.sleep(0.01)
        now += 50.0
        gateway.door.sweep(now)
    assert not slow.transport.is_closing()
    writer.close()


async def test_connect_is_refused(gateway: Gateway) -> None:
    reply = await gateway.send(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n")
    assert (reply.status, reply.body) == (400, b"CONNECT is not supported.")


async def test_a_client_that_does_not_read_its_answers_is_not_read_either(gateway: Gateway) -> None:
    request = b"POST /endpoints/demo/invocations HTTP/1.1\r\nHost: x\r\nAuthorization: x\r\nContent-Length: 0\r\n\r\n"
    _, writer = await gateway.connect()
    writer.transport.set_write_buffer_limits(high=0)  # type: ignore[attr-defined]
    sent = 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            while True:
                writer.write(request * 200)
                await writer.drain()
                sent += 200
    assert sent < 100_000
    writer.transport.abort()  # type: ignore[attr-defined]


async def test_a_request_in_absolute_form_is_taken_by_its_path(gateway: Gateway) -> None:
    reply = await gateway.send(b"GET http://anything/_clary/health HTTP/1.1\r\nHost: anything\r\n\r\n")
    assert reply.status == 200


async def test_a_request_without_a_host_is_refused(gateway: Gateway) -> None:
    assert (await gateway.send(b"GET /_clary/health HTTP/1.1\r\n\r\n")).status == 400
    assert (await gateway.send(b"GET /_clary/health HTTP/1.0\r\n\r\n")).status == 200


async def test_close_is_kept_and_what_follows_is_not_answered(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    reader, writer = await gateway.connect()
    writer.write(b"GET /_clary/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + HEALTH)
    assert (await read_reply(reader)).headers["connection"] == "close"
    assert await reader.read() == b""
    writer.close()
    assert caplog.records == []


async def test_a_204_has_no_body_whatever_its_length_claims(gateway: Gateway) -> None:
    await gateway.serve("demo", says(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"))
    reply = await asyncio.wait_for(gateway.invoke("demo"), 60)
    assert (reply.status, reply.headers["content-length"]) == (200, "0")


async def test_an_answer_that_nobody_asked_for_is_never_given_to_anybody(gateway: Gateway) -> None:
    container = await gateway.serve("demo", says(answer(b"asked") + answer(b"not asked")))
    for number in range(3):
        assert (await gateway.invoke("demo")).body == b"asked"
        assert container.connections == number + 1


@pytest.mark.parametrize("status", ["Failed", "Deleting"])
async def test_an_endpoint_that_will_not_be_ready_is_not_called_unavailable(gateway: Gateway, status: str) -> None:
    gateway.route("gone", status=status)
    reply = await gateway.invoke("gone")
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (400, "ValidationError")
    assert b"NO_SUCH_ENDPOINT" in reply.body and status.encode() in reply.body


async def test_a_client_that_has_nothing_more_to_say_still_gets_its_answers(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HALF_CLOSED", 60.0)

    async def slow(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        writer.write(answer(b"late"))

    await gateway.serve("demo", slow)
    reader, writer = await gateway.connect()
    writer.write(HEALTH + gateway.signed("/endpoints/demo/invocations", b"{}"))
    writer.write_eof()
    assert (await read_reply(reader)).status == 200
    assert (await read_reply(reader)).body == b"late"
    assert await asyncio.wait_for(reader.read(), 60) == b""
    writer.close()


async def test_a_client_that_ends_in_the_middle_of_a_request_is_let_go(gateway: Gateway) -> None:
    container = await gateway.serve("demo", says(answer(b"never")))
    reader, writer = await gateway.connect()
    writer.write(gateway.signed("/endpoints/demo/invocations", b"{}")[:-1])
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 60) == b""
    assert container.requests == []
    writer.close()


async def test_a_request_that_comes_byte_by_byte_is_one_request(gateway: Gateway) -> None:
    await gateway.serve("demo", says(answer(b"ok")))
    reader, writer = await gateway.connect()
    for byte in gateway.signed("/endpoints/demo/invocations", b"{}"):
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await asyncio.wait_for(read_reply(reader), 60)).body == b"ok"
    writer.close()


async def test_an_old_client_is_answered_in_its_own_way(gateway: Gateway) -> None:
    whole = answer(b"whole")
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n"
    for said, length in ((whole, "5"), (chunked, None)):
        await gateway.serve("demo", says(said))
        reply = await gateway.send(
            gateway.signed("/endpoints/demo/invocations", b"{}").replace(b" HTTP/1.1", b" HTTP/1.0", 1)
        )
        assert (reply.status, reply.body) == (200, b"whole")
        assert reply.headers.get("content-length") == length and "transfer-encoding" not in reply.headers


async def test_a_client_that_waits_for_100_continue_is_told_once(gateway: Gateway) -> None:
    await gateway.serve("demo", says(answer(b"ok")))
    head, _, body = gateway.signed("/endpoints/demo/invocations", b"12345").partition(b"\r\n\r\n")
    reader, writer = await gateway.connect()
    writer.write(head + b"\r\nExpect: 100-continue\r\n\r\n")
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await read_reply(reader)).body == b"ok"
    writer.close()


async def test_an_answer_is_fetched_no_faster_than_it_is_read(gateway: Gateway) -> None:
    piece, sent = b"x" * 65536, 0

    async def endless(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)

    await gateway.serve("demo", endless)
    reader, writer = await gateway.connect()
    writer.write(gateway.signed("/endpoints/demo/invocations", b"{}"))
    await reader.readuntil(b"\r\n\r\n")
    await wait_until_still(lambda: sent)
    assert sent < 64_000_000  # what sockets hold, not the whole
    writer.transport.abort()  # type: ignore[attr-defined]
