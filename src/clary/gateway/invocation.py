"""InvokeEndpoint, the hot path: authenticate, pick, admit, send, map back, count. It reads from the top to the bottom.

The body's bytes are never parsed. One retry, on another instance where there is one, and only while no byte of the
answer has come; what no container was given yet goes on to the next instance as often as there is one. The other
operations that invoke differ in how they read the request and write the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from random import random
from time import perf_counter
from typing import ClassVar, Protocol

from clary.core.model_error import LARGEST_BODY, Owner
from clary.core.routing import EndpointRoute, Target, VariantRoute
from clary.errors import AwsError
from clary.gateway import answers, shadows
from clary.gateway.capture import Captured, Draft
from clary.gateway.meter import Answered
from clary.gateway.multi_model import MultiModel
from clary.gateway.passage import CARRIED, HopTooLarge, Lines, Passage, for_adapter
from clary.gateway.placement import CONTAINER
from clary.gateway.residency import Resident
from clary.gateway.state import Overdue
from clary.gateway.upstream import UpstreamConnection, is_ours

TIMING = b"x-clary-server-timing"
"""The request header that asks for a Server-Timing header in the answer."""

_OPENED, _CLOSED = b"x-amzn-sagemaker-new-session-id", b"x-amzn-sagemaker-closed-session-id"
_TO_CLIENT = frozenset((b"content-type", b"x-amzn-sagemaker-custom-attributes", _OPENED, _CLOSED))


def beginning(request_id: str, variant: str) -> bytes:
    """Give the first lines of an answer that is passed on, without the last one's end."""
    return (
        f"HTTP/1.1 200 OK\r\nx-amzn-RequestId: {request_id}\r\nx-Amzn-Invoked-Production-Variant: {variant}"
    ).encode()


class PlainInvocation(Overdue, Protocol):
    """One that was sent the short way (`clary.gateway.short`)."""

    endpoint: str
    request_id: str
    payload: bytes
    arrived: float
    sent_at: float
    answered_at: float
    remaining: int
    """Bytes of the answer's body that are still to come; 0 before its head."""
    route: EndpointRoute
    variant: VariantRoute
    target: Target
    resident: Resident | None
    """The load of the model that it is for, where its container serves many."""
    model: bytes | None
    """That model's name."""
    upstream: UpstreamConnection


class Invocation(MultiModel):
    """One InvokeEndpoint request: both an exchange with the client and the hearer of the container's answer."""

    LINES: ClassVar[Lines] = (*CARRIED, (b"accept", b"\r\nAccept: "))
    CAPTURES: ClassVar[bool] = True

    _payload = b""
    _authenticated = _sent_at = _answered_at = 0.0
    """When the caller was known, the request sent, the answer's head here."""
    _status = _kept = 0
    """The container's status; bytes of its body, where it is an error's."""
    _passage: Passage | None = None
    _chunked = _passing = _sent = False
    """The answer goes out in chunks; it is one that is passed on; its head is out."""
    _repeated = False
    """It was asked again though a container may have begun on it: that is done once."""
    _out: list[bytes]
    """What is to be written next; of an answer that is not passed on, its body."""
    _timed: Overdue | None = None
    """What has the deadline instead, where this went on with what another began."""
    _captured: Draft | None = None
    _captured_type = b""

    # -- the flat list -----------------------------------------------------------------------------------------------

    def _start(self, body: bytes) -> None:
        self._payload = body
        self._endpoint = self._named()
        try:
            self._authenticate(body)
            self._authenticated = perf_counter()
            answers.check_headers(self._head.headers)
            self._pick()
            self._arm()
            self._enter()
        except AwsError as error:
            self._fail(error)

    def _send(self) -> None:
        route = self._route
        assert route is not None and self._target is not None
        if not self._sent_at:
            if route.shadows:
                container = self._head.headers.get(CONTAINER)
                shadows.copy(self._state, route, self.LINES, self._head.headers, self._payload, container)
            capture = route.capture
            if capture is not None and self.CAPTURES and random() * 100 < capture.percentage:  # noqa: S311
                self._captured = self._state.capture.draft()
        headers: Mapping[bytes, bytes] = self._head.headers
        lines = self.LINES
        if route.adapter:
            headers, lines = for_adapter(headers, lines, route.adapter, route.component)
        self._sent_at, self._status = perf_counter(), 0  # what a container said that had lost the model counts no more
        self._passage = Passage(self._state, self._target.hops, lines, self)
        self._passage.model = self._resident
        self._passage.begin(headers, self._payload, fresh=bool(self._tried))

    def go_on(self, plain: PlainInvocation) -> None:
        """Take over an invocation that was sent the short way."""
        self._begun = self._complete = True
        self._payload = plain.payload
        self._endpoint, self._request_id, self._timed = plain.endpoint, plain.request_id, plain
        self._arrived = self._authenticated = plain.arrived
        self._sent_at = plain.sent_at
        self._route, self._variant, self._target = plain.route, plain.variant, plain.target
        self._choice = plain.route, None
        self._hops = plain.target.hops
        self._passage = Passage(self._state, self._hops, self.LINES, self)
        if plain.resident is not None and plain.model is not None:
            self._resident, self._target_model = plain.resident, plain.model.decode()
            self._passage.model = plain.resident
        self._passage.go_on(self._head.headers, plain.upstream)
        plain.upstream.hand_over(self)
        if plain.remaining:  # its beginning is out
            self._status, self._answered_at = 200, plain.answered_at
            self._out = []
            self._passing = self._sent = True

    # -- the container's side ----------------------------------------------------------------------------------------

    def head(self, status: int, headers: list[tuple[bytes, bytes]], *, final: bool) -> None:
        if not final:
            return
        self._status = status
        self._answered_at = perf_counter()
        self._out = []
        self._begin_answer(status, headers)

    def _begin_answer(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Open the answer if this one is to be passed on."""
        if not 200 <= status < 300:
            return
        assert self._variant is not None
        out = [beginning(self._request_id, self._variant.name)]
        length: bytes | None = None
        for name, value in headers:
            lower = name.lower()
            if lower in _TO_CLIENT:
                out += (b"\r\n", name, b": ", value)
                if lower == b"content-type":
                    self._captured_type = value
                elif lower in (_OPENED, _CLOSED):
                    self._note_session(lower, value.decode("latin-1"))
            elif lower == b"content-length":
                length = value
        self._open(out, b"0" if status == 204 else length)  # a 204 has no body, whatever its length claims

    def _note_session(self, header: bytes, value: str) -> None:
        assert self._target is not None
        if header == _OPENED:
            self._state.stickiness.opened(self._endpoint, value, self._target.id, time.time())
        else:
            self._state.stickiness.closed(self._endpoint, value)

    def _open(self, out: list[bytes], length: bytes | None) -> None:
        """Complete the head of an answer that is passed on."""
        head = self._head
        if length is not None:
            out += (b"\r\nContent-Length: ", length)
        elif head.modern:
            self._chunked = True
            out.append(b"\r\nTransfer-Encoding: chunked")
        else:
            head.keep_alive = False
        if not head.keep_alive:
            out.append(b"\r\nConnection: close")
        elif not head.modern:
            out.append(b"\r\nConnection: keep-alive")
        out += (self._timing(), b"\r\n\r\n")
        self._out = out
        self._passing = True

    def _timing(self) -> bytes:
        """Give the Server-Timing header if asked, in milliseconds; the model's part goes until its answer begins."""
        if TIMING not in self._head.headers:
            return b""
        now = perf_counter()
        authenticated = self._authenticated or now
        sent_at = self._sent_at or now
        model = now - sent_at
        return b"\r\nServer-Timing: auth;dur=%.3f, queue;dur=%.3f, model;dur=%.3f, overhead;dur=%.3f" % (
            (authenticated - self._arrived) * 1000,
            (sent_at - authenticated) * 1000,
            model * 1000,
            (now - self._arrived - model) * 1000,
        )

    def body(self, data: bytes) -> None:
        if not self._passing:
            self._kept += len(data)
            if self._kept <= LARGEST_BODY:
                self._out.append(data)
            return
        if self._captured is not None:
            self._captured.add(data)
        if self._chunked:
            self._out += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._out.append(data)

    def received(self) -> None:
        if self._passing and self._out:
            self._sent = True
            self._client.write(b"".join(self._out))
            self._out = []

    def end(self) -> None:
        if self._done:
            return
        failed = not 200 <= self._status < 300
        if self._target is not None:  # how fast an instance fails says nothing of how fast it is
            self._state.outliers.answered(self._target.id, None if failed else self._answered_at - self._sent_at)
        if self._passing:
            self._end_answer(failed=failed)
            return
        body = b"".join(self._out) if self._kept <= LARGEST_BODY else None
        if self._is_doubtful(self._status):
            self._look_again(body)
        else:
            self._refused_by_model(body)

    def _end_answer(self, *, failed: bool) -> None:
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        if self._out:
            self._client.write(b"".join(self._out))
        self._finish(self._status, failed=failed)

    def _look_again(self, body: bytes | None) -> None:
        """Find out whether the container that says that it has no such model is right."""
        assert self._passage is not None
        if not self._passage.at_model:
            self._refused_by_model(body)
            return
        self._disarm()
        self._passage, self._doubted = None, True
        self._kept = 0
        self._state.spawn(self._ask_back(self._status, body))

    def _refused_by_model(self, body: bytes | None) -> None:
        self._fail(answers.model_error(self._owner, self._container, self._status, body))

    def broken(self, error: Exception, *, answered: bool) -> None:
        if self._done or self._passage is None:
            return
        passage = self._passage
        if isinstance(error, HopTooLarge):
            text = str(error)
            self._fail(answers.hop_too_large(self._owner, error.status, text))
            return
        if is_ours(error):
            self._fail(answers.out_of_connections())
            return
        if not passage.reused and self._target is not None:
            self._state.outliers.failed(self._target.id, self._state.loop.time())
        if not answered and self._may_be_repeated(given=passage.given):
            self._retry()
        elif self._sent:
            self._break_off(overdue=False)
        else:
            self._fail_midway(answers.no_answer)

    def _break_off(self, *, overdue: bool) -> None:
        """End an answer whose head is out: only a broken connection can say that it is not whole."""
        self._settle(self._status, failed=True)
        self._client.transport.abort()

    def _fail_midway(self, words: Callable[[Owner, str], AwsError]) -> None:
        """Fail in these words, or in those for an error of the model's of which only the beginning has come."""
        if self._status and not self._passing:
            self._refused_by_model(None)
        else:
            self._fail(words(self._owner, self._container))

    def _may_be_repeated(self, *, given: bool) -> bool:
        """Tell whether to try again; `given`: a container had the request, or a part of it."""
        assert self._target is not None
        known = self._target.id in self._tried
        self._tried |= {self._target.id}
        if not given and not known and self._may_go_on():
            return True
        first, self._repeated = not self._repeated, True
        return first

    def _retry(self) -> None:
        """Try again: elsewhere if there is an elsewhere, and on a connection that cannot have gone stale."""
        self._passage = None
        self._unload()
        try:
            self._pick()
            self._enter()
        except AwsError as error:
            self._fail(error)

    def time_out(self) -> None:
        """The model has taken too long. It may go on; nobody waits for it any more."""
        if self._wish is not None:
            self._fail(answers.model_not_ready(self._wish.target_model))
            return
        if self._passage is None:
            self._fail(answers.not_admitted())
            return
        if self._target is not None and not self._status:  # one that has begun to answer is slow, not dead
            self._state.outliers.failed(self._target.id, self._state.loop.time())
        self._passage.cancel()
        if self._sent:
            self._break_off(overdue=True)
        else:
            self._fail_midway(answers.timed_out)

    # -- the client's side, while the container answers --------------------------------------------------------------

    def lost(self) -> None:
        if self._passage is not None:
            self._passage.cancel()
        if self._sent_at and not self._done:
            self._drop_capture()
            self._settle(self._status, failed=self._status >= 300)  # without a status it has not failed, nor answered
            return
        self._done = True
        self._release()

    def pause(self) -> None:
        if self._passage is not None:
            self._passage.pause()

    def resume(self) -> None:
        if self._passage is not None:
            self._passage.resume()

    # -- endings -----------------------------------------------------------------------------------------------------

    @property
    def _container(self) -> str:
        if self._passage is not None:
            return self._passage.container
        return (self._variant.multi_model if self._variant is not None else "") or "primary"

    def _render(self, error: AwsError, *, keep_alive: bool) -> bytes:
        return answers.runtime_error(error, self._request_id, keep_alive=keep_alive, more=self._timing())

    def _fail(self, error: AwsError) -> None:
        self._client.write(self._render(error, keep_alive=self._head.keep_alive))
        failed = error.code == "ModelError"
        # CloudWatch's 4XX and 5XX are the model's, not those of the 424 around them.
        self._finish(self._status if failed else error.status, failed=failed)

    def _finish(self, status: int, *, failed: bool) -> None:
        self._settle(status, failed=failed)
        self._client.finish()

    def _settle(self, status: int, *, failed: bool) -> None:
        self._done = True
        if failed and status < 300:
            status = 500  # an answer that never came, or not whole
        if self._variant is not None:
            self._count(self._variant, status, failed=failed)
        if self._captured is not None and self._passing and not failed:
            self._capture(self._captured.take())
        self._release()

    def _count(self, variant: VariantRoute, status: int, *, failed: bool) -> None:
        now = perf_counter()
        model = now - self._sent_at if self._sent_at else 0.0
        answered = Answered(status, failed, model, now - self._arrived - model, len(variant.targets))
        meter, passage, route = self._state.meter, self._passage, self._route
        if route is not None and route.component:
            meter.component(route.component, answered, has_capacity=route.has_capacity)
            answered = answered._replace(active_instances=0)  # copies are no instances
        meter.count(self._endpoint, variant.name, answered)
        if self._target_model is not None:
            meter.model(self._endpoint, variant.name, self._waited)
        if passage is None or not (variant.direct or passage.seconds):
            return
        last = (passage.container, model - sum(seconds for _, seconds in passage.seconds))
        for name, seconds in (*passage.seconds, last):
            meter.container(self._endpoint, variant.name, name, seconds)
        if variant.direct:
            meter.count(self._endpoint, variant.name, answered, passage.container)

    def _capture(self, answer: bytes | None) -> None:
        if answer is None:  # not whole
            return
        assert self._route is not None and self._route.capture is not None
        assert self._variant is not None
        headers = self._head.headers
        self._state.capture.offer(
            Captured(
                endpoint=self._endpoint,
                variant=self._variant.name,
                capture=self._route.capture,
                event_id=self._request_id,
                time=time.time(),
                request=self._payload,
                request_type=headers.get(b"content-type", b"").decode("latin-1"),
                answer=answer,
                answer_type=self._captured_type.decode("latin-1"),
                custom_attributes=headers.get(b"x-amzn-sagemaker-custom-attributes", b"").decode("latin-1"),
                inference_id=headers.get(b"x-amzn-sagemaker-inference-id", b"").decode("latin-1"),
            )
        )

    def _drop_capture(self) -> None:
        if self._captured is not None:
            self._captured.take()
            self._captured = None

    def _arm(self) -> None:
        self._state.deadlines[self] = self._state.loop.time() + self._state.model_timeout

    def _disarm(self) -> None:
        timed, self._timed = self._timed, None  # whoever is armed once more is so itself
        self._state.deadlines.pop(timed or self, None)

    def _release(self) -> None:
        self._drop_capture()
        self._passage = None
        self._stop_seeking()
        self._disarm()
        self._unload()
