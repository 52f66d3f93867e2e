"""DataProcessing, as the service's developer guide shows it, and beside a slow and obvious reference."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from clary.core.batching import Batch
from clary.core.framing import BadData
from clary.core.jsonpath import Path
from clary.core.processing import ProcessedBatches, Processing
from clary.core.tabular import format_of

CSV, LINES, DOCUMENT = (
    format_of("text/csv", by_lines=True),
    format_of("application/jsonlines", by_lines=True),
    format_of("application/json", by_lines=False),
)


def through(processing: Processing, record: bytes, answer: bytes) -> tuple[bytes, bytes]:
    """Give what is sent for one record, and what is written when the model has answered."""
    batches = ProcessedBatches(processing, single=True, limit=0)
    assert list(batches.add(record)) == []
    batch = batches.flush()
    return batch.body, processing.made(batch, answer)


@pytest.mark.parametrize(
    ("kind", "paths", "join", "record", "sent", "answer", "made"),
    [
        (CSV, ("$", "$"), False, b"1,2,3\n", b"1,2,3\n", b"0.9\n", b"0.9\n"),
        (CSV, ("$", "$"), True, b"1,2,3\n", b"1,2,3\n", b"1\n", b"1,2,3,1\n"),
        (CSV, ("$[1:]", "$[0,-1]"), True, b"id7,5,6", b"5,6\n", b"0.4", b"id7,0.4"),
        (
            DOCUMENT, ("$", "$"), True, b'{"key": 1}', b'{"key":1}\n', b'{"label":1}',
            b'{"key":1,"SageMakerOutput":{"label":1}}',
        ),
        (
            DOCUMENT, ("$", "$"), True, b"[1,2]", b"[1,2]\n", b"[0.3]",
            b'{"SageMakerInput":[1,2],"SageMakerOutput":[0.3]}',
        ),
        (
            LINES, ("$.x", "$['id','SageMakerOutput']"), True, b'{"id":"a","x":[1,2]}\n', b"[1,2]\n", b'{"p":0.7}\n',
            b'{"id":"a","SageMakerOutput":{"p":0.7}}\n',
        ),
        (LINES, ("$", "$.p"), False, b'{"x": 1}\n', b'{"x":1}\n', b'{"p":0.7}\n', b"0.7\n"),
        (
            LINES, ("$", "$"), True, b'{"SageMakerOutput":0}\n', b'{"SageMakerOutput":0}\n', b"1\n",
            b'{"SageMakerOutput":1}\n',
        ),
        (CSV, ("$[0]", "$"), True, b'"a, ""b""\n",2\r\n', b'"a, ""b""\n"\n', b"1\n", b'"a, ""b""\n",2,1\n'),
    ],
)  # fmt: skip
def test_the_table_of_the_developer_guide(
    kind: Any, paths: tuple[str, str], join: bool, record: bytes, sent: bytes, answer: bytes, made: bytes
) -> None:
    processing = Processing(kind, Path(paths[0]), Path(paths[1]), join)
    assert through(processing, record, answer) == (sent, made)


def test_ids_come_last() -> None:
    ids = iter(("u1", "u2"))
    common = {"started": "2022-08-30T00:49:15Z", "new_id": lambda: next(ids)}
    rows = Processing(CSV, output_filter=Path("$[0]"), **common)
    assert through(rows, b"1\n", b"0.9,x\n")[1] == b"0.9,u1,2022-08-30T00:49:15Z\n"
    documents = Processing(LINES, **common)
    assert json.loads(through(documents, b"1\n", b'{"p":1}\n')[1]) == {
        "p": 1, "SageMakerInferenceId": "u2", "SageMakerInferenceTime": "2022-08-30T00:49:15Z"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "record", "words"),
    [
        (CSV, b'1,a"b\n', "Failed to parse input as CSV"),
        (CSV, b'1,"a\n', "Failed to parse input as CSV"),
        (CSV, b"\xff\n", "Failed to parse input as CSV"),
        (LINES, b"{\n", "Failed to parse input as JSON"),
        (LINES, b"NaN\n", "Failed to parse input as JSON"),
        (LINES, b"[" * 100_000 + b"\n", "Failed to parse input as JSON"),
        (LINES, b'{"x":1}\n', "unable to evaluate payload provided: InputFilter $[5]"),
    ],
)
def test_bad_input_is_told_with_its_number(kind: Any, record: bytes, words: str) -> None:
    batches = ProcessedBatches(Processing(kind, Path("$[5]")), single=True, limit=0)
    good = b"1,2,3,4,5,6\n" if kind is CSV else b"[1,2,3,4,5,6]\n"
    assert list(batches.add(good)) == []
    with pytest.raises(BadData) as caught:
        list(batches.add(record))
    assert caught.value.message.startswith(words)
    assert caught.value.record == 2


def test_an_answer_must_have_as_many_records_as_the_request() -> None:
    processing = Processing(CSV, join=True)
    with pytest.raises(BadData, match="1 records, and the request had 2: mismatched line count") as caught:
        processing.made(Batch(b"1\n2\n", 7, 2, (["1"], ["2"])), b"0.5\n")
    assert caught.value.record == 7


def test_an_answer_that_is_not_what_it_should_be() -> None:
    with pytest.raises(BadData, match="Failed to parse output from the algorithm as JSON"):
        Processing(LINES, join=True).made(Batch(b"1\n", 1, 1, (1,)), b"oops\n")


FIELDS = some.text(some.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
ROWS = some.lists(some.lists(FIELDS, min_size=2, max_size=4), min_size=1, max_size=8)


def written(rows: list[list[str]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows(rows)
    return buffer.getvalue().encode()


def rows_of(body: bytes) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(body.decode(), newline="")) if row]


@given(rows=ROWS, single=some.booleans(), limit=some.sampled_from([0, 200]), join=some.booleans())
def test_any_rows_come_out_joined_in_order(rows: list[list[str]], single: bool, limit: int, join: bool) -> None:
    processing = Processing(CSV, Path("$[1:]"), Path("$[0,-1]"), join)
    batches = ProcessedBatches(processing, single=single, limit=limit)
    requests = list(batches.add(written(rows)))
    requests += [] if batches.is_empty else [batches.flush()]
    sent = [row for batch in requests for row in rows_of(batch.body)]
    assert sent == [row[1:] for row in rows]
    outputs = b""
    for batch in requests:
        answers = [[str(len(row)), str(number)] for number, row in enumerate(rows_of(batch.body))]
        outputs += processing.made(batch, written(answers))
        assert limit == 0 or len(batch.body) <= limit + 1 or batch.records == 1
        assert batch.records == 1 or not single
    expected = []
    number = 0
    for batch in requests:
        for place in range(batch.records):
            row = rows[number]
            expected.append([row[0] if join else str(len(row) - 1), str(place)])
            number += 1
    assert rows_of(outputs) == expected


SCALARS = some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text(max_size=5)
DOCUMENTS = some.recursive(
    SCALARS.filter(lambda value: value not in (float("inf"), -float("inf"))),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(some.lists(DOCUMENTS, min_size=1, max_size=5))
def test_any_documents_come_out_joined(documents: list[Any]) -> None:
    processing = Processing(LINES, join=True)
    batches = ProcessedBatches(processing, single=False, limit=0)
    assert list(batches.add(b"".join(json.dumps(each).encode() + b"\r\n" for each in documents))) == []
    batch = batches.flush()
    assert [json.loads(line) for line in batch.body.splitlines()] == documents
    made = processing.made(batch, b"".join(b"%d\n" % number for number in range(len(documents))))
    for number, (line, document) in enumerate(zip(made.split(b"\n")[:-1], documents, strict=True)):
        whole = document if isinstance(document, dict) else {"SageMakerInput": document}
        assert json.loads(line) == {**whole, "SageMakerOutput": number}


@pytest.mark.parametrize(
    ("record", "sent"),
    [
        (rb'{"x":"\ud800"}', rb'"\ud800"'),
        ('{"x":"\u00e4"}'.encode(), '"\u00e4"'.encode()),
    ],
)
def test_json_that_utf8_cannot_say_is_escaped(record: bytes, sent: bytes) -> None:
    assert LINES is not None
    assert through(Processing(LINES, Path("$.x")), record, b"1\n")[0] == sent + b"\n"


def test_infinity_is_not_passed_on() -> None:
    assert LINES is not None
    batches = ProcessedBatches(Processing(LINES, join=True), single=True, limit=0)
    with pytest.raises(BadData, match="Failed to write a record as JSON") as raised:
        list(batches.add(b'{"x":1e999}\n'))
    assert raised.value.record == 1


def test_a_record_of_an_answer_is_called_by_its_number_in_the_object() -> None:
    with pytest.raises(BadData, match="Failed to parse output from the algorithm as CSV") as raised:
        Processing(CSV, join=True).made(Batch(b"1\n2\n", 7, 2, (["1"], ["2"])), b'0.5\na"b\n')
    assert raised.value.record == 8


def test_an_object_that_is_not_split_is_one_request_or_none() -> None:
    batches = ProcessedBatches(Processing(CSV, Path("$[0]")), single=True, limit=8, whole=True)
    assert list(batches.add(b"1,x\n2,x\n")) == []
    assert batches.flush().body == b"1\n2\n"
    with pytest.raises(BadData, match="Please increase your max_payload"):
        list(batches.add(b"1,x\n" * 5))


def test_what_is_kept_for_a_join_counts_against_the_limit() -> None:
    record = b"1," + b"x" * 50 + b"\n"
    sizes = {}
    for join in (False, True):
        batches = ProcessedBatches(Processing(CSV, Path("$[0]"), join=join), single=False, limit=120)
        requests = [batch for _ in range(10) for batch in batches.add(record)]
        sizes[join] = [batch.records for batch in [*requests, batches.flush()]]
    assert sizes == {False: [10], True: [2, 2, 2, 2, 2]}
