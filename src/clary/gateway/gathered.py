"""The client's side of a request that is read whole before anything comes of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from time import perf_counter

from clary.errors import AwsError
from clary.gateway import answers
from clary.gateway.connection import Connection, Head
from clary.gateway.state import State


class Gathered(ABC):
    """Gathers a body up to the limit, then starts. Nothing is held for one who has not signed at all.

    What most requests never change has its value on the class, here and in what is built on this: setting it for each
    would be a good part of what a request costs.
    """

    _begun = _complete = _done = _refused = False
    _size = 0

    def __init__(self, state: State, head: Head, client: Connection) -> None:
        self._state = state
        self._head = head
        self._client = client
        self._arrived = perf_counter()
        self._pieces: list[bytes] = []
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
        elif self._state.is_anonymous(self._head):
            # Refused before its body is read: what nobody has signed shall not fill our memory.
            self._done = True
            try:
                self._authenticate(b"")
            except AwsError as error:
                self._client.write(self._render(error, keep_alive=False))
            self._client.finish(reusable=False)
        elif self._head.headers.get(b"expect", b"").lower() == b"100-continue" and self._head.modern:
            self._client.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def feed(self, data: bytes) -> None:
        if self._done or self._refused:
            return
        self._size += len(data)
        if self._size > self._state.max_payload:
            self._refused = True
            self._pieces.clear()
            if self._begun:
                self._too_large()
        else:
            self._pieces.append(data)

    def complete(self) -> None:
        self._complete = True
        if self._begun and not self._done:
            self._go()

    def _go(self) -> None:
        pieces = self._pieces
        self._start(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _too_large(self) -> None:
        self._done = True
        self._client.write(answers.too_large(self._state.max_payload, self._request_id))
        self._client.finish(reusable=False)
