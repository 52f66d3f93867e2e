"""A container on a socket of this machine, which answers as a test wants it, byte for byte; and an S3 in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import IO, NamedTuple

from clary.core.routing import Hop
from clary.objecterrors import ObjectNotFound
from clary.objects import ObjectHead

CLOSE = None
"""In place of a piece: the connection is closed."""


class Request(NamedTuple):
    head: bytes
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b": ")
            if key.lower() == name:
                return value
        return None


Answer = Callable[[Request], Iterable[bytes | None]]


def good(body: bytes, *more: bytes, status: bytes = b"200 OK") -> bytes:
    """Write an answer with a length; `more` are lines of its head."""
    lines = (b"HTTP/1.1 " + status, *more, b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Container:
    """Reads requests, with a length or in chunks, and writes what `answer` gives for each, a piece at a time."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.requests: list[Request] = []
        self.connections = 0
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def bodies(self) -> list[bytes]:
        return [request.body for request in self.requests]

    @property
    def hop(self) -> Hop:
        return Hop("one", "127.0.0.1", self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Container:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.close()
        for writer in list(self._open):
            writer.close()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
                request = Request(head, b"")
                body = await self._body(reader, request)
                self.requests.append(request._replace(body=body))
                for piece in self._answer(self.requests[-1]):
                    if piece is CLOSE:
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.001)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            self._open.discard(writer)
            writer.close()

    async def _body(self, reader: asyncio.StreamReader, request: Request) -> bytes:
        if request.header(b"transfer-encoding") != b"chunked":
            return await reader.readexactly(int(request.header(b"content-length") or 0))
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return body


class Places:
    """The instances of a job: one, whose containers are as the test has them."""

    started = 1_700_000_000.0

    def __init__(self, *hops: Hop) -> None:
        self.hops: tuple[Hop, ...] | None = hops

    def now(self, instance: str) -> tuple[Hop, ...] | None:
        return self.hops

    async def of(self, instance: str) -> tuple[Hop, ...]:
        while self.hops is None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return self.hops


class Bucket:
    """Objects in memory, in the place of `Objects`. Read in pieces of `piece` bytes."""

    def __init__(self, objects: dict[str, bytes], piece: int = 1000) -> None:
        self.objects = objects
        self.uploads: list[str] = []
        self._piece = piece

    def canonical(self, url: str) -> str:
        return url

    async def beginning_with(self, url: str) -> AsyncIterator[tuple[str, ObjectHead]]:
        for each in sorted(self.objects):
            if each.startswith(url):
                yield each, await self.head(each)

    async def any_below(self, url: str) -> bool:
        return any(each.startswith(url) for each in self.objects)

    async def head(self, url: str) -> ObjectHead:
        if url not in self.objects:
            raise ObjectNotFound(url)
        return ObjectHead(len(self.objects[url]), "e")

    async def chunks(self, url: str, head: ObjectHead, patience: float) -> AsyncIterator[bytes]:
        body = self.objects[url]
        for start in range(0, len(body), self._piece):
            yield body[start : start + self._piece]

    async def upload(self, url: str, file: IO[bytes], content_type: str = "") -> None:
        self.uploads.append(url)
        self.objects[url] = file.read()
