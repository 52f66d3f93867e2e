"""Which objects are done, which failed: a line for each, as soon as its output is there. What has a line is not done
again; an object without one is done from its beginning, and its output replaces what there may be.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clary.transform.inputs import Input


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of one object."""

    number: int
    records: int = 0
    size: int = 0
    failure: str = ""
    """A sentence of FailureReason, which names the object; empty: its output is there."""


class Journal:
    """The lines of one job. One process writes."""

    def __init__(self, file: Path) -> None:
        self._ended = bytearray()
        self.done = self.failed = self.records = self.size = 0
        self.first_failure = ""
        self._file = file.open("ab")
        for entry in _read(file):
            self._count(entry)
        if _is_torn(file):  # an earlier agent was killed within a line
            self._file.write(b"\n")

    def has(self, given: Input) -> bool:
        """Tell whether an object is done or has failed."""
        return given.number < len(self._ended) and bool(self._ended[given.number])

    def add(self, entry: Entry) -> None:
        """Write a line."""
        line = [entry.number, entry.records, entry.size, entry.failure]
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        self._count(entry)

    def _count(self, entry: Entry) -> None:
        if entry.number >= len(self._ended):
            self._ended.extend(bytes(entry.number + 1 - len(self._ended)))
        self._ended[entry.number] = 1
        self.records += entry.records
        self.size += entry.size
        if entry.failure:
            self.failed += 1
            self.first_failure = self.first_failure or entry.failure
        else:
            self.done += 1

    def close(self) -> None:
        self._file.close()


def _read(file: Path) -> Iterator[Entry]:
    with file.open("rb") as lines:
        for line in lines:
            try:
                found: list[Any] = json.loads(line)
            except ValueError:
                continue  # torn: that object is done again
            yield Entry(*found)


def _is_torn(file: Path) -> bool:
    with file.open("rb") as lines:
        return lines.seek(0, os.SEEK_END) > 0 and lines.seek(-1, os.SEEK_END) >= 0 and lines.read(1) != b"\n"


def done_of(file: Path) -> set[int]:
    """Give the numbers of the objects whose output is there."""
    return {entry.number for entry in _read(file) if not entry.failure}
