"""One connection to one container, for one request at a time: as little as an HTTP client can be.

A job makes millions of requests, each as short as its record, and every microsecond here is one of each of them. So an
answer that comes whole, with its length in its head, is taken apart by hand; every other goes through httptools.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import httptools

LARGE = 32 * 1024
"""Bytes of a body from which on it is not copied behind its head."""
_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length: "
_UNUSUAL = (b"\r\ntransfer-encoding:", b"\r\nconnection:", b"\r\nupgrade:")
"""Headers that say how a connection goes on."""


class Broken(Exception):
    """No whole answer came. `answered`: a part of it did."""

    def __init__(self, words: str, *, answered: bool) -> None:
        super().__init__(words)
        self.answered = answered


class Reply(NamedTuple):
    """A container's answer. `head` is all before the body, in lower case but for values."""

    status: int
    body: bytes
    content_type: bytes | None = None
    """None: it is in `head` still."""
    head: bytes = b""

    @property
    def kind(self) -> bytes:
        """Give its Content-Type as the container wrote it."""
        if self.content_type is not None:
            return self.content_type
        start = self.head.lower().find(b"\r\ncontent-type:")
        return self.head[start + 15 :].partition(b"\r\n")[0].strip() if start >= 0 else b""


class Channel(asyncio.Protocol):
    """Opened by `connect`; of no more use once `is_closed`."""

    def __init__(self) -> None:
        self.is_closed = False
        self.was_used = False
        """Whether it has brought an answer: then the container may close it any time, which says nothing of it."""
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything else happens
        self._future: asyncio.Future[Reply] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._pieces: list[bytes] = []
        self._content_type = b""
        self._is_whole = self._keeps = False

    @classmethod
    async def connect(cls, host: str, port: int, timeout: float) -> Channel:
        """Open a connection. Raises OSError or TimeoutError."""
        async with asyncio.timeout(timeout):
            _, channel = await asyncio.get_running_loop().create_connection(cls, host, port)
            return channel

    def ask(self, head: bytes, body: bytes, future: asyncio.Future[Reply]) -> None:
        """Send a request, whose head ends with `Content-Length: `; the answer is `future`'s, or Broken."""
        self._future = future
        request = head + b"%d\r\n\r\n" % len(body)
        if len(body) <= LARGE:  # in one piece, so that the container wakes up once
            self._transport.write(request + body)
        else:
            self._transport.write(request)
            self._transport.write(body)

    def close(self) -> None:
        """Give up whatever is under way."""
        self.is_closed, self._future = True, None
        self._transport.abort()

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream socket's is a Transport

    def data_received(self, data: bytes) -> None:
        if self._future is None:  # nobody has asked for anything
            self.close()
        elif self._parser is not None or not self._take_whole(data):
            self._parse(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        answered = self._parser is not None
        if answered and exc is None and self._ends_with_connection:
            self._settle()
        else:
            self._break(str(exc or "the container closed the connection"), answered=answered)

    # -- the usual answer ----------------------------------------------------------------------------------------------

    def _take_whole(self, data: bytes) -> bool:
        """Take an answer that is all of `data`, with nothing in its head that would have to be thought about."""
        end = data.find(_END)
        if end < 0 or not data.startswith(b"HTTP/1.1 2"):
            return False
        head = data[:end].lower()
        start = head.find(_LENGTH)
        if start < 0 or any(each in head for each in _UNUSUAL):
            return False
        length = head[start + 18 :].partition(b"\r\n")[0]
        if not length.isdigit() or len(data) != end + 4 + int(length):
            return False
        future, self._future, self.was_used = self._future, None, True
        if future is not None and not future.done():
            future.set_result(Reply(int(data[9:12]), data[end + 4 :], None, data[:end]))
        return True

    # -- every other ---------------------------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
            self._pieces, self._content_type = [], b""
            self._is_whole = self._has_length = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._is_whole:
                self._break(f"it is no HTTP ({error})", answered=True)
                return
            self._keeps = False  # more than was asked for
        if self._is_whole:
            self._settle()

    @property
    def _ends_with_connection(self) -> bool:
        """As HTTP/1.0 has it: neither a length nor chunks."""
        return self._parser is not None and self._parser.get_status_code() >= 200 and not self._has_length

    def _settle(self) -> None:
        assert self._parser is not None, "there is an answer"
        future, self._future = self._future, None
        reply = Reply(self._parser.get_status_code(), b"".join(self._pieces), self._content_type)
        self._parser, self._pieces, self.was_used = None, [], True
        if not self._keeps:
            self.is_closed = True
            self._transport.close()
        if future is not None and not future.done():
            future.set_result(reply)

    def _break(self, words: str, *, answered: bool) -> None:
        future, self._future = self._future, None
        self.is_closed = True
        self._transport.abort()
        if future is not None and not future.done():
            future.set_exception(Broken(words, answered=answered))

    # -- httptools -----------------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-type":
                self._content_type = value
            case b"content-length" | b"transfer-encoding":
                self._has_length = True

    def on_headers_complete(self) -> None:
        assert self._parser is not None, "it is calling"
        self._keeps = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        assert self._parser is not None, "it is calling"
        self._is_whole = self._parser.get_status_code() >= 200  # interim answers are none
