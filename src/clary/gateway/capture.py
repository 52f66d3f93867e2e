"""Data capture: what was asked and answered, on its way to S3. The request path only ever offers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from clary.core.routing import DataCapture

QUEUE_BYTES = 64 * 1024 * 1024
"""Bodies that wait to be written, and answers that are on their way; what comes while it is full is dropped."""
LARGEST_ANSWER = 25 * 1024 * 1024
"""Bytes of an answer that are kept; of one that is larger, nothing is."""


@dataclass(frozen=True, slots=True)
class Captured:
    """One invocation that was answered with 2xx. `time` in seconds since the epoch; the event's id is the request's."""

    endpoint: str
    variant: str
    capture: DataCapture
    event_id: str
    time: float
    request: bytes
    request_type: str
    answer: bytes
    answer_type: str
    custom_attributes: str = ""
    inference_id: str = ""

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return len(self.request) + len(self.answer)


class Capture:
    """A bounded queue between invocations and whoever writes them down."""

    def __init__(self, limit: int = QUEUE_BYTES) -> None:
        self._limit = limit
        self._waiting: deque[Captured] = deque()
        self._size = 0
        """Bytes that wait, or are held."""
        self._held = 0
        self.dropped = 0
        """Records that were given up since this process began."""

    @property
    def waiting(self) -> int:
        """Records that wait to be written."""
        return len(self._waiting)

    def draft(self) -> Draft:
        """Begin to keep an answer."""
        return Draft(self)

    def hold(self, held: int, size: int) -> bool:
        """Make room for more of an answer of which `held` bytes are held; where there is none it counts as dropped."""
        if held + size > LARGEST_ANSWER or self._size + size > self._limit:
            self.dropped += 1
            return False
        self._held += size
        self._size += size
        return True

    def release(self, size: int) -> None:
        """Give back what was held."""
        self._held -= size
        self._size -= size

    def offer(self, captured: Captured) -> None:
        """Queue a record, or drop and count it. Never waits."""
        if self._size + captured.size > self._limit:
            self.dropped += 1
            return
        self._waiting.append(captured)
        self._size += captured.size

    def take(self) -> list[Captured]:
        """Take everything that waits."""
        taken, self._waiting, self._size = list(self._waiting), deque(), self._held
        return taken


class Draft:
    """An answer that is kept while it passes. There may be many at once, so each counts against the queue's bound."""

    __slots__ = ("_capture", "_pieces", "_size")

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._pieces: list[bytes] | None = []
        self._size = 0

    def add(self, data: bytes) -> None:
        """Keep a piece; where there is no room for it, or the answer is too large, nothing is kept from now on."""
        if self._pieces is None:
            return
        if self._capture.hold(self._size, len(data)):
            self._pieces.append(data)
            self._size += len(data)
        else:
            self.take()

    def take(self) -> bytes | None:
        """Give what was kept, None where that is not all, and its room back."""
        pieces, self._pieces = self._pieces, None
        self._capture.release(self._size)
        self._size = 0
        return b"".join(pieces) if pieces is not None else None
