"""Requests to the containers of one instance: through a pipeline, again where they fail, never longer than allowed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from clary.core.routing import Hop
from clary.core.transform import Work
from clary.gateway.upstream import Pool
from clary.transform.instances import Places

CONNECT_TIMEOUT = 5.0
"""Seconds."""
FIRST_PAUSE = 0.5
"""Seconds before the first retry; twice as long before each further one. Longer than it takes to notice an exit."""
_EXCERPT = 8 * 1024
"""Bytes of an answer that are kept for the log."""

Blame = Literal["ClientError", "AlgorithmError", "InternalServerError"]
"""Whose fault it is, in the words of FailureReason: the data's, the container's, ours."""


class CallFailed(Exception):
    """A request has no good answer, and will have none. `words` are one line; `body` is what the container said."""

    def __init__(self, blame: Blame, words: str, status: int = 0, body: bytes = b"") -> None:
        super().__init__(words)
        self.blame = blame
        self.words = words
        self.status = status
        self.body = body[:_EXCERPT]


class _Unanswered(Exception):
    """No whole answer came. `stale`: the connection had been open for a while, and the container had just closed it."""

    def __init__(self, words: str, *, stale: bool = False) -> None:
        super().__init__(words)
        self.stale = stale


@dataclass(slots=True)
class Reply:
    """What a container answered."""

    status: int
    content_type: bytes
    body: bytes


class _Listener:
    """Hears one answer (gateway.upstream.Answer)."""

    __slots__ = ("_future", "_headers", "_pieces", "_reused", "_status", "over")

    def __init__(self, future: asyncio.Future[Reply], *, reused: bool) -> None:
        self._future = future
        self._reused = reused
        self._pieces: list[bytes] = []
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self.over = False

    def head(self, status: int, headers: list[tuple[bytes, bytes]], *, final: bool) -> None:
        self._status, self._headers = status, headers

    def body(self, data: bytes) -> None:
        self._pieces.append(data)

    def received(self) -> None:
        return

    def end(self) -> None:
        self.over = True
        if not self._future.done():
            kind = next((value for name, value in self._headers if name.lower() == b"content-type"), b"")
            self._future.set_result(Reply(self._status, kind, b"".join(self._pieces)))

    def broken(self, error: Exception, *, answered: bool) -> None:
        self.over = True
        if not self._future.done():
            stale = self._reused and not answered
            self._future.set_exception(_Unanswered(str(error) or type(error).__name__, stale=stale))


class Caller:
    """Makes one request after the other to an instance."""

    def __init__(self, pool: Pool, places: Places, work: Work, instance: str) -> None:
        self._pool = pool
        self._places = places
        self._work = work
        self._instance = instance
        self._loop = asyncio.get_running_loop()
        self._heads: dict[tuple[Hop, bytes], bytes] = {}

    async def call(self, body: bytes) -> bytes:
        """Give the last container's answer. Raises CallFailed."""
        failure: CallFailed | None = None
        for attempt in range(self._work.retries + 1):
            if attempt:
                await asyncio.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
            try:
                reply = await self._through(await self._places.of(self._instance), body)
            except _Unanswered as error:
                failure = CallFailed("AlgorithmError", f"Unable to get response from algorithm: {error}")
                continue
            if 200 <= reply.status < 300:
                return reply.body
            failure = refused(reply.status, reply.body)
            if failure.blame == "ClientError" and reply.status != 429:
                break
        assert failure is not None, "there is an attempt at least"
        raise failure

    async def _through(self, hops: tuple[Hop, ...], body: bytes) -> Reply:
        """Send a request to the first container, what it answers to the second, and so on."""
        reply = Reply(200, self._work.content_type.encode(), body)
        for hop in hops:
            # What is accepted is the last container's business.
            accept = self._work.accept.encode() if hop is hops[-1] else b""
            reply = await self._ask(hop, reply.content_type, accept, reply.body)
            if not 200 <= reply.status < 300:
                break
        return reply

    async def _ask(self, hop: Hop, content_type: bytes, accept: bytes, body: bytes) -> Reply:
        head = self._head(hop, content_type, accept) + b"%d\r\n\r\n" % len(body)
        while True:
            connection = self._pool.take(hop.host, hop.port)
            if connection is None:
                try:
                    connection = await self._pool.connect(hop.host, hop.port, CONNECT_TIMEOUT)
                except (OSError, TimeoutError) as error:
                    raise _Unanswered(f"{hop.name} takes no connection ({error or 'too slow'})") from error
            future: asyncio.Future[Reply] = self._loop.create_future()
            listener = _Listener(future, reused=connection.reused)
            connection.send(head, listener, body)
            late = self._loop.call_later(self._work.timeout, _give_up, future, self._work.timeout)
            try:
                return await future
            except _Unanswered as error:
                if not error.stale:
                    raise
            finally:
                late.cancel()
                if not listener.over:  # else the connection is somebody else's by now
                    connection.cancel()

    def _head(self, hop: Hop, content_type: bytes, accept: bytes) -> bytes:
        """Give the head of a request up to the length of its body."""
        head = self._heads.get((hop, content_type))
        if head is None:
            lines = [b"POST /invocations HTTP/1.1", f"Host: {hop.host}:{hop.port}".encode()]
            lines += [b"Content-Type: " + content_type] if content_type else []
            lines += [b"Accept: " + accept] if accept else []
            head = self._heads[hop, content_type] = b"\r\n".join((*lines, b"Content-Length: "))
        return head


def refused(status: int, body: bytes) -> CallFailed:
    """Make the failure for an answer that is not 2xx."""
    if 400 <= status < 500:
        return CallFailed("ClientError", f"ClientError: {status}", status, body)
    return CallFailed("AlgorithmError", f"Bad HTTP status received from algorithm: {status}", status, body)


def _give_up(future: asyncio.Future[Reply], seconds: float) -> None:
    if not future.done():
        future.set_exception(_Unanswered(f"no answer within {seconds:g} s"))
