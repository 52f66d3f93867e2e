"""InvokeEndpoint, the hot path: authenticate, pick, send, map back. It reads from the top to the bottom.

The body's bytes are never parsed. One retry, on another instance where there is one, and only while no byte of the
answer has come.
"""

from __future__ import annotations

from random import random
from urllib.parse import unquote_to_bytes

from clary.core.routing import Hop, Target
from clary.errors import AwsError
from clary.gateway import access, answers
from clary.gateway.connection import Connection, Head
from clary.gateway.state import State
from clary.gateway.upstream import UpstreamConnection

CONNECT_TIMEOUT = 2.0
"""Seconds; the contract says 250 ms for a listening socket, a loaded machine needs longer."""
KEPT_ERROR_BODY = 64 * 1024
"""Bytes of a container's error that are passed on as OriginalMessage."""

# Client header -> the same for the container; everything else is stripped, as the service does.
_TO_CONTAINER = (
    (b"content-type", b"\r\nContent-Type: "),
    (b"accept", b"\r\nAccept: "),
    (b"x-amzn-sagemaker-custom-attributes", b"\r\nX-Amzn-SageMaker-Custom-Attributes: "),
    (b"x-amzn-sagemaker-inference-id", b"\r\nX-Amzn-SageMaker-Inference-Id: "),
    (b"x-amzn-sagemaker-session-id", b"\r\nX-Amzn-SageMaker-Session-Id: "),
)
_TO_CLIENT = frozenset(
    (
        b"content-type",
        b"x-amzn-sagemaker-custom-attributes",
        b"x-amzn-sagemaker-new-session-id",
        b"x-amzn-sagemaker-closed-session-id",
    )
)


class Invocation:
    """One InvokeEndpoint request: both an exchange with the client and the hearer of the container's answer."""

    __slots__ = ("_attempts", "_begun", "_body", "_chunked", "_client", "_complete", "_done", "_endpoint", "_head",
                 "_out", "_refused", "_request", "_request_id", "_sent", "_size", "_state", "_status", "_target",
                 "_tried", "_upstream", "_variant")  # fmt: skip

    def __init__(self, state: State, head: Head, client: Connection) -> None:
        self._state = state
        self._head = head
        self._client = client
        self._body: list[bytes] = []
        self._size = 0
        self._begun = self._complete = self._done = self._chunked = self._refused = self._sent = False
        self._request_id = state.request_id()
        self._endpoint = ""
        self._variant = b""
        self._target: Target | None = None
        self._tried: str | None = None
        self._attempts = 0
        self._request = b""
        self._upstream: UpstreamConnection | None = None
        self._status = 0
        self._out: list[bytes] = []
        length = head.headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > state.max_payload:
            self._refused = True

    # -- the client's side -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._begun = True
        if self._refused:
            self._too_large()
        elif self._complete:
            self._start()
        elif self._state.is_anonymous(self._head):
            # Refused before its body is read: what nobody has signed shall not fill our memory.
            self._done = True
            try:
                self._state.authenticate(self._head, b"")
            except AwsError as error:
                self._client.write(answers.runtime_error(error, self._request_id, keep_alive=False))
            self._client.finish(reusable=False)
        elif self._head.headers.get(b"expect", b"").lower() == b"100-continue" and self._head.modern:
            self._client.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def feed(self, data: bytes) -> None:
        if self._done or self._refused:
            return
        self._size += len(data)
        if self._size > self._state.max_payload:
            self._refused = True
            self._body.clear()
            if self._begun:
                self._too_large()
        else:
            self._body.append(data)

    def complete(self) -> None:
        self._complete = True
        if self._begun and not self._done:
            self._start()

    def lost(self) -> None:
        self._done = True
        self._release()
        if self._upstream is not None:
            self._upstream.cancel()
            self._upstream = None

    def pause(self) -> None:
        if self._upstream is not None:
            self._upstream.transport.pause_reading()

    def resume(self) -> None:
        if self._upstream is not None:
            self._upstream.transport.resume_reading()

    # -- the flat list -----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        head, state = self._head, self._state
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = [body]
        try:
            identity = state.authenticate(head, body)
            self._endpoint = endpoint_name(head.target)
            if (principal := state.principal(identity)) is not None:
                principal.require(access.invocation(state.partition, self._endpoint, head.headers))
            answers.check_headers(head.headers)
            self._pick()
        except AwsError as error:
            self._fail(error)
            return
        state.deadlines[self] = state.loop.time() + state.model_timeout
        self._send()

    def _pick(self) -> None:
        headers, state = self._head.headers, self._state
        route = state.routes.table.endpoints.get(self._endpoint)
        if route is None:
            raise answers.no_such_endpoint(self._endpoint, state.partition)
        if route.status == "Creating":
            raise answers.not_ready(self._endpoint)
        if route.status in ("Failed", "Deleting"):
            raise answers.not_invokable(route, state.partition)
        answers.refuse_foreign_targets(headers, self._endpoint)
        wanted = headers.get(b"x-amzn-sagemaker-target-variant")
        load = state.load
        if self._tried is not None:
            load = {**load, self._tried: 1 << 30}  # a retry goes elsewhere if there is an elsewhere
        picked = state.pick(route, wanted.decode("latin-1") if wanted is not None else None, random(), load)  # noqa: S311
        if picked is None:
            raise answers.nothing_ready(route, wanted)
        variant, target = picked
        self._variant = variant.name.encode()
        self._target = target
        state.load[target.id] = state.load.get(target.id, 0) + 1

    def _send(self) -> None:
        assert self._target is not None
        target = self._target.hops[0]
        headers = self._head.headers
        parts = [b"POST /invocations HTTP/1.1\r\nHost: ", f"{target.host}:{target.port}".encode()]
        for name, line in _TO_CONTAINER:
            value = headers.get(name)
            if value is not None:
                parts.append(line)
                parts.append(value)
        body = self._body[0]
        parts.append(b"\r\nContent-Length: %d\r\n\r\n" % len(body))
        parts.append(body)
        self._request = b"".join(parts)
        self._attempts += 1
        upstream = self._state.pool.take(target.host, target.port)
        if upstream is not None:
            self._upstream = upstream
            upstream.send(self._request, self)
        else:
            self._state.spawn(self._connect(target))

    async def _connect(self, target: Hop) -> None:
        try:
            upstream = await self._state.pool.connect(target.host, target.port, CONNECT_TIMEOUT)
        except (OSError, TimeoutError) as error:
            self.broken(error, answered=False)
            return
        if self._done:
            self._state.pool.give_back(upstream)
            return
        self._upstream = upstream
        upstream.send(self._request, self)

    # -- the container's side ----------------------------------------------------------------------------------------

    def head(self, status: int, headers: list[tuple[bytes, bytes]], *, final: bool) -> None:
        if not final:
            return
        self._status = status
        if not 200 <= status < 300:
            return
        out = [b"HTTP/1.1 200 OK\r\nx-amzn-RequestId: ", self._request_id.encode(),
               b"\r\nx-Amzn-Invoked-Production-Variant: ", self._variant]  # fmt: skip
        length: bytes | None = None
        for name, value in headers:
            lower = name.lower()
            if lower in _TO_CLIENT:
                out += (b"\r\n", name, b": ", value)
            elif lower == b"content-length":
                length = value
        if status == 204:  # has no body, whatever its length claims
            out.append(b"\r\nContent-Length: 0")
        elif length is not None:
            out += (b"\r\nContent-Length: ", length)
        elif self._head.modern:
            self._chunked = True
            out.append(b"\r\nTransfer-Encoding: chunked")
        else:
            self._head.keep_alive = False
        if not self._head.keep_alive:
            out.append(b"\r\nConnection: close")
        elif not self._head.modern:
            out.append(b"\r\nConnection: keep-alive")
        out.append(b"\r\n\r\n")
        self._out = out

    def body(self, data: bytes) -> None:
        if not 200 <= self._status < 300:
            self._size += len(data)
            if sum(map(len, self._out)) <= KEPT_ERROR_BODY:
                self._out.append(data)
        elif self._chunked:
            self._out += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._out.append(data)

    def received(self) -> None:
        if self._out and 200 <= self._status < 300:
            self._sent = True
            self._client.write(b"".join(self._out))
            self._out = []

    def end(self) -> None:
        self._upstream = None
        if self._done:
            return
        if not 200 <= self._status < 300:
            kept = b"".join(self._out)
            self._fail(
                answers.model_error(
                    self._state.partition, self._endpoint, self._container, self._status, kept, KEPT_ERROR_BODY
                )
            )
            return
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        if self._out:
            self._client.write(b"".join(self._out))
        self._finish()

    def broken(self, error: Exception, *, answered: bool) -> None:
        reused = self._upstream is not None and self._upstream.reused
        self._upstream = None
        if self._done:
            return
        if not answered and (self._attempts == 1 or (self._attempts == 2 and reused)):
            self._retry()
        elif self._sent:
            self._break_off()
        else:
            self._fail(answers.no_answer(self._state.partition, self._endpoint, self._container))

    def _break_off(self) -> None:
        """End an answer whose head is out: only a broken connection can say that it is not whole."""
        self._done = True
        self._release()
        self._client.transport.abort()

    def _retry(self) -> None:
        assert self._target is not None
        self._tried = self._target.id
        self._unload()
        try:
            self._pick()
        except AwsError as error:
            self._fail(error)
            return
        self._send()

    def time_out(self) -> None:
        """The model has taken too long. It may go on; nobody waits for it any more."""
        if self._upstream is not None:
            self._upstream.cancel()
            self._upstream = None
        if self._sent:
            self._break_off()
        else:
            self._fail(answers.timed_out(self._state.partition, self._endpoint, self._container))

    # -- endings -----------------------------------------------------------------------------------------------------

    @property
    def _container(self) -> str:
        return self._target.hops[0].name if self._target is not None else "primary"

    def _too_large(self) -> None:
        self._done = True
        self._client.write(answers.too_large(self._state.max_payload, self._request_id))
        self._client.finish(reusable=False)

    def _fail(self, error: AwsError) -> None:
        self._client.write(answers.runtime_error(error, self._request_id, keep_alive=self._head.keep_alive))
        self._finish()

    def _finish(self) -> None:
        self._done = True
        self._release()
        self._client.finish()

    def _release(self) -> None:
        self._state.deadlines.pop(self, None)
        self._unload()

    def _unload(self) -> None:
        if self._target is not None:
            left = self._state.load.get(self._target.id, 1) - 1
            if left > 0:
                self._state.load[self._target.id] = left
            else:
                self._state.load.pop(self._target.id, None)
            self._target = None


def endpoint_name(target: bytes) -> str:
    """Give the endpoint's name in `/endpoints/<name>/invocations`."""
    name = target[len(b"/endpoints/") : -len(b"/invocations")]
    return (unquote_to_bytes(name) if name.find(b"%") >= 0 else name).decode("utf-8", "replace")
