"""What the control plane does for logs: tell when lines were written, and keep streams within their size and age."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from clary.logs import holes, lines, names, times
from clary.logs.folder import LogFolder
from clary.logs.stream import Stream, locked
from clary.telemetry import logger

_EVERY = 0.5
"""Seconds between two looks: how wrong the time of a line can be while Clary runs."""
_SWEEP = 60.0
"""Seconds between two looks at ages."""
_ROOM = 8
"""One part in so many is cut away at once: more than what is too much, so as not to cut at every look."""
_DAY = 86_400.0
_NEVER: Mapping[str, int] = {}
"""What the last look saw before the first one."""


class Upkeep:
    """Follows all streams of a folder. `size` in bytes for each stream; `days` for groups without a retention."""

    def __init__(self, folder: LogFolder, size: int, days: int, now: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._size = size
        self._days = days
        self._now = now
        self._sizes: Mapping[str, int] = _NEVER

    async def run(self) -> None:
        """Follow until cancelled; a disk that is full or slow is told of, not died of."""
        swept, trouble = 0.0, ""
        while True:
            sweeps = time.monotonic() - swept >= _SWEEP
            try:
                await asyncio.to_thread(self.look)
                if sweeps:
                    await asyncio.to_thread(self.sweep)
                    swept = time.monotonic()
                trouble = ""
            except OSError as error:
                if str(error) != trouble:  # said once, not twice a second
                    trouble = str(error)
                    logger("logs").error("logs cannot be kept in order", reason=trouble)
            await asyncio.sleep(_EVERY)

    def look(self) -> None:
        """Note what was written since the last look, and cut streams that are too large.

        The time is that of the look, taken before it: what the next look finds is newer than anything that was shown.
        At the first look, the time of the last write says more about lines that nobody saw being written.
        """
        at, sizes = self._now(), dict(self._folder.sizes())
        changed = {file: size for file, size in sizes.items() if self._sizes.get(file) != size}
        for file, size in changed.items():
            with contextlib.suppress(FileNotFoundError):
                see(Path(file), at, trust_mtime=self._sizes is _NEVER)
                if size > self._size:
                    self._bound(Path(file), size)
        self._sizes = sizes

    def _bound(self, file: Path, size: int) -> None:
        head = lines.head(file)
        if size - head > self._size:
            # At most to the end of a line; a single one that is larger than all goes in parts.
            wanted = size - self._size + self._size // _ROOM
            _cut(file, head, max(lines.line_start(file, wanted, head), wanted - lines.LONGEST))

    def sweep(self) -> None:
        """Take away what is too old: events, streams that nobody holds, groups that nobody made."""
        for group, streams in self._folder.inventory():
            before = int((self._now() - (group.retention or self._days) * _DAY) * 1000)
            for stream in streams:
                with contextlib.suppress(FileNotFoundError):
                    self._age(stream, before)

    def _age(self, stream: Stream, before: int) -> None:
        newest = stream.last_timestamp
        if (stream.created if newest is None else newest) < before:
            self._folder.delete_stream(stream)
            return
        known = times.Times(names.times_file(stream.file))
        cut = lines.line_start(stream.file, known.since(before), stream.head)
        if cut > stream.head:
            _cut(stream.file, stream.head, cut)


def see(file: Path, at: float, *, trust_mtime: bool = False) -> None:
    """Note that all there is in a stream's file was there at a time (seconds since the epoch)."""
    index = names.times_file(file)
    status = file.stat()
    known = times.Times(index)
    if status.st_size == known.seen:
        return
    moment = min(at, status.st_mtime) if trust_mtime else at
    descriptor = os.open(file, os.O_RDONLY)
    try:
        with locked(descriptor):
            size, seen = os.fstat(descriptor).st_size, times.Times(index).seen
            if size < seen:  # somebody else emptied it
                index.unlink(missing_ok=True)
            if size != seen:
                times.append(index, size, int(moment * 1000))
    finally:
        os.close(descriptor)


def _cut(file: Path, head: int, before: int) -> None:
    index = names.times_file(file)
    descriptor = os.open(file, os.O_RDONLY)
    try:
        with locked(descriptor):
            if before > head:
                start = holes.cut(file, before)
                times.Times(index).write_from(index, before, before - start)
    finally:
        os.close(descriptor)
