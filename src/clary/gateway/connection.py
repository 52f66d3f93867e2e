"""One client's connection: HTTP/1.1 in and out, on asyncio's callbacks and httptools' parser.

No task and no future is made for an ordinary request: at a thousand requests a second those are what a proxy spends
its time on. Requests become exchanges, which are answered in order (a client may send several at once); what arrives
while an answer is under way waits in the socket.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

import httptools

MAX_HEADERS = 64 * 1024
"""Bytes of request line and headers together."""


LINGER = 1.0
"""Seconds for which what a client still sends is thrown away after the last answer."""


class Head:
    """Method, target and headers of a request. Names are lower-case; repeated ones are joined with a comma."""

    __slots__ = ("headers", "keep_alive", "method", "modern", "target")

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.headers: dict[bytes, bytes] = {}
        self.modern = True
        """HTTP/1.1: chunked answers and 100-continue are understood."""
        self.keep_alive = True


class Exchange(Protocol):
    """A request and its answer. Calls come in this order: (feed, complete) in any mixture with begin; then lost."""

    def begin(self) -> None:
        """Answer now: every earlier request of the connection is answered."""

    def feed(self, data: bytes) -> None:
        """Take a piece of the request's body."""

    def complete(self) -> None:
        """The body has ended."""

    def lost(self) -> None:
        """The client went away; stop working for it."""

    def pause(self) -> None:
        """The client reads slower than we write."""

    def resume(self) -> None:
        """The client has caught up."""


class Connection(asyncio.Protocol):
    """Parses requests, opens an exchange for each and writes what they answer."""

    __slots__ = (
        "_deaf",
        "_exchanges",
        "_head",
        "_header_bytes",
        "_open",
        "_parser",
        "_paused",
        "idle_since",
        "transport",
    )

    def __init__(self, open_exchange: Callable[[Head, Connection], Exchange]) -> None:
        self._open = open_exchange
        self._parser = httptools.HttpRequestParser(self)
        self._exchanges: deque[tuple[Exchange, Head]] = deque()
        self._head = Head()
        self._header_bytes = 0
        self._paused = False
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything else happens
        self._deaf = False
        self.idle_since = 0.0
        """When the gateway's sweep first saw it idle; 0 while it is busy."""

    # -- asyncio.Protocol ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream socket's is a Transport

    def connection_lost(self, exc: Exception | None) -> None:
        exchanges, self._exchanges = self._exchanges, deque()
        for exchange, _ in exchanges:
            exchange.lost()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.refuse(400, b"Upgrade is not supported.")
        except httptools.HttpParserError as error:
            cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
            if cause is not None and not isinstance(cause, BadRequest):
                raise cause from error
            self.refuse(400, str(cause or error).encode())
        if len(self._exchanges) > 1 and not self._paused:
            # A client that sends requests ahead of their answers waits in the socket, not in our memory.
            self._paused = True
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        if self._exchanges:
            self._exchanges[0][0].pause()

    def resume_writing(self) -> None:
        if self._exchanges:
            self._exchanges[0][0].resume()

    # -- httptools ---------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._head = Head()
        self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._head.target += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        headers = self._head.headers
        if name in headers:
            value = headers[name] + b"," + value
        headers[name] = value
        self._count(len(name) + len(value))

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADERS:
            raise BadRequest("Request header is too large.")

    def on_headers_complete(self) -> None:
        head, parser = self._head, self._parser
        head.method = parser.get_method()
        head.modern = parser.get_http_version() == "1.1"
        head.keep_alive = parser.should_keep_alive()
        if self.transport.is_closing():
            return
        exchange = self._open(head, self)
        self._exchanges.append((exchange, head))
        if len(self._exchanges) == 1:
            exchange.begin()

    def on_body(self, body: bytes) -> None:
        if self._exchanges and self._exchanges[-1][1] is self._head:
            self._exchanges[-1][0].feed(body)

    def on_message_complete(self) -> None:
        if self._exchanges and self._exchanges[-1][1] is self._head:
            self._exchanges[-1][0].complete()

    # -- for exchanges -----------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """No request is being answered."""
        return not self._exchanges

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def finish(self, *, reusable: bool = True) -> None:
        """End the answer to the oldest request and go on to the next one, or close."""
        if not self._exchanges:
            return
        _, head = self._exchanges.popleft()
        if not (reusable and head.keep_alive):
            self._exchanges.clear()
            self._hang_up()
        elif self._exchanges:
            self._exchanges[0][0].begin()
        elif self._paused:
            self._paused = False
            self.transport.resume_reading()

    def refuse(self, status: int, text: bytes) -> None:
        """Answer outside of any exchange, because what came is not a request, and close."""
        if self.transport.is_closing():
            return
        self._exchanges.clear()
        self.transport.write(
            b"%b\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
            % (status_line(status), len(text), text)
        )
        self._hang_up()

    def _hang_up(self) -> None:
        """Close, but read on for a moment: a reset, which closing with unread input causes, would eat our answer."""
        if self._deaf or self.transport.is_closing():
            return
        self._deaf = True
        if self._paused:
            self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        asyncio.get_running_loop().call_later(LINGER, self.transport.close)


class BadRequest(Exception):
    """What the client sent breaks a limit of the protocol."""


def status_line(status: int) -> bytes:
    """Give `HTTP/1.1 200 OK`, without the line's end."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:  # 530 is AWS's own
        phrase = "Error"
    return f"HTTP/1.1 {status} {phrase}".encode()
