"""Lines of a file that others append to: from a position on, or the last before one.

Positions are byte offsets. The file is opened for each piece that is read: hundreds of streams are read side by side,
and any of them may go meanwhile, which ends its lines.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LONGEST = 1024 * 1024
"""Bytes of a line; longer ones are parted, as at the service, whose events hold a megabyte."""
_FIRST, _MOST = 16 * 1024, 256 * 1024
"""Bytes that are read at once: little at first, since a merge looks at the beginning of many streams."""


class Line(NamedTuple):
    """A line without its end. `after` is where the next one starts."""

    start: int
    after: int
    data: bytes


def head(file: Path) -> int:
    """Give the position of the first byte that has not been cut away; the size where nothing is left."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        position = os.lseek(descriptor, 0, os.SEEK_DATA)
        # Holes are whole blocks; before the first line that was kept there are zeros.
        while piece := os.pread(descriptor, _MOST, position):
            if kept := len(piece.lstrip(b"\0")):
                return position + len(piece) - kept
            position += len(piece)
        return position
    except OSError as error:
        if error.errno != errno.ENXIO:  # no data at all
            raise
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def forward(file: Path, start: int, stop: int, *, torn: bool = False) -> Iterator[Line]:
    """Give the lines between two positions; the last one without an end only where `torn` says that none will come."""
    rest, position, offset, size = b"", start, start, _FIRST
    while offset < stop and (piece := _read(file, offset, min(size, stop - offset))):
        offset, size = offset + len(piece), min(size * 4, _MOST)
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            while len(line) > LONGEST:
                cut = _cut(line)
                yield Line(position, position + cut, line[:cut])
                line, position = line[cut:], position + cut
            yield Line(position, position + len(line) + 1, line.removesuffix(b"\r"))
            position += len(line) + 1
        while len(rest) > LONGEST:
            cut = _cut(rest)
            yield Line(position, position + cut, rest[:cut])
            rest, position = rest[cut:], position + cut
    if torn and rest:
        yield Line(position, position + len(rest), rest)


def backward(file: Path, first: int, stop: int, *, torn: bool = False) -> Iterator[list[Line]]:
    """Give the lines before `stop`, in lists that go back in the file; within a list they go forward."""
    size = _FIRST
    while stop > first:
        start = line_start(file, max(first, stop - size), first)
        yield list(forward(file, start, stop, torn=torn))
        stop, size, torn = start, min(size * 4, _MOST), False


def line_start(file: Path, offset: int, first: int) -> int:
    """Give where the line starts that has the byte at `offset`."""
    end = offset
    while end > first:
        begin = max(first, end - _FIRST)
        found = _read(file, begin, end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return first


def _read(file: Path, offset: int, size: int) -> bytes:
    try:
        with file.open("rb", buffering=0) as opened:
            return os.pread(opened.fileno(), size, offset)
    except FileNotFoundError:
        return b""


def _cut(line: bytes) -> int:
    """Give the length of the first part of a line that is too long, so that no character is parted."""
    return next((end for end in range(LONGEST, LONGEST - 4, -1) if line[end] & 0xC0 != 0x80), LONGEST)
