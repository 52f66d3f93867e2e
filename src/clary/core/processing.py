"""DataProcessing: what is sent of each record, and what is made of it and of the model's answer.

In the service's order: the input filter, the model, the join of the whole record with the answer, the output filter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from clary.core.batching import Batch, too_large
from clary.core.framing import BadData
from clary.core.jsonpath import Json, NoSuchElement, Path
from clary.core.tabular import Format

OUTPUT, INPUT = "SageMakerOutput", "SageMakerInput"
INFERENCE_ID, INFERENCE_TIME = "SageMakerInferenceId", "SageMakerInferenceTime"
_WHOLE = Path("$")


@dataclass(frozen=True, slots=True)
class Processing:
    """What a job does with each record beyond sending it."""

    format: Format
    input_filter: Path = _WHOLE
    output_filter: Path = _WHOLE
    join: bool = False
    started: str = ""
    """The job's start, which GenerateInferenceId writes beside each id; empty: no ids are wanted."""
    new_id: Callable[[], str] = str

    @property
    def changes_output(self) -> bool:
        """Whether answers are taken apart."""
        return self.join or bool(self.started) or not self.output_filter.is_whole

    def taken(self, record: bytes, number: int) -> list[tuple[Json, bytes]]:
        """Give for each row of a piece of an object what it was and what is sent of it. Raises BadData."""
        try:
            rows = self.format.parse(record, "input")
            dump, path = self.format.dump, self.input_filter
            return [(row, dump(path(row))) for row in rows]
        except BadData as error:
            raise BadData(error.message, number + (error.record or 1) - 1) from error
        except NoSuchElement as error:
            raise BadData(
                f"unable to evaluate payload provided: InputFilter {self.input_filter.text}: {error}", number
            ) from error

    def made(self, batch: Batch, answer: bytes) -> bytes:
        """Give what is written for a request, each record on a line of its own. Raises BadData."""
        if not self.changes_output:
            return answer
        try:
            predictions = self.format.parse(answer, "output from the algorithm")
        except BadData as error:
            record = None if error.record is None else batch.first + error.record - 1
            raise BadData(error.message, record) from error
        if len(predictions) != batch.records:
            raise BadData(
                f"the algorithm's answer has {len(predictions)} records, and the request had {batch.records}: "
                "mismatched line count",
                batch.first,
            )
        originals = batch.originals if self.join else predictions
        lines = list(self._outputs(originals, predictions, batch.first))
        return b"\n".join(lines) + (b"\n" if answer.endswith(b"\n") else b"")

    def _outputs(self, originals: Sequence[Json], predictions: Sequence[Json], first: int) -> Iterator[bytes]:
        for number, (original, prediction) in enumerate(zip(originals, predictions, strict=True), first):
            joined = self._joined(original, prediction) if self.join else prediction
            try:
                yield self.format.dump(self._identified(self.output_filter(joined)))
            except NoSuchElement as error:
                message = f"unable to evaluate payload provided: OutputFilter {self.output_filter.text}: {error}"
                raise BadData(message, number) from error

    def _joined(self, original: Json, prediction: Json) -> Json:
        if self.format.by_position:
            assert isinstance(original, list) and isinstance(prediction, list), "rows"
            return [*original, *prediction]
        if isinstance(original, Mapping):
            return {**original, OUTPUT: prediction}
        return {INPUT: original, OUTPUT: prediction}

    def _identified(self, record: Json) -> Json:
        if not self.started:
            return record
        if self.format.by_position:
            return [*(record if isinstance(record, list) else [record]), self.new_id(), self.started]
        whole = record if isinstance(record, Mapping) else {OUTPUT: record}
        return {**whole, INFERENCE_ID: self.new_id(), INFERENCE_TIME: self.started}


class ProcessedBatches:
    """Makes requests of records that are looked into: what counts against `limit` is what is sent of them, and of
    records that answers are joined to what is kept of them too. `whole`: an object is one request, whatever is in it.
    """

    def __init__(self, processing: Processing, *, single: bool, limit: int, whole: bool = False) -> None:
        self._processing = processing
        self._single = single and not whole
        self._limit = limit
        self._whole = whole
        self._rows: list[tuple[Json, bytes]] = []
        self._size = 0
        self._kept = 0
        self._next = 1

    @property
    def number(self) -> int:
        """Give that of the record that comes next, from 1."""
        return self._next + len(self._rows)

    def add(self, piece: bytes) -> Iterator[Batch]:
        """Give the requests that are complete with this piece of whole records. Raises BadData."""
        kept = len(piece) if self._processing.join else 0
        if self._rows and self._limit and self._kept + kept > self._limit:
            yield self.flush()
        self._kept += kept
        for original, sent in self._processing.taken(piece, self.number):
            size = len(sent) + 1
            if self._limit and size - 1 > self._limit:
                raise too_large(self._limit, self.number)
            if self._rows and (self._single or (self._limit and self._size + size > self._limit)):
                if self._whole:
                    raise too_large(self._limit, self.number)
                yield self.flush()
                self._kept = kept
            self._rows.append((original, sent))
            self._size += size

    def flush(self) -> Batch:
        """Give what waits, of which there must be something, as one request."""
        rows, self._rows, self._size, self._kept = self._rows, [], 0, 0
        body = b"".join(sent + b"\n" for _, sent in rows)
        first, self._next = self._next, self._next + len(rows)
        return Batch(body, first, len(rows), tuple(original for original, _ in rows) if self._processing.join else ())

    @property
    def is_empty(self) -> bool:
        return not self._rows
