"""Data capture: what was asked and answered, on its way to S3. The request path only ever offers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from clary.core.routing import DataCapture

QUEUE_BYTES = 64 * 1024 * 1024
"""Bodies that wait to be written; what comes while it is full is dropped and counted."""
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
        self.dropped = 0
        """Records that were given up since this process began."""

    def offer(self, captured: Captured) -> None:
        """Queue a record, or drop and count it. Never waits."""
        if self._size + captured.size > self._limit:
            self.dropped += 1
            return
        self._waiting.append(captured)
        self._size += captured.size

    def take(self) -> list[Captured]:
        """Take everything that waits."""
        taken, self._waiting, self._size = list(self._waiting), deque(), 0
        return taken
