"""Objects of any size: through the containers as they come, and blamed on who is to blame."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace

import pytest

from clary.channel import Broken, Reply
from clary.core.transform import Work
from clary.errors import Transient
from clary.transform.calls import EXCERPT, Answer, CallFailed
from clary.transform.flow import flow
from clary.transform.run import ObjectFailed

from .container import CLOSE, Container, Request, good

WORK = Work(
    {
        "TransformInput": {"ContentType": "text/csv"},
        "TransformOutput": {"Accept": "x/y"},
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": 1},
    }
)


async def pieces(*found: bytes) -> AsyncIterator[bytes]:
    for piece in found:
        yield piece


def doubled(request: Request) -> Iterable[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n"
    for _ in range(2):
        yield b"%x\r\n%b\r\n" % (len(request.body), request.body)
    yield b"0\r\n\r\n"


async def through(*containers: Container, given: AsyncIterator[bytes] | None = None) -> tuple[Reply, bytes]:
    written = bytearray()
    async with asyncio.timeout(60):
        hops = [container.hop for container in containers]
        reply = await flow(hops, WORK, given or pieces(b"ab", b"cd"), written.extend)
    return reply, bytes(written)


async def test_what_is_read_is_sent_in_chunks_and_what_comes_back_written() -> None:
    async with Container(doubled) as container:
        assert await through(container) == (Answer(Reply(200, b"")), b"abcdabcd")
        (request,) = container.requests
        assert request.header(b"transfer-encoding") == b"chunked"
        assert (request.header(b"content-type"), request.header(b"accept")) == (b"text/csv", b"x/y")


async def test_a_pipeline_is_one_stream() -> None:
    async with Container(doubled) as one, Container(doubled) as other:
        assert (await through(one, other))[1] == b"abcd" * 4
        assert other.requests[0].header(b"content-type") == b"a/b"
        assert one.requests[0].header(b"accept") is None


async def test_what_is_refused_is_given_back_in_extracts() -> None:
    async with Container(lambda request: [good(b"x" * (EXCERPT + 1), status=b"500 Oops")]) as container:
        assert await through(container) == (Answer(Reply(500, b"x" * EXCERPT)), b"")


async def test_a_container_of_a_pipeline_that_refuses_is_named() -> None:
    async with Container(doubled) as one, Container(lambda request: [good(b"no", status=b"400 No")]) as other:
        hops = [one.hop, replace(other.hop, name="second")]
        assert await flow(hops, WORK, pieces(b"ab"), bytearray().extend) == Answer(Reply(400, b"no"), "second")


@pytest.mark.parametrize(
    ("answer", "words"),
    [((CLOSE,), "isconnected"), ((good(b"hello")[:-1], CLOSE), "payload"), ((), "no answer within 1 s")],
)
async def test_a_container_without_a_whole_answer_is_to_blame(answer: tuple[bytes | None, ...], words: str) -> None:
    async with Container(lambda request: answer) as container:
        with pytest.raises(Broken, match=words):
            await through(container)


async def test_what_reading_raises_is_raised() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"ab"
        raise Transient("S3 is away")

    async with Container(doubled) as container:
        with pytest.raises(Transient, match="S3 is away"):
            await through(container, given=broken())


async def test_what_writing_raises_is_raised() -> None:
    def full(data: bytes) -> None:
        raise ObjectFailed(CallFailed("InternalServerError", "Failed to gather the output")) from OSError(errno.ENOSPC)

    async with asyncio.timeout(60), Container(doubled) as container:
        with pytest.raises(ObjectFailed, match="Failed to gather"):
            await flow([container.hop], WORK, pieces(b"ab"), full)
