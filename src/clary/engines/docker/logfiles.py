"""A container's log as its engine writes it to the disk, where we may read it there.

Docker's own answer is slower by an order of magnitude, and leaves out a file that was replaced before it came to it
(20.10); Podman's knows whole seconds. What is read here comes out as Docker's API has it, so that nobody need care.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from io import BufferedReader
from pathlib import Path

from clary.engines.docker.transcript import nanoseconds

_CHUNK = 256 * 1024
_MOST_FILES = 20
"""Files that may wait to be read, deleted ones included: 1 GB of ours."""
_CLOSE = 64 * 1024
"""Bytes before the place that is looked for that are read all the same."""
_CHANNELS = {b"stdout": 1, b"stderr": 2}
_HEADER = struct.Struct(">BxxxL")


class LogFiles:
    """Reads on and on, over replaced files, which stay open until they are read. Everything here blocks."""

    def __init__(self, path: Path, since: int) -> None:
        """`path`: of the newest file, older ones have `.1`, `.2` behind it; `since`: nanoseconds since the epoch."""
        self._path = path
        self._since = since
        self._waiting: deque[BufferedReader] = deque()
        self._newest = 0
        """The last one's inode."""
        self._rest = b""
        self.skipped = 0
        """Files that were given up because too many waited."""

    def open(self) -> int | None:
        """Begin; give the time of the first entry that there is of those that are wanted, about. Raises OSError."""
        older = sorted(self._path.parent.glob(f"{self._path.name}.[0-9]"), reverse=True)
        for each in older:
            with contextlib.suppress(FileNotFoundError):
                self._waiting.append(each.open("rb"))
        self._waiting.append(self._path.open("rb"))  # what is replaced meanwhile is there twice, which is no harm
        self._newest = os.fstat(self._waiting[-1].fileno()).st_ino
        while len(self._waiting) > 1:
            first = _first_time(self._waiting[1])
            if first is None or first > self._since:
                break
            self._waiting.popleft().close()
        _seek(self._waiting[0], self._since)
        return _first_time(self._waiting[0])

    def read(self) -> bytes:
        """Give the next entries; nothing where there are none for now."""
        while True:
            self._notice()
            data = self._waiting[0].read(_CHUNK)
            if data:
                lines = (self._rest + data).split(b"\n")
                self._rest = lines.pop()
                if found := b"".join(_frames(lines)):
                    return found
            elif len(self._waiting) == 1:
                return b""
            else:
                self._waiting.popleft().close()
                self._rest = b""  # of a line that was never finished

    def close(self) -> None:
        for file in self._waiting:
            file.close()

    def _notice(self) -> None:
        """Open the newest file if it is another one: asked often enough, none is missed."""
        with contextlib.suppress(FileNotFoundError):  # between two names, or its container is gone
            if self._path.stat().st_ino != self._newest:
                self._waiting.append(self._path.open("rb"))
                self._newest = os.fstat(self._waiting[-1].fileno()).st_ino
        if len(self._waiting) > _MOST_FILES:
            self._waiting.popleft().close()
            self._rest = b""
            self.skipped += 1


def _frames(lines: list[bytes]) -> Iterator[bytes]:
    """Give entries as Docker's API frames them."""
    for line in lines:
        if (entry := _entry(line)) is not None:
            channel, stamp, text = entry
            yield _HEADER.pack(channel, len(stamp) + 1 + len(text)) + stamp + b" " + text


def _entry(line: bytes) -> tuple[int, bytes, bytes] | None:
    """Read one line of Docker's json-file or Podman's k8s-file; None for what a crash has left."""
    try:
        if line.startswith(b"{"):
            document = json.loads(line)
            channel = 2 if document["stream"] == "stderr" else 1
            return channel, document["time"].encode(), document["log"].encode("utf-8", "surrogateescape")
        stamp, stream, kind, text = line.split(b" ", 3)
        return _CHANNELS[stream], _universal(stamp), text if kind == b"P" else text + b"\n"
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _universal(stamp: bytes) -> bytes:
    """Turn a time with an offset into one without, its decimals as they are."""
    whole, _, rest = stamp.partition(b".")
    decimals, sign, offset = rest.partition(b"-" if b"-" in rest else b"+")
    return _moved(whole, sign + offset) + b"." + decimals + b"Z"


@lru_cache(maxsize=16)
def _moved(whole: bytes, offset: bytes) -> bytes:
    moment = datetime.fromisoformat((whole + offset).decode("ascii")).astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S").encode()


def _seek(file: BufferedReader, since: int) -> None:
    """Go to a line before the first entry of a time, not far before: entries are in order, but for milliseconds."""
    low, high = 0, os.fstat(file.fileno()).st_size
    while high - low > _CLOSE:
        middle = (low + high) // 2
        file.seek(middle)
        file.readline()
        at = _time(file.readline())
        low, high = (middle, high) if at is not None and at < since else (low, middle)
    file.seek(low)
    if low:
        file.readline()


def _first_time(file: BufferedReader) -> int | None:
    """Give the time of the next entry, without going on."""
    place = file.tell()
    at = _time(file.readline())
    file.seek(place)
    return at


def _time(line: bytes) -> int | None:
    if not line.endswith(b"\n") or (entry := _entry(line[:-1])) is None:
        return None
    return nanoseconds(entry[1])
