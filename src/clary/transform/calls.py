"""Requests to the containers of one instance: through a pipeline, again where they fail, never longer than allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from clary.core.routing import Hop
from clary.core.transform import Work
from clary.transform.channel import Broken, Channel, Reply
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


class _Leg:
    """The way to one container of an instance: a connection, and what is said at the beginning of each request."""

    def __init__(self, hop: Hop, kind: bytes, accept: bytes) -> None:
        self.hop = hop
        self.channel: Channel | None = None
        self._accept = accept
        self.speak(kind)

    def speak(self, kind: bytes) -> None:
        """Send requests of this content type from now on."""
        self.kind = kind
        lines = [b"POST /invocations HTTP/1.1", f"Host: {self.hop.host}:{self.hop.port}".encode()]
        lines += [b"Content-Type: " + kind] if kind else []
        lines += [b"Accept: " + self._accept] if self._accept else []
        self.head = b"\r\n".join((*lines, b"Content-Length: "))


class Caller:
    """Makes one request after the other to an instance, over connections of its own."""

    def __init__(self, places: Places, work: Work, instance: str) -> None:
        self._places = places
        self._instance = instance
        self._type, self._accept = work.content_type.encode(), work.accept.encode()
        self._timeout, self._retries = work.timeout, work.retries
        self._loop = asyncio.get_running_loop()
        self._hops: tuple[Hop, ...] = ()
        self._legs: list[_Leg] = []
        """One for each of the hops."""
        self._future: asyncio.Future[Reply] | None = None
        """What the answer is waited for with."""
        self._late = 0.0
        """When that has taken too long, in the loop's time."""

    async def call(self, body: bytes) -> bytes:
        """Give the last container's answer. Raises CallFailed."""
        return await self._tried(
            lambda: self._ask(self._legs[0], body) if len(self._legs) == 1 else self._through(body)
        )

    async def flow(self, sent: Callable[[Sequence[Hop]], Awaitable[Reply]]) -> None:
        """Have a request sent that does not fit into memory, and its answer taken. Raises CallFailed."""
        await self._tried(lambda: sent(self._hops))

    async def _tried(self, ask: Callable[[], Awaitable[Reply]]) -> bytes:
        """Ask once, and as often again as is allowed."""
        failure: CallFailed | None = None
        for attempt in range(self._retries + 1):
            if attempt:
                await asyncio.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
            hops = self._places.now(self._instance) or await self._places.of(self._instance)
            if hops is not self._hops:
                self._prepare(hops)
            try:
                reply = await ask()
            except Broken as error:
                failure = CallFailed("AlgorithmError", f"Unable to get response from algorithm: {error}")
                continue
            if 200 <= reply.status < 300:
                return reply.body
            failure = refused(reply.status, reply.body)
            if failure.blame == "ClientError" and reply.status != 429:
                break
        assert failure is not None, "there is an attempt at least"
        raise failure

    def _prepare(self, hops: tuple[Hop, ...]) -> None:
        self.close()
        self._hops = hops
        # What is accepted is the last container's business.
        self._legs = [_Leg(hop, self._type, self._accept if hop is hops[-1] else b"") for hop in hops]

    async def _through(self, body: bytes) -> Reply:
        """Send a request to the first container, what it answers to the second, and so on."""
        first, *others = self._legs
        reply = await self._ask(first, body)
        for leg in others:
            if not 200 <= reply.status < 300:
                break
            if reply.kind != leg.kind:
                leg.speak(reply.kind)
            reply = await self._ask(leg, reply.body)
        return reply

    async def _ask(self, leg: _Leg, body: bytes) -> Reply:
        while True:
            channel = leg.channel
            if channel is None or channel.is_closed:
                channel = leg.channel = await self._connect(leg.hop)
            was_used = channel.was_used
            future: asyncio.Future[Reply] = self._loop.create_future()
            self._future = future
            self._late = self._loop.time() + self._timeout
            channel.ask(leg.head, body, future)
            try:
                return await future
            except Broken as error:
                if error.answered or not was_used:
                    raise
                # The container had just closed a connection that had been open for a while.

    async def _connect(self, hop: Hop) -> Channel:
        try:
            return await Channel.connect(hop.host, hop.port, CONNECT_TIMEOUT)
        except (OSError, TimeoutError) as error:
            raise Broken(f"{hop.name} takes no connection ({error or 'too slow'})", answered=False) from error

    def give_up_if_late(self, now: float) -> None:
        """End a request that has taken longer than InvocationsTimeoutInSeconds. To be called now and then."""
        if self._future is not None and now > self._late and not self._future.done():
            self._future.set_exception(Broken(f"no answer within {self._timeout:g} s", answered=True))
            self.close()

    def close(self) -> None:
        """Close all connections."""
        for leg in self._legs:
            if leg.channel is not None:
                leg.channel.close()


def refused(status: int, body: bytes) -> CallFailed:
    """Make the failure for an answer that is not 2xx."""
    if 400 <= status < 500:
        return CallFailed("ClientError", f"ClientError: {status}", status, body)
    return CallFailed("AlgorithmError", f"Bad HTTP status received from algorithm: {status}", status, body)
