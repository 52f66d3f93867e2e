"""One stream: its events forward and backward, its times, its writer."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from clary.logs import lines, names, times

_QUIET = 5.0
"""Seconds without a byte after which a line without an end is taken for one: a process that was killed ends none."""
_INNER = b"\xc0\x8a"
"""Stands for a newline within an event: one in two bytes, which UTF-8 forbids, so no text has it."""


class Event(NamedTuple):
    """A line with its time in milliseconds. `position` is where it begins, `after` where the next one does."""

    position: int
    after: int
    timestamp: int
    message: str


class Range(NamedTuple):
    """Times of events in milliseconds, both inclusive."""

    start: int = 0
    end: int = 2**63 - 1


@dataclass(frozen=True)
class Stream:
    """A stream as it was when this was made; events that come later are another one's."""

    group: str
    name: str
    file: Path

    @cached_property
    def _status(self) -> os.stat_result | None:
        """None for a file that is gone, be it since a moment ago: its stream is an empty one."""
        with contextlib.suppress(FileNotFoundError):
            return self.file.stat()
        return None

    @cached_property
    def _times(self) -> times.Times:
        return times.Times(names.times_file(self.file))

    @cached_property
    def head(self) -> int:
        """The position of the first event."""
        return lines.head(self.file)

    @property
    def size(self) -> int:
        """The position after the last byte."""
        return self._status.st_size if self._status else 0

    @property
    def exists(self) -> bool:
        """Whether anybody made it or wrote to it. A stream that was deleted while it was held open is an empty file."""
        return self._status is not None and (bool(self._times) or self.size > 0)

    @property
    def seen(self) -> bool:
        """Whether all that there is has its time."""
        return self.size == self._times.seen

    @property
    def created(self) -> int:
        return self._times.created if self._times else self._modified

    @property
    def last_timestamp(self) -> int | None:
        """The time of the newest byte; None where there is none."""
        if not self.seen:
            return self._unseen
        return self._times.last if self._times.seen else None

    @property
    def first_timestamp(self) -> int | None:
        """The time of the first event."""
        return next((event.timestamp for event in self.events()), None)

    @property
    def _modified(self) -> int:
        return self._status.st_mtime_ns // 1_000_000 if self._status else 0

    @property
    def _unseen(self) -> int:
        """The time of what nobody has seen yet."""
        return max(self._modified, self._times.last) if self._times else self._modified

    @property
    def _ended(self) -> bool:
        return time.time() * 1000 - self._modified > _QUIET * 1000

    def events(self, position: int = 0, within: Range = Range()) -> Iterator[Event]:  # noqa: B008 - a value
        """Give the events from a position on, in order."""
        if within.start > (self.last_timestamp or 0):
            return
        position = max(self.head, position)
        if within.start:
            position = max(position, lines.line_start(self.file, self._times.since(within.start), self.head))
        for line in lines.forward(self.file, position, self.size, torn=self._ended):
            event = self._event(line)
            if event.timestamp > within.end:
                return
            if event.timestamp >= within.start:
                yield event

    def events_before(self, position: int | None = None, within: Range = Range()) -> Iterator[Event]:  # noqa: B008
        """Give the events before a position, the newest first. Without one: all."""
        if within.start > (self.last_timestamp or 0):
            return
        stop, torn = (self.size, self._ended) if position is None else (min(position, self.size), True)
        if self._times and self._times.last > within.end:
            stop, torn = min(stop, lines.line_start(self.file, self._times.since(within.end + 1), self.head)), True
        for part in lines.backward(self.file, self.head, stop, torn=torn):
            for line in reversed(part):
                event = self._event(line)
                if event.timestamp < within.start:
                    return
                if event.timestamp <= within.end:
                    yield event

    def _event(self, line: lines.Line) -> Event:
        timestamp = self._times.at(line.after - 1)
        message = _text(line)
        return Event(line.start, line.after, self._unseen if timestamp is None else timestamp, message)


def last_texts(file: Path, count: int) -> list[str]:
    """Give the last lines of a stream's file, ended or not; none where there is no file."""
    try:
        stop = file.stat().st_size
    except FileNotFoundError:
        return []
    found = lines.backward(file, lines.head(file), stop, torn=True)
    newest = islice((line for part in found for line in reversed(part)), count)
    return [_text(line) for line in newest][::-1]


def _text(line: lines.Line) -> str:
    return line.data.replace(_INNER, b"\n").decode(errors="replace")


@contextlib.contextmanager
def locked(descriptor: int) -> Iterator[None]:
    """Be the only one who appends to a stream's index; processes that write lines themselves do not ask."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class LogWriter:
    """Appends lines whose times are known. Blocks for as long as the disk does; raises OSError where it is full."""

    def __init__(self, file: Path) -> None:
        self._index = names.times_file(file)
        self._descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        size = os.fstat(self._descriptor).st_size
        self._torn = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"

    def write(self, timestamp_ms: int, line: bytes) -> None:
        """Append one line, as `write_all` does."""
        self.write_all([(timestamp_ms, line)])

    def write_all(self, timed: Iterable[tuple[int, bytes]]) -> None:
        """Append lines with their times, with or without their ends: all of them, or none where that fails.

        A time before that of the line before becomes that one's. Newlines within a line are kept, and are no ends.
        """
        with locked(self._descriptor):
            start = os.lseek(self._descriptor, 0, os.SEEK_END)
            text, ends, newest = bytearray(b"\n" * self._torn), dict[int, int](), 0
            for timestamp, line in timed:
                text += line.removesuffix(b"\n").replace(b"\n", _INNER) + b"\n"
                newest = max(newest, timestamp)
                ends[newest] = start + len(text)  # one record for all of one moment
            try:
                rest = memoryview(text)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                times.append_all(self._index, ((end, timestamp) for timestamp, end in ends.items()))
            except OSError:
                os.ftruncate(self._descriptor, start)
                raise
        self._torn = False

    def close(self) -> None:
        """Let go of the file; once more does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
