"""Objects become requests: split into records, as many in each request as fit. Fed piece by piece, in any pieces.

The batches depend on the object alone, never on how it was cut into pieces on its way: a job that is done again sends
the same requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from io import BytesIO
from itertools import count, repeat
from typing import NamedTuple

from clary.core.framing import FRAMINGS, BadData, Framing, Lines, SplitType
from clary.core.jsonpath import Json

MIB = 1024 * 1024


class Batch(NamedTuple):
    """One request: its body, and which records it holds, from 1."""

    body: bytes
    first: int = 1
    records: int = 1
    originals: tuple[Json, ...] = ()
    """The records as they were before the input filter, where answers are joined to them."""

    @property
    def name(self) -> str:
        """Say in words what it holds; nothing where that is all of an object."""
        if not self.records:
            return ""
        return (
            f"record {self.first}" if self.records == 1 else f"records {self.first} to {self.first + self.records - 1}"
        )


_BATCH = partial(tuple.__new__, Batch)
"""Makes one of a tuple of all its members; the class itself takes three times as long, for each record of a job."""


class Splitter:
    """Cuts a stream of bytes into records. An object that is not split is one record, whatever is in it."""

    def __init__(self, split: SplitType) -> None:
        self._framing = FRAMINGS.get(split)
        self._buffer = bytearray()
        self._found = 0
        self._searched = 0

    @property
    def waiting(self) -> int:
        """Bytes of the record that is not whole yet."""
        return len(self._buffer)

    def feed(self, piece: bytes) -> Iterable[bytes]:
        """Give the records that are whole now, as they lie in the object. Raises BadData with the record's number."""
        self._buffer += piece
        if self._framing is None:
            return ()
        return self._lines() if isinstance(self._framing, Lines) else self._framed(self._framing)

    def _lines(self) -> list[bytes]:
        end = self._buffer.rfind(b"\n", self._searched) + 1
        whole = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._searched = len(self._buffer)
        return BytesIO(whole).readlines()  # ends of lines are `\n` alone, unlike those of bytes.splitlines

    def _framed(self, framing: Framing) -> Iterator[bytes]:
        start = 0
        try:
            while (end := framing.end(self._buffer, start)) >= 0:
                self._found += 1
                yield bytes(self._buffer[start:end])
                start = end
        except BadData as error:
            raise BadData(error.message, self._found + 1) from error
        finally:
            del self._buffer[:start]

    def finish(self) -> Iterator[bytes]:
        """Give what is left at the end of the object. Raises BadData for the beginning of a record without its end."""
        if not self._buffer:
            return
        if self._framing is not None and not self._framing.may_be_cut_off:
            raise BadData("Failed to parse input: the object ends within a record", self._found + 1)
        rest, self._buffer = bytes(self._buffer), bytearray()
        yield rest

    def contents(self, records: Iterable[bytes]) -> list[bytes]:
        """Give what is sent of records that are sent alone: without their frames."""
        if self._framing is None or isinstance(self._framing, Lines):
            return list(records)
        return list(map(self._framing.content, records))


class Batcher:
    """Makes requests of an object. `limit` in bytes; 0: any size. `single`: each record alone (SingleRecord)."""

    def __init__(self, split: SplitType, *, single: bool, limit: int) -> None:
        self._splitter = Splitter(split)
        self._alone = single or split == "None"
        self._by_lines = split == "Line" and not self._alone
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._lines = bytearray()
        self._next = 1

    def feed(self, piece: bytes) -> list[Batch]:
        """Give the requests that are complete now. Raises BadData with the number of the record that is at fault."""
        if self._by_lines:
            self._lines += piece
            return list(self._cut_lines())
        batches = self._add(self._splitter.feed(piece))
        if self._limit and self._splitter.waiting > _FRAMED * self._limit + _FRAME:
            raise too_large(self._limit, self._next + len(self._parts))
        return batches

    def finish(self) -> list[Batch]:
        """Give the last requests. An object without a byte has none."""
        if self._by_lines:
            return [self._lines_batch(len(self._lines))] if self._lines else []
        batches = self._add(self._splitter.finish())
        return [*batches, self._flush()] if self._parts else batches

    def _cut_lines(self) -> Iterator[Batch]:
        """As many whole lines as fit: nothing is looked at but the end of the last one."""
        while self._limit and len(self._lines) > self._limit:
            end = self._lines.rfind(b"\n", 0, self._limit) + 1
            if not end:
                raise too_large(self._limit, self._next)
            yield self._lines_batch(end)

    def _lines_batch(self, end: int) -> Batch:
        body = bytes(memoryview(self._lines)[:end])
        del self._lines[:end]
        return self._number(body, body.count(b"\n") + (not body.endswith(b"\n")))

    def _add(self, records: Iterable[bytes]) -> list[Batch]:
        return self._each_alone(records) if self._alone else list(self._together(records))

    def _each_alone(self, records: Iterable[bytes]) -> list[Batch]:
        bodies = self._splitter.contents(records)
        first, limit = self._next, self._limit
        if limit and bodies and max(map(len, bodies)) > limit:
            raise too_large(limit, first + next(n for n, body in enumerate(bodies) if len(body) > limit))
        self._next += len(bodies)
        return list(map(_BATCH, zip(bodies, count(first), repeat(1), repeat(()))))

    def _together(self, records: Iterable[bytes]) -> Iterator[Batch]:
        for record in records:
            if self._limit and self._parts and self._size + len(record) > self._limit:
                yield self._flush()
            if self._limit and len(record) > self._limit:
                raise too_large(self._limit, self._next)
            self._parts.append(record)
            self._size += len(record)

    def _flush(self) -> Batch:
        parts, self._parts, self._size = self._parts, [], 0
        return self._number(b"".join(parts), len(parts))

    def _number(self, body: bytes, count: int) -> Batch:
        first, self._next = self._next, self._next + count
        return Batch(body, first, count)


_FRAMED, _FRAME = 3, 1024
"""How many times as long as what is sent of it a record can be with its frame (RecordIO made of magic numbers alone),
and bytes to spare."""


def too_large(limit: int, record: int) -> BadData:
    """Make the error for a record that no request can hold. The words are the SDK's local mode's."""
    return BadData(f"Record is larger than {limit // MIB}MB. Please increase your max_payload", record)
