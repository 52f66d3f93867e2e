"""The front door: one port, and which way each request goes from it."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable

from clary.core.sessions import ROLE_CREDENTIALS
from clary.errors import AwsError, UnknownOperationException
from clary.gateway.asynchronous import AsyncInvocation
from clary.gateway.connection import Connection, Exchange
from clary.gateway.control import IDENTITIES, ControlPlane
from clary.gateway.gathered import Gathered
from clary.gateway.head import BadRequest, Head
from clary.gateway.invocation import Invocation
from clary.gateway.openai import openai_kind
from clary.gateway.response_stream import ResponseStream
from clary.gateway.routed import Routed
from clary.gateway.state import State
from clary.gateway.streamed import Streamed

WELCOME = (
    b"This is Clary: your models behind the Amazon SageMaker hosting API.\n"
    b'Point a client here with:  eval "$(clary env)"\n'
    b"and then:                  aws sagemaker list-endpoints\n"
)
_TEXT = [(b"Content-Type", b"text/plain; charset=utf-8")]
_DETOUR = re.compile(rb"[^?]*/(?:/|\.\.?(?:[/?]|\Z))")
"""A path with an empty segment, `.` or `..`."""


class Front:
    """Opens the exchange that a request asks for."""

    def __init__(
        self,
        state: State,
        control: ControlPlane,
        s3: Callable[[Streamed], Awaitable[None]],
        scrape: Callable[[Streamed], Awaitable[None]] | None = None,
    ) -> None:
        """Without `scrape` there are no metrics to be had."""
        self._state = state
        self._control = control
        self._s3 = s3
        self._scrape = scrape or s3

    def open(self, head: Head, client: Connection) -> Exchange:
        """Choose by path and headers alone: nothing is authenticated yet. Raises BadRequest."""
        target, path = head.target, head.path
        runtime = target.startswith(b"/endpoints/")
        if runtime and head.method == b"POST" and path.endswith(b"/invocations") and path.count(b"/") == 3:
            return Invocation(self._state, head, client)
        if runtime and (kind := _of_runtime(head, path)) is not None:
            _refuse_detours(target)
            return kind(self._state, head, client)
        if target == b"/_clary/health":
            return Streamed(self._state, head, client, _health)
        if target == ROLE_CREDENTIALS.encode() and head.method == b"GET":
            return Streamed(self._state, head, client, _role_credentials)
        if target == IDENTITIES.encode() and head.method == b"POST":
            return Streamed(self._state, head, client, self._control.handle)
        if _is_scrape(head):
            return Streamed(self._state, head, client, self._scrape)
        if _is_for_s3(head):
            return Streamed(self._state, head, client, self._s3)
        if runtime:
            return _Unknown(self._state, head, client)
        if _is_for_control(head):
            _refuse_detours(target)
            return Streamed(self._state, head, client, self._control.handle)
        if target == b"/" and b"authorization" not in head.headers and head.method in (b"GET", b"HEAD"):
            return Streamed(self._state, head, client, _welcome)
        return Streamed(self._state, head, client, self._s3)


def _of_runtime(head: Head, path: bytes) -> type[Routed] | None:
    """Tell which of the operations that invoke this is, other than InvokeEndpoint itself."""
    if head.method == b"POST" and path.count(b"/") == 3:
        for kind in (ResponseStream, AsyncInvocation):
            if path.endswith(kind.SUFFIX):
                return kind
    return openai_kind(path)


def _refuse_detours(target: bytes) -> None:
    """Refuse a path that is signed as another one than it is read as: signatures cover it normalised, but for S3's."""
    if _DETOUR.match(target) is not None:
        raise BadRequest("The path has empty segments, or segments that are dots.")


def _is_scrape(head: Head) -> bool:
    # A bucket may have this name too: its requests are signed, or have parameters.
    signed = head.headers.get(b"authorization", b"").startswith(b"AWS")
    return head.target == b"/metrics" and head.method == b"GET" and not signed


def _is_for_s3(head: Head) -> bool:
    return b"/s3/aws4_request" in head.headers.get(b"authorization", b"") or b"%2Fs3%2Faws4_request" in head.target


def _is_for_control(head: Head) -> bool:
    if head.method == b"POST" and b"smithy-protocol" in head.headers and head.target.startswith(b"/service/"):
        return True
    if head.method != b"POST" or head.path != b"/":
        return False
    if b"x-amz-target" in head.headers or b"/aws4_request" in head.headers.get(b"authorization", b""):
        return True
    return head.headers.get(b"content-type", b"").startswith((b"application/x-www-form", b"application/x-amz-json"))


async def _welcome(request: Streamed) -> None:
    await request.answer(200, _TEXT, WELCOME)


async def _health(request: Streamed) -> None:
    state = request.state
    body = json.dumps({"status": "ok", "routes": state.routes.table.revision, "underWay": sum(state.load.values())})
    await request.answer(200, [(b"Content-Type", b"application/json")], body.encode())


async def _role_credentials(request: Streamed) -> None:
    token = request.headers.get(b"authorization", b"").decode("latin-1")
    try:
        status, document = 200, request.state.role_credentials(token)
    except AwsError as error:
        status, document = error.status, {"Code": error.code, "Message": error.message}
    await request.answer(status, [(b"Content-Type", b"application/json")], json.dumps(document).encode())


class _Unknown(Gathered):
    """Says that the runtime has no such operation here; after authentication, as for every other one."""

    def _authenticate(self, body: bytes) -> None:
        self._state.authenticate(self._head, body)

    def _start(self, body: bytes) -> None:
        head = self._head
        try:
            self._authenticate(body)
            path = head.path.decode("latin-1")
            raise UnknownOperationException(
                f"Clary does not implement {head.method.decode('latin-1')} {path}; docs/coverage.md lists what it does."
            )
        except AwsError as error:
            answer = self._render(error, keep_alive=head.keep_alive)
        self._client.write(answer if head.method != b"HEAD" else answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        self._client.finish()

    def lost(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...
