"""One object: read, split, offered in requests, answers put together in the order of the records, written at the end.

The output is gathered in memory, beyond a few MiB in an unnamed file, and goes to S3 in one piece when all of it is
there. So there is never a part of an output, an upload that fails is repeated without asking the model again, and of
an agent that is killed nothing is left.
"""

from __future__ import annotations

import asyncio
import tempfile
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from clary.core.batching import MIB, Batch, Batcher, Splitter
from clary.core.framing import BadData
from clary.core.processing import ProcessedBatches, Processing
from clary.core.routing import Hop
from clary.core.transform import PRODUCT, Pace, Work
from clary.errors import Fatal, Transient
from clary.objects import Objects
from clary.transform.calls import Answer, Caller, CallFailed
from clary.transform.inputs import Input
from clary.transform.lane import WHOLE, Lane

IN_MEMORY = 4 * 1024 * 1024
"""Bytes of an output that are kept in memory."""
PATIENCE = 600.0
"""Seconds for which S3 may be away before an object is given up."""
_WRITTEN = 64 * 1024
"""Bytes of answers that are written down together."""
_SLICE = 8 * 1024
"""Bytes that are cut into requests of one record at once: meanwhile no answer is taken, and containers idle."""
_INFLATED = 4 * 1024 * 1024
"""Bytes that are inflated at once: a bomb must not burst here."""
_UPLOAD_PAUSE = 1.0


class ObjectFailed(Exception):
    """An object has no output. `record` names the request, where it is one's."""

    def __init__(self, failure: CallFailed, record: str = "") -> None:
        super().__init__(failure.words)
        self.failure = failure
        self.record = record


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for all objects of a job."""

    work: Work
    pace: Pace
    processing: Processing | None
    objects: Objects
    folder: Path
    """Where outputs are gathered that do not fit into memory."""


class Run:
    """The transformation of one object; an `Asker`."""

    def __init__(self, terms: Terms, lane: Lane, given: Input) -> None:
        self._terms = terms
        self._lane = lane
        self._input = given
        self._by_lines = terms.work.by_lines
        self._processing = terms.processing
        # Not in the system's folder of temporary files, which may be memory. Closed in `run`.
        self._spool: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY, dir=str(terms.folder))  # noqa: SIM115
        self._early: dict[int, tuple[Batch, bytes]] = {}
        """Answers whose predecessors are not there yet, by their first record."""
        self._next = 1
        """The first record that has no answer yet."""
        self._open = 0
        """Requests that have room in the lane."""
        self._read = self._cut = 0
        """Bytes that were read, and records that were found in them."""
        self._unwritten = bytearray()
        self._moved = asyncio.Event()
        self._failure: Exception | None = None
        self.is_over = False

    async def run(self) -> None:
        """Do all of it. Raises ObjectFailed, ObjectNotFound, ObjectRefused or Transient."""
        with self._spool:
            try:
                async for batches in self._batches() if not self._flows else _whole():
                    if self._failure is not None:
                        break
                    self._open += len(batches)
                    self._cut = batches[-1].first + batches[-1].records - 1
                    await self._lane.offer(self, batches)
                await self._settle()
            finally:
                self.is_over = True
                self._forget_early()
                await self._settle()  # requests that are under way still have room in the lane
            if self._failure is None:
                self._write_down()
            if self._failure is not None:
                raise self._failure
            await self._upload()

    @property
    def records(self) -> int:
        """Give how many have answers."""
        return self._next - 1

    @property
    def size(self) -> int:
        """Give about how many bytes of the object, as it is stored, have answers."""
        return self._read * self.records // self._cut if self._cut else 0

    @property
    def _flows(self) -> bool:
        """Whether the object is one request of any size. One without a byte is none."""
        terms = self._terms
        one = terms.work.split == "None" or not terms.pace.single
        return one and not terms.pace.payload and terms.processing is None and self._input.head.size > 0

    async def _settle(self) -> None:
        while self._open:
            self._moved.clear()
            await self._moved.wait()

    async def _batches(self) -> AsyncIterator[list[Batch]]:
        work, pace = self._terms.work, self._terms.pace
        processing = self._terms.processing
        if processing is None:
            plain = Batcher(work.split, single=pace.single, limit=pace.payload)
            feed, finish = plain.feed, plain.finish
        else:
            looked = LookedInto(processing, work, pace)
            feed, finish = looked.feed, looked.finish
        try:
            async for piece in self._pieces():
                for part in _sliced(piece) if pace.single else (piece,):
                    if batches := feed(part):
                        yield batches
            if batches := finish():
                yield batches
        except BadData as error:
            raise _failed(error) from error

    async def _pieces(self) -> AsyncIterator[bytes]:
        chunks = self._terms.objects.chunks(self._input.url, self._input.head, PATIENCE)
        self._read = 0
        if not self._terms.work.is_gzip:
            async for chunk in chunks:
                self._read += len(chunk)
                yield chunk
            return
        inflater = zlib.decompressobj(wbits=31)
        fresh = True
        try:
            async for chunk in chunks:
                self._read += len(chunk)
                while chunk:
                    if inflater.eof:  # one member after another is one object, as with gunzip
                        inflater, fresh = zlib.decompressobj(wbits=31), True
                    piece = inflater.decompress(chunk, _INFLATED)
                    chunk, fresh = inflater.unconsumed_tail or inflater.unused_data, False
                    if piece:
                        yield piece
        except zlib.error as error:
            raise BadData(f"Failed to decompress input as Gzip: {error}") from error
        if not inflater.eof and not (fresh and not self._input.head.size):
            raise BadData("Failed to decompress input as Gzip: it ends too early")

    async def _counted(self) -> AsyncIterator[bytes]:
        """Give the object as it is sent in one request, and count its records."""
        splitter, self._next = Splitter(self._terms.work.split), 1
        try:
            async for piece in self._pieces():
                self._next += sum(1 for _ in splitter.feed(piece))
                self._cut = self.records
                yield piece
            self._next += sum(1 for _ in splitter.finish())
        except BadData as error:
            raise _failed(error) from error

    # -- Asker -------------------------------------------------------------------------------------------------------

    def answered(self, batch: Batch, answer: bytes) -> None:
        """Add the answer to the output, and those that waited for it."""
        if self.is_over or self._failure is not None:
            self._release(batch)
            return
        if batch.first != self._next:
            self._early[batch.first] = batch, answer
            self._lane.hold(answer)
            return
        try:
            self._add(batch, answer)
            while self._early and (waiting := self._early.pop(self._next, None)) is not None:
                batch, answer = waiting
                self._lane.let_go(answer)
                self._add(batch, answer)
        except BadData as error:
            self.failed(batch, CallFailed("ClientError", error.message, 200, answer), error.record)
            return
        if len(self._unwritten) >= _WRITTEN:
            self._write_down()

    async def flow(self, caller: Caller) -> None:
        """Send all of the object as one request, writing the answer down as it comes."""

        from clary.transform.flow import flow  # aiohttp, that is: most jobs do without, and start sooner

        async def sent(hops: Sequence[Hop]) -> Answer:
            self._spool.seek(0)
            self._spool.truncate()
            return await flow(hops, self._terms.work, self._counted(), self._write)

        try:
            await caller.flow(sent)
            self._end_line()
        except (ObjectFailed, Fatal, Transient) as error:
            self._failure = self._failure or error
        self._release(WHOLE)

    def failed(self, batch: Batch, failure: CallFailed, record: int | None = None) -> None:
        """Give the object up; what is under way is waited for and forgotten."""
        if self._failure is None:
            self._failure = ObjectFailed(failure, batch.name if record is None else f"record {record}")
        self._forget_early()
        self._release(batch)

    def _forget_early(self) -> None:
        for early, answer in self._early.values():
            self._lane.let_go(answer)
            self._release(early)
        self._early.clear()

    def _add(self, batch: Batch, answer: bytes) -> None:
        if self._processing is not None:
            answer = self._processing.made(batch, answer)
        self._unwritten += answer
        if self._by_lines and not answer.endswith(b"\n"):
            self._unwritten += b"\n"
        self._next += batch.records
        self._release(batch)

    def _write_down(self) -> None:
        try:
            self._write(self._unwritten)
        except ObjectFailed as failed:
            self._failure = self._failure or failed
        self._unwritten.clear()

    def _write(self, data: bytes | bytearray) -> None:
        """Write a piece of the output. Raises ObjectFailed."""
        try:
            self._spool.write(data)
            self._spool.flush()
        except OSError as error:  # a full disk, most likely
            words = f"Failed to gather the output: {error.strerror}"
            raise ObjectFailed(CallFailed("InternalServerError", words)) from error

    def _end_line(self) -> None:
        """Give the answer as a whole the end of line that it may lack."""
        size = self._spool.tell()
        self._spool.seek(max(0, size - 1))
        if self._by_lines and self._spool.read(1) != b"\n":
            self._write(b"\n")

    def _release(self, batch: Batch) -> None:
        self._lane.release(batch)
        self._open -= 1
        if not self._open:
            self._moved.set()

    async def _upload(self) -> None:
        url = self._terms.work.output_url(self._input.key)
        loop = asyncio.get_running_loop()
        since = loop.time()
        while True:
            self._spool.seek(0)
            try:
                await self._terms.objects.upload(url, self._spool, self._terms.work.accept)
                return
            except Transient:
                if loop.time() - since > PATIENCE:
                    raise
                await asyncio.sleep(_UPLOAD_PAUSE)


def _sliced(piece: bytes) -> Iterator[bytes]:
    return (piece[start : start + _SLICE] for start in range(0, len(piece), _SLICE))


async def _whole() -> AsyncIterator[list[Batch]]:
    yield [WHOLE]


def _failed(error: BadData) -> ObjectFailed:
    record = "" if error.record is None else f"record {error.record}"
    return ObjectFailed(CallFailed("ClientError", error.message), record)


class LookedInto:
    """Requests of records that DataProcessing looks into."""

    def __init__(self, processing: Processing, work: Work, pace: Pace) -> None:
        self._splitter = Splitter(work.split)
        whole = work.split == "None"
        limit = pace.payload or (0 if whole else PRODUCT * MIB)
        self._batches = ProcessedBatches(processing, single=pace.single, limit=limit, whole=whole)

    def feed(self, piece: bytes) -> list[Batch]:
        """Give the requests that are complete now. Raises BadData, for a record too that is too large to look into."""
        batches = [batch for record in self._splitter.feed(piece) for batch in self._batches.add(record)]
        if self._splitter.waiting > PRODUCT * MIB:
            message = f"Record is larger than {PRODUCT}MB, which is the most that DataProcessing looks into"
            raise BadData(message, self._batches.number)
        return batches

    def finish(self) -> list[Batch]:
        """Give the last requests."""
        last = [batch for record in self._splitter.finish() for batch in self._batches.add(record)]
        return last if self._batches.is_empty else [*last, self._batches.flush()]
