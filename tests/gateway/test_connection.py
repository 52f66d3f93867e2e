"""HTTP as clients really speak it: ahead of answers, in pieces, broken, with offers that we do not take."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.gateway.conftest import Gateway, answer, read_reply, says

HEALTH = b"GET /_clary/health HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_request_whose_body_comes_later_is_answered_after_one_sent_ahead(gateway: Gateway) -> None:
    await gateway.serve("demo", says(answer(b"ok")))
    last = gateway.signed("/endpoints/demo/invocations", b"abcd")
    reader, writer = await gateway.connect()
    writer.write(HEALTH + HEALTH + last[:-2])
    for _ in range(2):
        assert (await read_reply(reader)).status == 200
    writer.write(last[-2:])
    assert (await asyncio.wait_for(read_reply(reader), 5)).body == b"ok"
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


async def test_an_upgrade_with_a_body_is_refused_once(gateway: Gateway) -> None:
    reader, writer = await gateway.connect()
    head = b"POST /endpoints/demo/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    writer.write(head + UPGRADE + b"\r\n{}")
    assert (await read_reply(reader)).body == b"Upgrade is not supported."
    assert await reader.read() == b""
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
    reply = await asyncio.wait_for(gateway.invoke("demo"), 5)
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
