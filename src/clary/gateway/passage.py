"""A request's passage through the containers of one instance: one container, or a Serial pipeline of them.

In a pipeline each answer is the next request: its body as it is and its content type verbatim, parameters included.
What the caller wants to be given back (Accept) is only the last container's business; custom attributes and ids reach
all of them. The first answer that is not 2xx is the pipeline's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter

from clary.core import model_error
from clary.core.routing import Hop
from clary.gateway.outbox import LARGE
from clary.gateway.residency import TARGET_MODEL, Resident
from clary.gateway.state import State
from clary.gateway.upstream import Answer, UpstreamConnection

CONNECT_TIMEOUT = 2.0
"""Seconds; the contract says 250 ms for a listening socket, a loaded machine needs longer."""

Lines = Sequence[tuple[bytes, bytes]]
"""Which of the client's headers go to a container, each with the beginning of its line there."""

CARRIED: Lines = (
    (b"content-type", b"\r\nContent-Type: "),
    (b"x-amzn-sagemaker-custom-attributes", b"\r\nX-Amzn-SageMaker-Custom-Attributes: "),
    (b"x-amzn-sagemaker-inference-id", b"\r\nX-Amzn-SageMaker-Inference-Id: "),
    (b"x-amzn-sagemaker-session-id", b"\r\nX-Amzn-SageMaker-Session-Id: "),
)
"""For every container; everything else is stripped, as the service does."""


_IDENTIFIER, _ALIAS = b"x-amzn-sagemaker-adapter-identifier", b"x-amzn-sagemaker-adapter-alias"
_ADAPTER: Lines = (
    (_IDENTIFIER, b"\r\nX-Amzn-SageMaker-Adapter-Identifier: "),
    (_ALIAS, b"\r\nX-Amzn-SageMaker-Adapter-Alias: "),
)


def for_adapter(
    headers: Mapping[bytes, bytes], lines: Lines, identifier: str, alias: str
) -> tuple[Mapping[bytes, bytes], Lines]:
    """Give headers and lines that tell the container which adapter a request is for."""
    return {**headers, _IDENTIFIER: identifier.encode(), _ALIAS: alias.encode()}, (*lines, *_ADAPTER)


class HopTooLarge(Exception):
    """A container's answer is more than the next one is given. The message is the service's."""

    def __init__(self, giver: str, status: int, taker: str, size: int) -> None:
        super().__init__(model_error.hop_too_large(giver, status, taker, size))
        self.status = status


def beginning(hop: Hop) -> bytes:
    """Give the first lines of a request to a container, without the last one's end."""
    return f"POST /invocations HTTP/1.1\r\nHost: {hop.host}:{hop.port}".encode()


def beginning_of(resident: Resident, hop: Hop, target_model: bytes) -> bytes:
    """Give those of a request to one of many models, under the name that the caller has for it."""
    return resident.beginning(hop) + b"\r\nX-Amzn-SageMaker-Target-Model: " + target_model


class Passage:
    """Sends the request on and tells `answer` what the last container says; of the others, only failures.

    It hears the answers in between itself, as their `Answer`.
    """

    _position = 0
    _upstream: UpstreamConnection | None = None
    _cancelled = _failing = _fresh = False
    _status = _size = 0
    model: Resident | None = None
    """Which of the models of the multi-model container among them is asked."""
    seconds: tuple[tuple[str, float], ...] = ()
    """How long each container took, but for the last, by its name."""

    def __init__(self, state: State, hops: Sequence[Hop], lines: Lines, answer: Answer) -> None:
        """`lines` are for the last container."""
        self._state = state
        self._hops = hops
        self._lines = lines
        self._answer = answer

    def begin(self, headers: Mapping[bytes, bytes], body: bytes, *, fresh: bool = False) -> None:
        """Send the client's headers and body to the first container; `fresh`: over no connection that was kept."""
        self._headers = headers
        self._fresh = fresh
        self._send(body)

    def go_on(self, headers: Mapping[bytes, bytes], upstream: UpstreamConnection) -> None:
        """Take over a request that has gone out to the only container."""
        self._headers = headers
        self._upstream = upstream

    @property
    def container(self) -> str:
        """The name of the container that has the request now."""
        return self._hops[self._position].name

    @property
    def reused(self) -> bool:
        """The request went out on a connection that had served before, so its end says nothing of the container."""
        return self._upstream is not None and self._upstream.reused

    @property
    def given(self) -> bool:
        """A container was sent the request, or a part of it."""
        return self._upstream is not None or self._position > 0

    @property
    def at_model(self) -> bool:
        """The multi-model container has the request now."""
        return self.model is not None and self.model.held.container == self._hops[self._position].id

    def cancel(self) -> None:
        """Give up. The container may go on working; nobody listens."""
        self._cancelled = True
        if self._upstream is not None:
            self._upstream.cancel()
            self._upstream = None

    def pause(self) -> None:
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        if self._upstream is not None:
            self._upstream.resume()

    # -- sending -----------------------------------------------------------------------------------------------------

    def _send(self, body: bytes) -> None:
        hop = self._hops[self._position]
        if self._position == len(self._hops) - 1:
            lines, answer = self._lines, self._answer
        else:
            lines, answer = CARRIED, self
            self._pieces: list[bytes] = []
            self._size = 0
            self._since = perf_counter()
        model, headers = self.model, self._headers
        if model is not None and model.held.container == hop.id:
            parts = [beginning_of(model, hop, headers[TARGET_MODEL])]
        else:
            parts = [beginning(hop)]
        for name, line in lines:
            value = headers.get(name)
            if value is not None:
                parts.append(line)
                parts.append(value)
        parts.append(b"\r\nContent-Length: %d\r\n\r\n" % len(body))
        if len(body) <= LARGE:
            parts.append(body)
            body = b""
        request = b"".join(parts)
        upstream = None if self._fresh else self._state.pool.take(hop.host, hop.port)
        if upstream is not None:
            self._upstream = upstream
            upstream.send(request, answer, body)
        else:
            self._state.spawn(self._connect(hop, (request, body), answer))

    async def _connect(self, hop: Hop, request: tuple[bytes, bytes], answer: Answer) -> None:
        try:
            upstream = await self._state.pool.connect(hop.host, hop.port, CONNECT_TIMEOUT)
        except (OSError, TimeoutError) as error:
            if not self._cancelled:
                self._answer.broken(error, answered=False)
            return
        if self._cancelled:
            self._state.pool.give_back(upstream)
            return
        self._upstream = upstream
        head, body = request
        upstream.send(head, answer, body)

    # -- the answers in between ----------------------------------------------------------------------------------------

    def head(self, status: int, headers: list[tuple[bytes, bytes]], *, final: bool) -> None:
        if not final:
            return
        self._status = status
        if not 200 <= status < 300:
            self._failing = True
            self._answer.head(status, headers, final=True)
            return
        self._type: bytes | None = None
        for name, value in headers:
            if name.lower() == b"content-type":
                self._type = value

    def body(self, data: bytes) -> None:
        if self._failing:
            self._answer.body(data)
            return
        self._size += len(data)
        if self._size <= model_error.HOP_LIMIT:
            self._pieces.append(data)
        else:
            self._pieces.clear()  # read on, for the message says how much it was

    def received(self) -> None:
        return

    def end(self) -> None:
        self._upstream = None
        if self._failing:
            self._answer.end()
            return
        giver = self.container
        self.seconds = (*self.seconds, (giver, perf_counter() - self._since))
        if self._size > model_error.HOP_LIMIT:
            taker = self._hops[self._position + 1].name
            self._answer.broken(HopTooLarge(giver, self._status, taker, self._size), answered=True)
            return
        headers = {name: value for name, value in self._headers.items() if name != b"content-type"}
        if self._type is not None:
            headers[b"content-type"] = self._type
        self._headers = headers
        self._position += 1
        self._send(b"".join(self._pieces))

    def broken(self, error: Exception, *, answered: bool) -> None:
        self._answer.broken(error, answered=answered)
