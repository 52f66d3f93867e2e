"""From Docker's log of one container to lines in ours: a piece at a time, and how far that has gone.

Docker numbers the entries of each channel (stdout, stderr) by the nanosecond, and those of one channel never fall.
Between the two they do: each takes its time before it waits for its turn. So each has a place of its own.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from clary.engines.docker.labels import Kept
from clary.logs.folder import LogFolder
from clary.logs.lines import LONGEST

_CHANNELS = (1, 2)
"""stdout and stderr; what comes on another one is an error of Docker's own."""
_TURN = 5 * 10**9
"""Nanoseconds after which no channel has an older entry still to come."""
_MILLISECOND = 10**6
_HEADER = struct.Struct(">BxxxL")


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in a channel: the entry that is the `count`th with the time `at`, in nanoseconds since the epoch.

    The parts of a line that Docker has cut have one time.
    """

    at: int = 0
    count: int = 0

    def after(self, at: int) -> Cursor:
        return Cursor(at, self.count + 1) if at == self.at else Cursor(at, 1)


class Page:
    """The file that a container's cursors are in, and the names of its log: one line each."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def begin(self, kept: Kept) -> dict[int, Cursor]:
        """Give the cursors of this very container; those of a predecessor with its name do not count."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            cursors, container_id, *_ = self._file.read_text().splitlines()
            if container_id == kept.container_id:
                at, count, other_at, other_count = map(int, cursors.split())
                return dict(zip(_CHANNELS, (Cursor(at, count), Cursor(other_at, other_count)), strict=True))
        none = {channel: Cursor() for channel in _CHANNELS}
        fresh = self._file.with_name(f".{self._file.name}")
        fresh.write_text(f"{_fixed(none)}\n{kept.container_id}\n{kept.log_group}\n{kept.log_stream}\n")
        fresh.rename(self._file)
        return none

    def names(self) -> tuple[str, str] | None:
        """Give the log group and stream; None where this container was never followed."""
        try:
            _, _, group, stream = self._file.read_text().splitlines()
        except FileNotFoundError:
            return None
        return group, stream


def _fixed(cursors: Mapping[int, Cursor]) -> str:
    """Write cursors so that the next ones fit over them."""
    return " ".join(f"{cursors[channel].at:020d} {cursors[channel].count:010d}" for channel in _CHANNELS)


@dataclass(slots=True)
class _Channel:
    copied: Cursor
    """All lines up to here are complete."""
    newest: Cursor
    here: Cursor = Cursor()
    """The entry that was read last; behind the newest where Docker repeats itself."""
    returns: int = 0
    part: bytearray = field(default_factory=bytearray)
    """Docker cuts lines at 16 KiB; the rest follows as an entry of its own."""

    def take(self, at: int, text: bytes) -> bytes | None:
        """Give the line that an entry completes."""
        if at < self.here.at:
            if self.here.at > time.time_ns():  # the clock was set back: these are no entries that we have read
                self.newest = Cursor()
            else:
                self.returns += 1
        self.here = self.here.after(at)
        if self.here <= self.newest:
            return None
        self.newest = self.here
        self.part += text
        return self.line() if self.part.endswith(b"\n") or len(self.part) >= LONGEST else None

    def line(self) -> bytes:
        """Give what there is as a line."""
        found = bytes(self.part).removesuffix(b"\n").removesuffix(b"\r")
        self.part.clear()
        self.copied = self.newest
        return found


class Transcript:
    """The lines of one container, in its log. `file` is its page's. Everything here blocks for as long as a disk does.

    What `take` got and could not write (OSError) is to be read again: after `rewind`, from `since` on.
    """

    def __init__(self, file: Path, kept: Kept, folder: LogFolder) -> None:
        self._written = Page(file).begin(kept)
        self._page = os.open(file, os.O_WRONLY)
        self._writer = folder.writer(kept.log_group, kept.log_stream)
        self.rewind()

    @property
    def since(self) -> str:
        """Where to read on, as Docker's API takes it; that very moment is included."""
        return f"{self.oldest // 10**9}.{self.oldest % 10**9:09d}"

    @property
    def oldest(self) -> int:
        """The time before which every channel is complete."""
        return min(cursor.at for cursor in self._written.values())

    @property
    def newest(self) -> int:
        """The time of the newest entry that is in the log, in nanoseconds since the epoch; 0 before the first."""
        return max(cursor.at for cursor in self._written.values())

    @property
    def is_whole(self) -> bool:
        """Whether what was taken ends with an entry."""
        return not self._rest

    @property
    def returns(self) -> int:
        """How often Docker has begun its newest file again since `rewind`.

        It does (20.10) where that file was replaced twice before it looked once: it then goes on with the newest, and
        again at the next look. What was in the one between is in no answer.
        """
        return max(channel.returns for channel in self._channels.values())

    def rewind(self) -> None:
        """Forget what is not in the log yet."""
        self._rest = b""
        self._channels = {number: _Channel(cursor, cursor) for number, cursor in self._written.items()}

    def take(self, data: bytes) -> None:
        """Write down the lines that a piece of Docker's stream completes.

        Raises OSError, also for what Docker says of its own trouble with the log.
        """
        lines = []
        for number, entry in self._entries(data):
            if number not in self._channels:
                raise OSError(entry.decode(errors="replace").strip())
            stamp, _, text = entry.partition(b" ")
            at = nanoseconds(stamp)
            if (line := self._channels[number].take(at, text)) is not None:
                lines.append((at // _MILLISECOND, line))
        self._write(lines)

    def finish(self) -> None:
        """Write down what will never get an end."""
        torn = [channel for channel in self._channels.values() if channel.part]
        self._write([(channel.newest.at // _MILLISECOND, channel.line()) for channel in torn])

    def close(self) -> None:
        os.close(self._page)
        self._writer.close()

    def _entries(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take Docker's stream apart; the rest waits for more."""
        data, start = self._rest + data, 0
        while len(data) - start >= _HEADER.size:
            number, length = _HEADER.unpack_from(data, start)
            end = start + _HEADER.size + length
            if end > len(data):
                break
            yield number, data[start + _HEADER.size : end]
            start = end
        self._rest = data[start:]

    def _write(self, lines: Sequence[tuple[int, bytes]]) -> None:
        """Write lines and how far they go, at once: a kill in between repeats them."""
        if not lines:
            return
        self._writer.write_all(lines)
        past = Cursor(max(channel.newest.at for channel in self._channels.values()) - _TURN)
        self._written = {
            number: channel.copied if channel.part else max(channel.copied, past)
            for number, channel in self._channels.items()
        }
        os.pwrite(self._page, _fixed(self._written).encode(), 0)


def nanoseconds(stamp: bytes) -> int:
    """Turn Docker's RFC 3339 time, which is UTC with up to nine decimals, into nanoseconds since the epoch."""
    whole, _, rest = stamp.removesuffix(b"Z").partition(b".")
    return _seconds(whole) * 10**9 + int(rest.ljust(9, b"0"))


@lru_cache(maxsize=16)
def _seconds(time: bytes) -> int:
    return int(datetime.fromisoformat(time.decode("ascii")).replace(tzinfo=UTC).timestamp())
