"""When each byte of a stream was written: an index beside it, of records (end, time).

The bytes from the record before up to `end` have that time, in milliseconds since the epoch; the first record is
(0, creation). After it both columns only rise, so either can be searched, and one append tells what has been seen so
far. A line has the time of its last byte: nobody has been shown it earlier, and a client that asks for what is newer
than the newest it knows misses nothing.
"""

from __future__ import annotations

import mmap
import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

_RECORD = struct.Struct("=qq")


class Times:
    """One index, as it is now."""

    def __init__(self, path: Path) -> None:
        """Look at an index; one that is not there is empty."""
        columns = _columns(path)
        self._ends: Sequence[int] = columns[0::2]
        self._times: Sequence[int] = columns[1::2]

    def __bool__(self) -> bool:
        return len(self._ends) > 0

    @property
    def created(self) -> int:
        return self._times[0]

    @property
    def last(self) -> int:
        """The time of the newest byte; the creation where there is none."""
        return self._times[-1]

    @property
    def seen(self) -> int:
        """The offset up to which times are known."""
        return self._ends[-1] if self else 0

    def at(self, offset: int) -> int | None:
        """Give the time of a byte; None where it has not been seen."""
        found = bisect_right(self._ends, offset)
        return self._times[found] if found < len(self._ends) else None

    def since(self, time: int) -> int:
        """Give the offset of the first byte that is of this time or newer, as far as they have been seen."""
        return self._ends[bisect_left(self._times, time, 1) - 1] if self else 0

    def write_from(self, path: Path, before: int, moved: int = 0) -> None:
        """Write what is left of the index when the bytes before a position are gone and the rest has `moved` down."""
        first = max(1, bisect_right(self._ends, before))
        kept = ((end - moved, time) for end, time in zip(self._ends[first:], self._times[first:], strict=True))
        fresh = path.with_suffix(".new")
        fresh.write_bytes(b"".join(_RECORD.pack(*record) for record in chain([(0, self.created)], kept)))
        fresh.replace(path)


def append(path: Path, end: int, time: int) -> None:
    """Write down that the bytes up to `end` have a time, or that of those before them where that is later."""
    append_all(path, [(end, time)])


def append_all(path: Path, ends: Iterable[tuple[int, int]]) -> None:
    """Write down several ends, each with its time, at once."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        if torn := size % _RECORD.size:  # half a record, of when the disk was full
            size -= torn
            os.ftruncate(descriptor, size)
        records = bytearray()
        newest = 0
        if size > _RECORD.size:
            newest = _RECORD.unpack(os.pread(descriptor, _RECORD.size, size - _RECORD.size))[1]
        for end, time in ends:
            if not size and not records:
                records += _RECORD.pack(0, time)
            newest = max(newest, time)
            if end:
                records += _RECORD.pack(end, newest)
        os.write(descriptor, records)
    finally:
        os.close(descriptor)


def _columns(path: Path) -> memoryview:
    """Map the file: an index may be large, and few of its records are looked at."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size // _RECORD.size * _RECORD.size
            mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
    except FileNotFoundError:
        mapped = b""
    return memoryview(mapped).cast("q")
