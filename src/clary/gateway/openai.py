"""The OpenAI-compatible path of an endpoint: `POST /endpoints/<name>/openai/v1/...`, for OpenAI's unmodified clients.

The container gets the body untouched at `/invocations`, where the images that speak this protocol take it, and what it
answers goes back as it is: its status, errors included, and server-sent events as they come. What the gateway itself
has to say has the shape of OpenAI's errors, with AWS's code as `code`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar
from urllib.parse import unquote_to_bytes

from clary.errors import AwsError
from clary.gateway import access
from clary.gateway.answers import RuntimeFailure
from clary.gateway.connection import status_line
from clary.gateway.invocation import Invocation

MARK = b"/openai/v1/"
_STARTS = b"/endpoints/"
_EVENTS = b"text/event-stream"
_DROPPED = frozenset(
    (b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"trailer", b"upgrade", b"server", b"date",
     b"x-request-id")
)  # fmt: skip
"""Headers that are between the container and us, and the id that the request has here."""


def openai_kind(target: bytes) -> type[OpenAi] | None:
    """Tell whether this is `/endpoints/<name>/openai/v1/<anything>`, or the same of an inference component."""
    owner, mark, _ = target.removeprefix(_STARTS).partition(MARK)
    match owner.split(b"/") if mark else []:
        case [name] if name:
            return OpenAi
        case [name, b"inference-components", component] if name and component:
            return OpenAiComponent
    return None


class OpenAi(Invocation):
    """One request of an OpenAI client."""

    CAPTURES: ClassVar[bool] = False
    OPENS_SESSIONS: ClassVar[bool] = False

    def _named(self) -> str:
        name = self._head.path.removeprefix(_STARTS).partition(b"/")[0]
        return unquote_to_bytes(name).decode("utf-8", "replace")

    def _start(self, body: bytes) -> None:
        if self._head.method != b"POST":
            message = f"{self._head.method.decode('latin-1')} is not supported; the container takes POST alone."
            self._fail(AwsError(message, code="MethodNotAllowed", status=405))
            return
        super()._start(body)

    def _authenticate(self, body: bytes) -> None:
        """Verify a bearer token, or a signature: a client that can sign need not make a token first."""
        state, headers, token = self._state, self._head.headers, self._token
        with _as_401():
            identity = state.bearer(token) if token is not None else state.authenticate(self._head, body)
            principal = state.principal(identity)
        if principal is not None:
            source = self._client.source
            if token is not None:
                principal.require(access.bearer(headers, source))
            principal.require(access.invocation(state.partition, self._endpoint, headers, source))

    def _foresee(self) -> None:
        with _as_401():
            if (token := self._token) is not None:
                self._state.bearer(token)
            else:
                super()._foresee()

    @property
    def _token(self) -> bytes | None:
        scheme, _, token = self._head.headers.get(b"authorization", b"").partition(b" ")
        return token.strip() if scheme.lower() == b"bearer" else None

    def _render(self, error: AwsError, *, keep_alive: bool) -> bytes:
        status = error.status
        if isinstance(error, RuntimeFailure) and str(error.members.get("ErrorCode")).startswith("NO_SUCH_"):
            status = 404
        kind = "invalid_request_error" if 400 <= status < 500 and status != 424 else "server_error"
        document = {"error": {"message": error.message, "type": kind, "param": None, "code": error.code}}
        body = json.dumps(document).encode()
        return b"%b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nx-request-id: %b%b%b\r\n\r\n%b" % (
            status_line(status),
            len(body),
            self._request_id.encode(),
            self._timing(),
            b"" if keep_alive else b"\r\nConnection: close",
            body,
        )

    def _begin_answer(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        dropped = _DROPPED | _nominated(headers)
        out = [status_line(status), b"\r\nx-request-id: ", self._request_id.encode()]
        length: bytes | None = None
        for name, value in headers:
            lower = name.lower()
            if lower == b"content-length":
                length = value
            elif lower == b"content-type" and value.lower().startswith(_EVENTS):
                self._stream()
            if lower not in dropped:
                out += (b"\r\n", name, b": ", value)
        self._open(out, b"0" if status in (204, 304) else length)  # these have no body, whatever length they claim

    def _stream(self) -> None:
        """Give an answer that comes as events the time of a stream."""
        self._disarm()
        self._state.stream_deadlines[self] = self._state.loop.time() + self._state.stream_timeout

    def interrupt(self) -> None:
        """Cut the answer off: the protocol has no word for it but a broken connection."""
        if self._passage is not None:
            self._passage.cancel()
        self._break_off(overdue=False)

    def _disarm(self) -> None:
        super()._disarm()
        self._state.stream_deadlines.pop(self, None)


def _nominated(headers: list[tuple[bytes, bytes]]) -> set[bytes]:
    """Name the headers that the container means for the next on the way alone (RFC 9110, 7.6.1)."""
    lists = [value for name, value in headers if name.lower() == b"connection"]
    return {name.strip().lower() for value in lists for name in value.split(b",")}


class OpenAiComponent(OpenAi):
    """One request of an OpenAI client to an inference component, which its path names."""

    def _component(self) -> bytes | None:
        owner = self._head.path.removeprefix(_STARTS).partition(MARK)[0]
        return unquote_to_bytes(owner.rpartition(b"/")[2])


@contextmanager
def _as_401() -> Iterator[None]:
    """Refuse with 401, which is what these clients understand, whatever status AWS has for it."""
    try:
        yield
    except AwsError as error:
        raise AwsError(error.message, code=error.code, status=401) from error
