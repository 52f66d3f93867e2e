"""Requests off the hot path: one task each, bodies streamed both ways in constant memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from clary.gateway.connection import Connection, Source, status_line
from clary.gateway.head import Head
from clary.gateway.state import State
from clary.telemetry import logger

HIGH_WATER = 256 * 1024
"""Bytes of a request's body that wait for their reader before the client is made to wait."""

Handler = Callable[["Streamed"], Awaitable[None]]

_log = logger("gateway")


class Streamed:
    """A request whose body is an asynchronous iterator, and the way to answer it: start, write, end."""

    def __init__(self, state: State, head: Head, client: Connection, handler: Handler) -> None:
        self.state = state
        self.head = head
        self.request_id = state.request_id()
        self._client = client
        self._handler = handler
        self._pieces: deque[bytes] = deque()
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._complete = self._paused = self._started = self._chunked = self._ended = False
        self._continue = head.modern and head.headers.get(b"expect", b"").lower() == b"100-continue"
        self._task: asyncio.Task[None] | None = None

    # -- the request -------------------------------------------------------------------------------------------------

    @property
    def method(self) -> str:
        return self.head.method.decode("latin-1")

    @property
    def path(self) -> str:
        """As it was sent: percent-encoded."""
        return self.head.path.decode("latin-1")

    @property
    def query(self) -> str:
        """What follows the first question mark, as it was sent."""
        return self.head.target.partition(b"?")[2].decode("latin-1")

    @property
    def source(self) -> Source:
        """Whence it comes, as policies may ask."""
        return self._client.source

    @property
    def headers(self) -> dict[bytes, bytes]:
        return self.head.headers

    @property
    async def body(self) -> AsyncIterator[bytes]:
        """Pieces of the body as they come. Reading slowly makes the client wait."""
        if self._continue and not self._started:
            self._continue = False
            self._client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                self._waiting -= len(piece)
                if self._paused and self._waiting < HIGH_WATER // 2:
                    self._paused = False
                    self._client.hold_body(False)
                yield piece
            if self._complete:
                return
            self._arrived.clear()
            await self._arrived.wait()

    # -- the answer --------------------------------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """The status line is out; an error can only be told by breaking the connection."""
        return self._started

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Write the status line and the headers. Without a content-length the body goes out in chunks."""
        self._started = True
        names = {name.lower() for name, _ in headers}
        lines = [status_line(status)]
        lines += [b"%b: %b" % header for header in headers]
        if b"content-length" not in names and self.method != "HEAD" and status not in (204, 304):
            if self.head.modern:
                self._chunked = True
                lines.append(b"Transfer-Encoding: chunked")
            else:
                self.head.keep_alive = False
        if not (self.head.keep_alive and self._complete):
            lines.append(b"Connection: close")
        elif not self.head.modern:
            lines.append(b"Connection: keep-alive")
        self._client.write(b"\r\n".join(lines) + b"\r\n\r\n")

    async def write(self, data: bytes) -> None:
        """Write a piece of the body, and wait while the client reads slower than we write."""
        if data:
            self._client.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        await self._writable.wait()

    async def end(self) -> None:
        """End the answer."""
        self._ended = True
        if self._chunked:
            self._client.write(b"0\r\n\r\n")
        self._client.finish(reusable=self._complete)

    async def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Write a whole answer."""
        await self.start(status, [*headers, (b"Content-Length", b"%d" % len(body))])
        await self.write(body if self.method != "HEAD" else b"")
        await self.end()

    # -- the connection's side ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._task = self.state.loop.create_task(self._run())

    def feed(self, data: bytes) -> None:
        if self._ended:
            return
        self._pieces.append(data)
        self._waiting += len(data)
        self._arrived.set()
        if self._waiting > HIGH_WATER and not self._paused:
            self._paused = True
            self._client.hold_body(True)

    def complete(self) -> None:
        self._complete = True
        self._arrived.set()

    def lost(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def pause(self) -> None:
        self._writable.clear()

    def resume(self) -> None:
        self._writable.set()

    async def _run(self) -> None:
        try:
            await self._handler(self)
        except Exception:
            _log.exception("a request failed", request_id=self.request_id, method=self.method, path=self.path)
            if self._started:
                self._client.transport.abort()
            else:
                text = b'{"__type":"InternalFailure","message":"Internal failure; the log of Clary has the cause."}'
                headers = [(b"Content-Type", b"application/x-amz-json-1.1"), (b"x-amzn-ErrorType", b"InternalFailure"),
                           (b"x-amzn-RequestId", self.request_id.encode())]  # fmt: skip
                await self.answer(500, headers, text)
