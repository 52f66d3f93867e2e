"""One connection to one container, for one request at a time: as little as an HTTP client can be.

A transform job makes millions of requests, each as short as its record, and every microsecond here is one of each. So a
good answer with its length in its head is taken apart by hand, every other by httptools; and where an answer was read
the next request is written, without a task in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import httptools

LARGE = 32 * 1024
"""Bytes of a body from which on it is not copied behind its head."""
_END = b"\r\n\r\n"
_HEADS = 1000
"""Heads of requests that a channel keeps: records of many lengths are not to fill the memory."""
_DIGITS = 18
"""Of a length, at most."""

Take = Callable[[bytes], bytes | None]
"""Is given the body of a good answer and gives that of the next request; None: there is none for now."""


class Broken(Exception):
    """No whole answer came. `answered`: a part of it did."""

    def __init__(self, words: str, *, answered: bool) -> None:
        super().__init__(words)
        self.answered = answered


class Reply(NamedTuple):
    """A container's answer; `content_type` as the container wrote it."""

    status: int
    body: bytes
    content_type: bytes = b""


class _Head(NamedTuple):
    """What there is to know of the head of a good answer. Length in bytes."""

    status: int
    length: int
    content_type: bytes


@lru_cache(1024)
def _plain(head: bytes) -> _Head | None:
    """Read the head of a good answer that ends where its length says, on a connection that stays; None: it is another.

    Heads are few: they differ in lengths, and once a second in the date.
    """
    first, *lines = head.split(b"\r\n")
    if not first.startswith(b"HTTP/1.1 2") or not first[9:12].isdigit() or first[9:12] in (b"204", b"205"):
        return None
    length, content_type = -1, b""
    for line in lines:
        name, colon, value = line.partition(b":")
        value = value.strip(b" \t")
        match name.lower():
            case b"content-length":
                if length >= 0 or not value.isdigit() or len(value) > _DIGITS:
                    return None
                length = int(value)
            case b"content-type":
                content_type = value
            case b"connection":
                if value.lower() != b"keep-alive":
                    return None
            case b"transfer-encoding" | b"upgrade":
                return None
            case _:
                if not colon or not name or name[:1].isspace() or name[-1:].isspace():  # httptools knows what to say
                    return None
    return _Head(int(first[9:12]), length, content_type) if length >= 0 else None


class Channel(asyncio.Protocol):
    """Opened by `connect`; of no more use once `is_closed`."""

    def __init__(self) -> None:
        self.is_closed = False
        self.was_used = False
        """Whether it has brought an answer: then the container may close it any time, which says nothing of it."""
        self.asked = b""
        """The body of the last request."""
        self.since = 0.0
        """When that was made, in the loop's time."""
        self._time = asyncio.get_running_loop().time
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything else happens
        self._head = b""
        self._heads: dict[int, bytes] = {}
        """What goes before a body of this length."""
        self._future: asyncio.Future[Reply | None] | None = None
        self._take: Take | None = None
        self._plain: _Head | None = None
        """The head of the answer whose body is coming now; None where httptools has it."""
        self._missing = 0
        """Bytes of that body."""
        self._parser: httptools.HttpResponseParser | None = None
        self._pieces: list[bytes] = []
        self._status, self._content_type = 0, b""
        self._is_whole = self._keeps = self._has_length = False

    @classmethod
    async def connect(cls, host: str, port: int, timeout: float | None) -> Channel:
        """Open a connection. Raises OSError or TimeoutError; `timeout` None: the caller has one."""
        async with asyncio.timeout(timeout):
            _, channel = await asyncio.get_running_loop().create_connection(cls, host, port)
            return channel

    def ask(self, head: bytes, body: bytes, future: asyncio.Future[Reply | None], take: Take | None = None) -> None:
        """Send a request, whose head ends with `Content-Length: `; the answer is `future`'s, or Broken.

        Where there is a `take`, good answers are given to it, and what it gives is sent next. `future` then has None
        when `take` has nothing more, or else what became of `asked`, the last request.
        """
        if head != self._head:
            self._head, self._heads = head, {}
        self._future, self._take = future, take
        self._send(body)

    def give_up_if_late(self, timeout: float) -> None:
        """End a request that has taken longer than so many seconds. To be called now and then."""
        if self._future is not None and self._time() - self.since > timeout:
            self._break(f"no answer within {timeout:g} s", answered=True)

    def close(self) -> None:
        """Give up whatever is under way."""
        self.is_closed, self._future = True, None
        self._transport.abort()

    def _send(self, body: bytes) -> None:
        self.asked, self.since, length = body, self._time(), len(body)
        head = self._heads.get(length)
        if head is None:
            head = self._head + b"%d\r\n\r\n" % length
            if length <= LARGE and len(self._heads) < _HEADS:
                self._heads[length] = head
        if length <= LARGE:  # in one piece, so that the container wakes up once
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    def _settle(self, reply: Reply | None) -> None:
        future, self._future = self._future, None
        if future is not None and not future.done():
            future.set_result(reply)

    def _break(self, words: str, *, answered: bool) -> None:
        future, self._future = self._future, None
        self.is_closed = True
        self._transport.abort()
        if future is not None and not future.done():
            future.set_exception(Broken(words, answered=answered))

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream socket's is a Transport

    def data_received(self, data: bytes) -> None:
        if self._future is None:  # nobody has asked for anything
            self.close()
        elif self._parser is not None:
            self._parse(data)
        elif self._plain is not None:
            self._add(data)
        else:
            self._begin(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        if self._parser is not None and exc is None and self._ends_with_connection:
            self._parsed()
        else:
            words = str(exc or "the container closed the connection")
            self._break(words, answered=self._parser is not None or self._plain is not None)

    # -- what comes ----------------------------------------------------------------------------------------------------

    def _begin(self, data: bytes) -> None:
        end = data.find(_END)
        head = _plain(data[:end]) if end >= 0 else None
        if head is None:
            self._parse(data)
            return
        body = data[end + 4 :]
        missing = head.length - len(body)
        if not missing:
            self._good(head.status, body, head.content_type)
        else:
            self._plain, self._missing, self._pieces = head, missing, [body]
            self._end()

    def _add(self, data: bytes) -> None:
        self._pieces.append(data)
        self._missing -= len(data)
        self._end()

    def _end(self) -> None:
        """Be done with an answer, if all of it is there."""
        if self._missing > 0:
            return
        head, body = self._plain, b"".join(self._pieces)
        assert head is not None, "its body came"
        self._plain, self._pieces = None, []
        if self._missing < 0:  # more than was asked for
            self._take, self.is_closed = None, True
            self._transport.close()
        self._good(head.status, body[: head.length], head.content_type)

    def _good(self, status: int, body: bytes, content_type: bytes) -> None:
        self.was_used = True
        take, future = self._take, self._future
        if take is None or future is None or future.done():
            self._settle(Reply(status, body, content_type))
            return
        try:
            following = take(body)
        except Exception as error:  # is for those who wait, not for the loop
            self._future = None
            future.set_exception(error)
            return
        if following is None:
            self._settle(None)
        else:
            self._send(following)

    # -- others --------------------------------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
            self._pieces, self._status, self._content_type = [], 0, b""
            self._is_whole = self._has_length = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._is_whole:
                self._break(f"it is no HTTP ({error})", answered=True)
                return
            self._keeps = False  # it says more than was asked for
        if self._is_whole:
            self._parsed()

    @property
    def _ends_with_connection(self) -> bool:
        """As HTTP/1.0 has it: neither a length nor chunks."""
        return self._status >= 200 and not self._has_length

    def _parsed(self) -> None:
        status, body = self._status, b"".join(self._pieces)
        self._parser, self._pieces, self.was_used = None, [], True
        if self._keeps and 200 <= status < 300:
            self._good(status, body, self._content_type)
            return
        if not self._keeps:
            self.is_closed = True
            self._transport.close()
        self._settle(Reply(status, body, self._content_type))

    # -- httptools -----------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._is_whole:
            raise ValueError("more than was asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-type":
                self._content_type = value
            case b"content-length" | b"transfer-encoding":
                self._has_length = True

    def on_headers_complete(self) -> None:
        assert self._parser is not None, "it is calling"
        self._status, self._keeps = self._parser.get_status_code(), self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        self._is_whole = self._status >= 200  # interim answers are none
