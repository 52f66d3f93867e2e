"""Connections to model containers: kept open, reused last in first out, one request on each at a time."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Protocol

import httptools

from clary.gateway.outbox import Outbox

IDLE_LIMIT = 30.0
"""Seconds after which an unused connection is closed: sooner than model servers with common settings close it."""
MAX_FRUITLESS = 64 * 1024
"""Bytes of whole reads without a piece of a body: a head, interim answers, trailers, extensions of chunks."""

_OURS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))


def is_ours(error: Exception) -> bool:
    """Tell whether a connection failed for want of something of this machine, so that no container is to blame."""
    return isinstance(error, OSError) and error.errno in _OURS


class _NoStatus(Exception):
    """The container answers with a status that means nothing."""


class Answer(Protocol):
    """Hears the answer to one request: head, pieces of body, then end or broken."""

    def head(self, status: int, headers: list[tuple[bytes, bytes]], *, final: bool) -> None:
        """The status line and the headers are here; names as the container wrote them. `final`: a body may follow."""

    def body(self, data: bytes) -> None: ...

    def received(self) -> None:
        """Everything that the last read brought was told; now is the time to write it on in one piece."""

    def end(self) -> None: ...

    def broken(self, error: Exception, *, answered: bool) -> None:
        """The connection ended early; `answered`: after the first byte of the answer had come."""


class PlainHearer(Protocol):
    """Takes an answer as it comes, as long as it is plain (`clary.gateway.short`)."""

    def broken(self, error: Exception, *, answered: bool) -> None:
        """As in `Answer`."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to one container."""

    __slots__ = ("_answer", "_ended", "_excess", "_fruitless", "_headed", "_headers", "_keep_alive", "_outbox",
                 "_parser", "_pool", "address", "answered", "idle_since", "plain", "reused", "transport")  # fmt: skip

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._outbox = pool.outbox
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Answer | None = None
        self.plain: PlainHearer | None = None
        """Who hears the answer instead, without the parser."""
        self.address: tuple[str, int] | None = None
        """None once the connection is of no further use."""
        self.answered = False
        """The first byte of the answer has come."""
        self._headed = False
        """The answer's own head is here, not just an interim one's."""
        self._ended = False
        self._fruitless = 0
        self._keep_alive = False
        self._excess = False
        """The container says more than was asked; the connection is of no further use."""
        self._headers: list[tuple[bytes, bytes]] = []
        self.reused = False
        self.idle_since = 0.0
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything else happens

    def send(self, request: bytes, answer: Answer, body: bytes = b"") -> None:
        """Write a whole request and tell `answer` what comes back. A large body comes apart: joining would copy it."""
        self._answer = answer
        self.answered = self._headed = self._ended = self._excess = False
        self._fruitless = 0
        self._outbox.write(self.transport, request)
        if body:
            self._outbox.write(self.transport, body)

    def hand_over(self, answer: Answer) -> None:
        """Tell another hearer what comes of a request that was sent plain."""
        self.plain, self._answer = None, answer
        self._headed = self._ended = self._excess = False
        self._fruitless = 0

    def cancel(self) -> None:
        """Give the request up. The container may go on working at it; the connection is of no more use."""
        if self._answer is not None:
            self._answer = None
            self.transport.abort()

    def pause(self) -> None:
        """Read no more for now. Once the answer has ended this is another request's connection, or nobody's."""
        if self._answer is not None or self.plain is not None:
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._answer is not None or self.plain is not None:
            self.transport.resume_reading()

    # -- asyncio.Protocol ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream socket's is a Transport

    @property
    def data_received(self) -> Callable[[bytes], None]:
        """What hears the container; uvloop asks once."""
        return self.receive if self._pool.ear is None else self._pool.ear(self)

    def receive(self, data: bytes) -> None:
        """Take what was read."""
        self.answered = True  # before the end of an answer lets the next request begin here
        answer = self._answer
        if answer is None:  # bytes that nobody asked for: the connection cannot be trusted any more
            self._pool.forget(self)
            self.transport.abort()
            return
        self._fruitless += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
            if cause is not None and not isinstance(cause, _NoStatus):
                raise cause from error
            if not self._ended:
                self._break(error)
                return
            self._excess = True  # the answer is whole, whatever comes after it
        if self._ended:
            self._answer = None
            self._leave()
            answer.end()
        elif self._fruitless > MAX_FRUITLESS:
            self._break(ConnectionError("the container sends head without end"))
        else:
            answer.received()

    def _leave(self) -> None:
        """Go back to the pool, or close."""
        if self.transport.get_write_buffer_size():
            # It answered without reading on, so what is left would be the beginning of the next request, or never go.
            self.transport.abort()
        elif self._keep_alive and not self._excess:
            self._pool.give_back(self)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.forget(self)
        if self.plain is not None:
            self.plain.broken(exc or _closed(), answered=self.answered)
            return
        if self._answer is None:
            return
        if self.answered and exc is None and self._ends_with_connection():
            answer, self._answer = self._answer, None
            answer.end()
            return
        self._break(exc or _closed())

    def _ends_with_connection(self) -> bool:
        """HTTP/1.0 style: neither a length nor chunks, so the body ends where the connection does (RFC 9112, 6.3)."""
        headers = {name.lower(): value for name, value in self._headers}
        codings = headers.get(b"transfer-encoding", b"").lower().split(b",")
        return self._headed and b"content-length" not in headers and codings[-1].strip() != b"chunked"

    def _break(self, error: Exception) -> None:
        answer, self._answer = self._answer, None
        self.transport.abort()
        if answer is not None:
            answer.broken(error, answered=self.answered)

    # -- httptools ---------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._ended:
            self._excess = True
        else:
            self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._headed:  # otherwise a trailer, or a second answer's
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._ended:
            return
        status = self._parser.get_status_code()
        if status < 100:
            raise _NoStatus
        self._headed = status >= 200
        self._keep_alive = self._parser.should_keep_alive()  # the parser forgets it when the message is over
        if self._answer is not None:
            self._answer.head(status, self._headers, final=self._headed)

    def on_body(self, data: bytes) -> None:
        self._fruitless = 0
        if self._answer is not None and not self._ended:
            self._answer.body(data)

    def on_message_complete(self) -> None:
        if self._headed:
            self._ended = True


def _closed() -> Exception:
    return ConnectionResetError("the container closed the connection")


class Pool:
    """Idle connections by container address."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outbox: Outbox) -> None:
        self._loop = loop
        self.outbox = outbox
        self.idle: dict[tuple[str, int], list[UpstreamConnection]] = {}
        self.ear: Callable[[UpstreamConnection], Callable[[bytes], None]] | None = None
        """Gives what is called with all that a container sends, and hands on to `receive` what is not plain."""
        self._open: set[UpstreamConnection] = set()

    def take(self, host: str, port: int) -> UpstreamConnection | None:
        """Give an idle connection, the one used last, if there is any."""
        idle = self.idle.get((host, port))
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                connection.reused = True
                return connection
        return None

    async def connect(self, host: str, port: int, timeout: float) -> UpstreamConnection:
        """Open a new connection; port 0: to the socket at the path `host`. Raises OSError or TimeoutError."""
        async with asyncio.timeout(timeout):
            if port:
                _, connection = await self._loop.create_connection(lambda: UpstreamConnection(self), host, port)
            else:
                _, connection = await self._loop.create_unix_connection(lambda: UpstreamConnection(self), host)
        connection.address = (host, port)
        self._open.add(connection)
        return connection

    def give_back(self, connection: UpstreamConnection) -> None:
        if connection.address is None or connection.transport.is_closing():
            return
        connection.idle_since = self._loop.time()
        self.idle.setdefault(connection.address, []).append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        address, connection.address = connection.address, None
        self._open.discard(connection)
        idle = self.idle.get(address, []) if address else []
        if connection in idle:
            idle.remove(connection)

    def sweep(self, now: float) -> None:
        """Close what nobody used for IDLE_LIMIT."""
        for address, idle in list(self.idle.items()):
            for connection in [c for c in idle if now - c.idle_since > IDLE_LIMIT]:
                idle.remove(connection)
                connection.transport.close()
            if not idle:
                del self.idle[address]

    def close(self) -> None:
        for connection in list(self._open):
            connection.transport.close()
