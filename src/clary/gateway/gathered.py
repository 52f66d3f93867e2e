"""The client's side of a request that is read whole before anything comes of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from time import perf_counter

from clary.errors import AwsError, InternalFailure
from clary.gateway import answers
from clary.gateway.connection import Connection
from clary.gateway.head import Head
from clary.gateway.state import State
from clary.telemetry import logger

_log = logger("gateway")


class Gathered(ABC):
    """Gathers a body up to the limit, then starts. Little is held for one who cannot have signed it.

    What most requests never change has its value on the class, here and in what is built on this: setting it for each
    would be a good part of what a request costs.
    """

    _begun = _complete = _done = _refused = False
    _size = 0
    _body: bytes | bytearray = b""

    def __init__(self, state: State, head: Head, client: Connection) -> None:
        self._state = state
        self._head = head
        self._client = client
        self._arrived = perf_counter()
        self._request_id = state.request_id()
        length = head.headers.get(b"content-length")
        if length is not None and length.isdigit() and int(length) > state.max_payload:
            self._refused = True

    @abstractmethod
    def _start(self, body: bytes) -> None:
        """Go on: it is this request's turn and its body is here."""

    @abstractmethod
    def _authenticate(self, body: bytes) -> None:
        """Raise AwsError unless somebody who is known here sent this and may do so."""

    @abstractmethod
    def lost(self) -> None:
        """Let go of everything that was taken for this request."""

    @abstractmethod
    def pause(self) -> None:
        """Write nothing for now."""

    @abstractmethod
    def resume(self) -> None:
        """Write on."""

    def _foresee(self) -> None:
        """Raise AwsError where `_authenticate` will, as far as that is known before the body is here."""
        self._state.foresee(self._head)

    def _render(self, error: AwsError, *, keep_alive: bool) -> bytes:
        """Give the whole answer that an error is."""
        return answers.runtime_error(error, self._request_id, keep_alive=keep_alive)

    # -- the connection's side ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._begun = True
        if self._refused:
            self._too_large()
        elif self._complete:
            self._go()
        elif self._head.headers.get(b"expect", b"").lower() == b"100-continue" and self._head.modern:
            self._look_ahead()
            if not self._done:
                self._client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif type(self._body) is bytearray or self._state.is_anonymous(self._head):
            self._look_ahead()

    def feed(self, data: bytes) -> None:
        if self._done or self._refused:
            return
        self._size += len(data)
        if self._size > self._state.max_payload:
            self._refused = True
            self._body = b""
            if self._begun:
                self._too_large()
        elif type(self._body) is bytearray:
            self._body += data  # one buffer: of a body in pieces of a byte, a list of them would take fifty times more
        elif self._body:
            self._body = bytearray(self._body)
            self._body += data
            if self._begun:
                self._look_ahead()  # it is not one of the many that come in one piece
        else:
            self._body = data

    def complete(self) -> None:
        self._complete = True
        if self._begun and not self._done:
            self._go()

    def _go(self) -> None:
        try:
            self._start(bytes(self._body))
        except Exception:
            self._fail_badly()

    def _look_ahead(self) -> None:
        """Refuse now who will be refused anyway: what nobody can have signed shall not fill our memory."""
        try:
            self._foresee()
        except AwsError as error:
            self._refuse(self._render(error, keep_alive=False))
        except Exception:
            self._fail_badly()

    def _fail_badly(self) -> None:
        """Answer for a defect of ours, as well as that still goes."""
        _log.exception("a request failed", request_id=self._request_id, path=self._head.target.decode("latin-1"))
        if self._done:  # part of an answer may be out
            self._client.transport.abort()
            return
        self.lost()
        error = InternalFailure("Internal failure; the log of Clary has the cause.")
        self._refuse(self._render(error, keep_alive=False))

    def _too_large(self) -> None:
        self._refuse(answers.too_large(self._state.max_payload, self._request_id))

    def _refuse(self, answer: bytes) -> None:
        """Answer, and read no more of this client."""
        self._done = True
        self._body = b""
        self._client.write(answer)
        self._client.finish(reusable=False)
