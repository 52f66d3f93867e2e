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
from typing import NamedTuple, Protocol

import httptools

from clary.gateway.head import BadRequest, Head, check, origin_form, size_of, too_large
from clary.gateway.outbox import Outbox

MAX_HEADERS = 64 * 1024
"""Bytes of request line and headers together."""
MAX_REPEATED = 64
"""Headers whose name came before; each costs a copy of what it joins."""
PARTING = 1.0
"""Seconds that a client has to close after the last answer, before we do."""
LINGER = 5.0
"""The same for one that was refused in the middle of its request: seconds without a byte of what it still sends."""
LINGER_MOST = 30.0
"""Seconds for which what it still sends is thrown away."""
IN_A_ROW = 32
"""Requests, sent ahead, that are begun before others have their turn: many are refused as soon as they are begun."""
HALF_CLOSED = 2.0
"""Seconds for which a client that sends no more is still owed its answers. One that has left looks the same."""


class Source(NamedTuple):
    """Whence a request comes, as policies may ask."""

    ip: str
    """The client's address; empty where it has none (a unix socket)."""
    secure: bool = False
    """It came over TLS."""


class Exchange(Protocol):
    """A request and its answer. Calls come in this order: (feed, complete) in any mixture with begin; then lost."""

    def begin(self) -> None:
        """Answer now: every earlier request of the connection is answered."""

    def feed(self, data: bytes) -> None:
        """Take a piece of the request's body."""

    def complete(self) -> None:
        """The body has ended."""

    def lost(self) -> None:
        """The client went away, or has broken off this request; stop working for it."""

    def pause(self) -> None:
        """The client reads slower than we write."""

    def resume(self) -> None:
        """The client has caught up."""


class ShortWay(Protocol):
    """Takes requests that came whole and alone (`clary.gateway.short`); only it touches a connection from outside.

    It puts an exchange of its own in `exchanges`, as the only one and with `adopted` for its head, which has begun.
    """

    def client_ear(self, client: Connection) -> Callable[[bytes], None]:
        """Give what is called with all that a client sends, and hands on to `receive` what it does not take."""


class Connection(asyncio.Protocol):
    """Parses requests, opens an exchange for each and writes what they answer, one after the other.

    Nothing is read while it would only fill memory: when a client sends requests ahead of their answers, does not
    read the answers, or sends a body faster than its reader takes it.
    """

    __slots__ = ("__weakref__", "_beginning", "_body_full", "_headers", "_open", "_outbox", "_parser", "_repeated",
                 "_short", "_size", "adopted", "begun", "deaf", "exchanges", "fruitless", "head", "heard", "in_head",
                 "quiet_since", "reading", "transport", "unsent_before", "write_paused", "wrote")  # fmt: skip

    def __init__(
        self,
        open_exchange: Callable[[Head, Connection], Exchange],
        outbox: Outbox,
        short: ShortWay | None = None,
    ) -> None:
        """`short` may take requests that come whole and alone."""
        self._open = open_exchange
        self._outbox = outbox
        self._short = short
        self._parser = httptools.HttpRequestParser(self)
        self.exchanges: deque[tuple[Exchange, Head]] = deque()
        self.head = Head()
        self.head.complete = True
        self._headers = self.head.headers
        self.adopted = self.head
        """Stands for the heads of adopted requests, which are whole and keep the connection open."""
        self.in_head = False
        """A request has begun whose headers are not all here."""
        self._repeated = 0
        self._size = 0
        """Bytes of the last read; 0 while nothing has come since we began to linger."""
        self.fruitless = 0
        """Bytes of whole reads since a request or a piece of its body began or ended: heads, trailers, empty lines."""
        self.reading = True
        self._body_full = self.write_paused = False
        self._beginning = False
        """An exchange is just being told to begin."""
        self.begun = self.wrote = False
        """Whether the oldest exchange has been told to begin, and has written."""
        self.deaf = False
        """Whatever still comes is thrown away: the last answer is given, or about to be."""
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything else happens
        self.heard = False
        """Something was read; for the sweep, which takes it back."""
        self.unsent_before = 0
        """What was unsent when the gateway's sweep last looked; -1 where much of it has been taken since."""
        self.quiet_since = 0.0
        """When the gateway's sweep first saw it idle, or stalled in the middle of a request; 0 while it is neither."""

    @property
    def source(self) -> Source:
        """Whence requests on this connection come."""
        peer = self.transport.get_extra_info("peername")
        secure = self.transport.get_extra_info("ssl_object") is not None
        return Source(str(peer[0]) if isinstance(peer, tuple) else "", secure)

    # -- asyncio.Protocol ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream socket's is a Transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.deaf = True
        self._abandon()

    def eof_received(self) -> bool:
        """Answer what was asked whole, for a moment; otherwise let the transport close. TLS knows no half-close."""
        if self.deaf or not self.exchanges or not self.transport.can_write_eof():
            return False
        last = self.exchanges[-1][1]
        last.keep_alive = False
        if last.complete:
            asyncio.get_running_loop().call_later(HALF_CLOSED, self.transport.abort)
        return last.complete

    @property
    def data_received(self) -> Callable[[bytes], None]:
        """What hears the client; uvloop asks once."""
        return self.receive if self._short is None else self._short.client_ear(self)

    def receive(self, data: bytes) -> None:
        """Take what was read."""
        self.heard = True
        self._size = size = len(data)
        if self.deaf:
            return
        rest: bytes | memoryview = data
        try:
            while rest:  # more than once where upgrades were offered
                rest = self._parse(rest)
            self.fruitless += size
            if self.fruitless > MAX_HEADERS:
                raise too_large()
        except httptools.HttpParserError as error:
            cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
            if cause is not None and not isinstance(cause, BadRequest):
                raise cause from error
            self._refuse(str(cause or error).encode(), cause.status if cause is not None else 400)
        except BadRequest as error:
            self._refuse(str(error).encode(), error.status)
        if len(self.exchanges) > 1:
            self._regulate()

    def _parse(self, data: bytes | memoryview) -> bytes | memoryview:
        """Parse; give what is left where the parser stopped at the head of a request that offers an upgrade.

        A server may ignore an Upgrade (RFC 9110, 7.8), and clients offer HTTP/2 to everybody in this way. The parser
        takes what follows for another protocol, so a new one gets the head as it is without the offer.
        """
        try:
            self._parser.feed_data(data)
            return b""
        except httptools.HttpParserUpgrade as upgrade:
            end = upgrade.args[0]
        head, version = self.head, self._parser.get_http_version()
        lines = [b"%b: %b" % (name, value) for name, value in head.headers.items() if name != b"upgrade"]
        self._parser = httptools.HttpRequestParser(self)
        start = b"%b %b HTTP/%b" % (head.method, head.target, version.encode())
        self._parser.feed_data(b"\r\n".join([start, *lines, b"\r\n"]))
        return memoryview(data)[end:]  # no copy: thousands of these may have come at once

    def pause_writing(self) -> None:
        self.write_paused = True
        if self.begun:
            self.exchanges[0][0].pause()

    def resume_writing(self) -> None:
        self.write_paused = False
        self.unsent_before = -1
        if self.begun:
            self.exchanges[0][0].resume()
        else:
            self._next()

    # -- httptools ---------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.head = head = Head()
        self._headers = head.headers
        self.in_head = True
        self._repeated = 0
        self.fruitless = -self._size

    def on_url(self, url: bytes) -> None:
        self.head.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        headers = self._headers
        if name in headers or not self.in_head:
            self._repeated += 1
            if self._repeated > MAX_REPEATED:
                raise BadRequest("Request header has too many repeated fields.", 431)
            if not self.in_head:
                return  # a trailer: it says nothing that a header could (RFC 9110, 6.5.1)
            if name == b"authorization":  # a comma is part of one, so joined they could be read as another one
                raise BadRequest("There is more than one Authorization header.")
            value = headers[name] + b"," + value
        headers[name] = value

    def on_headers_complete(self) -> None:
        if self.deaf:
            return
        head, parser = self.head, self._parser
        self.in_head = False
        if self._size + max(self.fruitless, 0) > MAX_HEADERS and size_of(head) > MAX_HEADERS:
            raise too_large()
        head.method = parser.get_method()
        version = parser.get_http_version()
        head.modern = version == "1.1"
        head.keep_alive = parser.should_keep_alive()
        check(head, version)
        if parser.should_upgrade():
            return  # it comes again, without
        if not head.target.startswith(b"/"):
            head.target = origin_form(head.target)
        self.exchanges.append((self._open(head, self), head))
        if len(self.exchanges) == 1:
            self._next()

    def on_body(self, body: bytes) -> None:
        self.fruitless = -self._size
        if self.exchanges and self.exchanges[-1][1] is self.head:
            self.exchanges[-1][0].feed(body)

    def on_message_complete(self) -> None:
        self.fruitless = -self._size
        self.head.complete = True
        if self.exchanges and self.exchanges[-1][1] is self.head:
            self.exchanges[-1][0].complete()

    # -- for exchanges -----------------------------------------------------------------------------------------------

    def succeed(self, exchange: Exchange, head: Head) -> None:
        """Let another exchange go on in the place of the oldest, which was adopted."""
        if self.exchanges:
            head.keep_alive = self.exchanges[0][1].keep_alive
            self.exchanges[0] = (exchange, head)

    def write(self, data: bytes) -> None:
        """Write a piece of the oldest exchange's answer."""
        self.wrote = True
        self._outbox.write(self.transport, data)

    def finish(self, *, reusable: bool = True) -> None:
        """End the answer to the oldest request and go on to the next one, or close."""
        if not self.exchanges:
            return
        _, head = self.exchanges.popleft()
        self.begun = False
        if reusable and head.keep_alive and not self.deaf:
            self._next()
        elif self.exchanges and self.deaf and head.keep_alive and reusable:
            self._next()  # the refusal of what came after
        else:
            self._abandon()
            self._hang_up(expecting=not head.complete)

    def hold_body(self, full: bool) -> None:
        """Make the client wait while the reader of its request's body is behind."""
        self._body_full = full
        self._regulate()

    # -- for the gateway's sweep -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close once everything is written."""
        self._outbox.flush()
        self.transport.close()

    def let_go(self) -> None:
        """Close, at once where what is written would never be read."""
        if self.unsent:
            self.transport.abort()
        else:
            self.close()

    @property
    def unsent(self) -> int:
        """Bytes that were written and that the client's side has not taken yet."""
        return self.transport.get_write_buffer_size()

    @property
    def idle(self) -> bool:
        """No request is being answered."""
        return not self.exchanges

    @property
    def awaiting(self) -> bool:
        """The rest of a request is still to come, and nobody but the client holds it up."""
        return bool(self.exchanges) and not self.exchanges[-1][1].complete and self.reading

    # -- inside ------------------------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Begin the oldest exchange, unless the client has to read first; and the next one, if that ended at once."""
        if self._beginning:
            return  # one within the other they would soon be too deep
        self._beginning = True
        try:
            for _ in range(IN_A_ROW):
                if not self.exchanges or self.begun or self.write_paused:
                    break
                self.begun, self.wrote = True, False
                self.exchanges[0][0].begin()
            else:
                asyncio.get_running_loop().call_soon(self._next)
        finally:
            self._beginning = False
        if not self.reading or self.write_paused or len(self.exchanges) > 1:
            self._regulate()

    def _regulate(self) -> None:
        ahead = len(self.exchanges) > 1 or (self.write_paused and not self.begun)
        reading = self.deaf or not (self._body_full or ahead)
        if reading != self.reading and not self.transport.is_closing():
            self.reading = reading
            if reading:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def _abandon(self) -> None:
        self.begun = False
        exchanges, self.exchanges = self.exchanges, deque()
        for exchange, _ in exchanges:
            exchange.lost()

    def _refuse(self, text: bytes, status: int) -> None:
        """Answer what is not a request, after everything that came before it, and close."""
        if self.deaf or self.transport.is_closing():
            return
        self.deaf = True
        if self.exchanges and not self.exchanges[-1][1].complete:  # the body of a request that is under way
            broken, _ = self.exchanges.pop()
            broken.lost()
            if not self.exchanges:
                if self.begun and self.wrote:
                    self.transport.abort()  # its answer has begun: only so can the client learn of it
                    return
                self.begun = False
        self.exchanges.append((_Refusal(self, text, status), Head()))
        self._next()

    def _hang_up(self, *, expecting: bool) -> None:
        """Close, but read on for a moment: a reset, which closing with unread input causes, would eat our answer."""
        self.deaf = True
        if self.transport.is_closing():
            return
        self._body_full = False
        self._regulate()
        self._outbox.flush()
        if self.transport.can_write_eof():
            try:
                self.transport.write_eof()
            except OSError:  # the client has gone, and the loop does not know it yet
                self.transport.abort()
                return
        loop = asyncio.get_running_loop()
        if expecting:
            self._size = 0
            loop.call_later(LINGER, self._linger, loop.time() + LINGER_MOST)
        else:
            loop.call_later(PARTING, self.transport.close)

    def _linger(self, until: float) -> None:
        """Close, unless the client still sends: it learns of its answer only when it has sent all or looks up."""
        loop = asyncio.get_running_loop()
        if self._size and loop.time() < until and not self.transport.is_closing():
            self._size = 0
            loop.call_later(LINGER, self._linger, until)
        else:
            self.transport.close()


class _Refusal:
    """The answer to what is not a request."""

    def __init__(self, client: Connection, text: bytes, status: int) -> None:
        self._client = client
        self._text = text
        self._status = status

    def begin(self) -> None:
        self._client.write(
            b"%b\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
            % (status_line(self._status), len(self._text), self._text)
        )
        self._client.finish(reusable=False)

    def feed(self, data: bytes) -> None: ...

    def complete(self) -> None: ...

    def lost(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


def status_line(status: int) -> bytes:
    """Give `HTTP/1.1 200 OK`, without the line's end."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:  # 530 is AWS's own
        phrase = "Error"
    return f"HTTP/1.1 {status} {phrase}".encode()
