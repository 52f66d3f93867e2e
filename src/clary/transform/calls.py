"""Requests to the containers of one instance: through a pipeline, again where they fail, never longer than allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, NamedTuple, Protocol

from clary.channel import Broken, Channel, Reply, Take
from clary.core.routing import Hop
from clary.core.transform import Work
from clary.transform.instances import Places

CONNECT_TIMEOUT = 5.0
"""Seconds."""
FIRST_PAUSE = 0.5
"""Seconds before the first retry; twice as long before each further one. Longer than it takes to notice an exit."""
EXCERPT = 8 * 1024
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
        self.body = body[:EXCERPT]


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


class Asking(Protocol):
    """Who wants requests made, one after the other."""

    @property
    def body(self) -> bytes:
        """That of the request that is to be made now."""
        ...

    def answered(self, answer: bytes) -> bytes | None:
        """Take the answer to it, and give the next `body`; None: there is nothing more for now."""
        ...


class Answer(NamedTuple):
    """What an instance answers."""

    reply: Reply | None
    """None: it was taken, and there is nothing more to ask for."""
    container: str = ""
    """Which container of a pipeline it is from; empty where there is but one."""


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

    async def ask(self, asking: Asking) -> None:
        """Make requests until there is nothing more to ask for. Raises CallFailed for the last one that was made."""
        while True:
            reply = (await self._tried(lambda attempt: self._asked(asking, attempt))).reply
            if reply is None or asking.answered(reply.body) is None:
                return

    async def flow(self, sent: Callable[[Sequence[Hop]], Awaitable[Answer]]) -> None:
        """Have a request sent that does not fit into memory, and its answer taken. Raises CallFailed."""
        await self._tried(lambda attempt: sent(self._hops))

    async def _tried(self, ask: Callable[[int], Awaitable[Answer]]) -> Answer:
        """Ask once, and as often again as is allowed; the attempts are counted from 0."""
        failure: CallFailed | None = None
        for attempt in range(self._retries + 1):
            if attempt:
                await asyncio.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
            hops = self._places.now(self._instance) or await self._places.of(self._instance)
            if hops is not self._hops:
                self._prepare(hops)
            try:
                answer = await ask(attempt)
            except Broken as error:
                failure = CallFailed("AlgorithmError", f"Unable to get response from algorithm: {error}")
                continue
            reply, container = answer
            if reply is None or 200 <= reply.status < 300:
                return answer
            failure = refused(reply, container)
            if failure.blame == "ClientError" and reply.status != 429:
                break
        assert failure is not None, "there is an attempt at least"
        raise failure

    async def _asked(self, asking: Asking, attempt: int) -> Answer:
        """Make a request, and those that follow as long as all is well.

        What is asked again is asked alone, so that attempts are counted for one request.
        """
        if len(self._legs) > 1:
            return await self._through(asking.body)
        return Answer(await self._ask(self._legs[0], asking.body, None if attempt else asking.answered))

    def _prepare(self, hops: tuple[Hop, ...]) -> None:
        self.close()
        self._hops = hops
        # What is accepted is the last container's business.
        self._legs = [_Leg(hop, self._type, self._accept if hop is hops[-1] else b"") for hop in hops]

    async def _through(self, body: bytes) -> Answer:
        """Send a request to the first container, what it answers to the second, and so on."""
        kind = self._legs[0].kind
        for leg in self._legs:
            if kind != leg.kind:
                leg.speak(kind)
            try:
                reply = await self._ask(leg, body)
            except Broken as error:
                raise Broken(f"{leg.hop.name}: {error}", answered=error.answered) from error
            assert reply is not None, "nobody takes it on the way"
            if not 200 <= reply.status < 300:
                break
            body, kind = reply.body, reply.content_type
        return Answer(reply, leg.hop.name)

    async def _ask(self, leg: _Leg, body: bytes, take: Take | None = None) -> Reply | None:
        while True:
            channel = leg.channel
            if channel is None or channel.is_closed:
                channel = leg.channel = await _connected(leg.hop)
            future: asyncio.Future[Reply | None] = self._loop.create_future()
            channel.ask(leg.head, body, future, take)
            try:
                return await future
            except Broken as error:
                if error.answered or not channel.was_used:
                    raise
                body = channel.asked  # the container had just closed a connection that had been open for a while

    def give_up_if_late(self) -> None:
        """End a request that has taken longer than InvocationsTimeoutInSeconds. To be called now and then."""
        for leg in self._legs:
            if leg.channel is not None:
                leg.channel.give_up_if_late(self._timeout)

    def close(self) -> None:
        """Close all connections."""
        for leg in self._legs:
            if leg.channel is not None:
                leg.channel.close()


async def parameters_of(hop: Hop, timeout: float) -> bytes:
    """Give what a container answers to GET /execution-parameters. Raises Broken, also where it does not say 200."""
    async with asyncio.timeout(timeout):
        channel = await _connected(hop)
        try:
            future: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
            head = f"GET /execution-parameters HTTP/1.1\r\nHost: {hop.host}:{hop.port}\r\nContent-Length: "
            channel.ask(head.encode(), b"", future)
            reply = await future
        finally:
            channel.close()
    if reply is None or reply.status != 200:
        raise Broken("it has no parameters", answered=True)
    return reply.body


async def _connected(hop: Hop) -> Channel:
    try:
        return await Channel.connect(hop.host, hop.port, CONNECT_TIMEOUT)
    except (OSError, TimeoutError) as error:
        raise Broken(f"the container takes no connection ({error or 'too slow'})", answered=False) from error


def refused(reply: Reply, container: str) -> CallFailed:
    """Make the failure for an answer that is not 2xx, of a container of a pipeline where that has a name."""
    status, body = reply.status, reply.body
    whose = f" from container {container}" if container else ""
    if 400 <= status < 500:
        return CallFailed("ClientError", f"ClientError: {status}{whose}", status, body)
    return CallFailed("AlgorithmError", f"Bad HTTP status received from algorithm: {status}{whose}", status, body)
