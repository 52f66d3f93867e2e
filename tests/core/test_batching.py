"""Splitting and batching of any bytes, however they come in pieces, beside a slow and obvious reference."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from clary.core.batching import Batch, Batcher
from clary.core.framing import FRAMINGS, BadData, SplitType

from .test_framing import PAYLOADS, recordio, tfrecord

LINES = some.one_of(
    some.binary(max_size=60),
    some.lists(some.sampled_from([b"\n", b"\r\n", b"a", b"1,2,3", b"\xff\xfe", b"\xef\xbb\xbf", b""]), max_size=20).map(
        b"".join
    ),
)


def reference(data: bytes, split: SplitType, single: bool, limit: int) -> list[Batch] | None:
    """Split all of it, then put together what fits; None where a record does not."""
    if split == "None":
        records = [data] if data else []
    elif split == "Line":
        *whole, last = data.split(b"\n")
        records = [line + b"\n" for line in whole] + ([last] if last else [])
    else:
        records, start = [], 0
        while start < len(data):
            end = FRAMINGS[split].end(data, start)
            records.append(data[start:end])
            start = end
    if single and split != "None":
        records = [FRAMINGS[split].content(record) for record in records]
    if any(limit and len(record) > limit for record in records):
        return None
    batches: list[Batch] = []
    for number, record in enumerate(records, 1):
        fits = batches and not single and (not limit or len(batches[-1].body) + len(record) <= limit)
        if fits:
            last = batches[-1]
            batches[-1] = Batch(last.body + record, last.first, last.records + 1)
        else:
            batches.append(Batch(record, number, 1))
    return batches


def made(data: bytes, cuts: list[int], split: SplitType, single: bool, limit: int) -> list[Batch] | None:
    batcher = Batcher(split, single=single, limit=limit)
    batches: list[Batch] = []
    try:
        start = 0
        for cut in sorted(min(cut, len(data)) for cut in cuts):
            batches += batcher.feed(data[start:cut])
            start = cut
        batches += batcher.feed(data[start:])
        return batches + batcher.finish()
    except BadData as error:
        assert "Please increase your max_payload" in error.message
        return None


CUTS = some.lists(some.integers(0, 100), max_size=6)


@given(data=LINES, cuts=CUTS, single=some.booleans(), limit=some.sampled_from([0, 1, 3, 7, 20, 1000]))
@example(b"", [], False, 7)
@example(b"\n", [], False, 7)
@example(b"a\r\nb", [2], False, 3)
@example(b"no end of line", [], False, 1000)
@example(b"longer than that\n1\n", [], True, 7)
@example(b"1234567\n", [], False, 7)
@example(b"123456\n7", [7], False, 7)
def test_lines(data: bytes, cuts: list[int], single: bool, limit: int) -> None:
    assert made(data, cuts, "Line", single, limit) == reference(data, "Line", single, limit)


@given(data=some.binary(max_size=60), cuts=CUTS, limit=some.sampled_from([0, 1, 20, 1000]))
def test_an_object_that_is_not_split(data: bytes, cuts: list[int], limit: int) -> None:
    assert made(data, cuts, "None", False, limit) == reference(data, "None", False, limit)


@pytest.mark.parametrize("split", ["RecordIO", "TFRecord"])
@given(
    payloads=some.lists(PAYLOADS, max_size=6),
    cuts=CUTS,
    single=some.booleans(),
    limit=some.sampled_from([0, 16, 40, 1000]),
)
def test_framed_records(split: SplitType, payloads: list[bytes], cuts: list[int], single: bool, limit: int) -> None:
    data = b"".join(map(recordio if split == "RecordIO" else tfrecord, payloads))
    expected = reference(data, split, single, limit)
    assert made(data, cuts, split, single, limit) == expected
    if single and expected is not None:
        assert [batch.body for batch in expected] == payloads


@given(data=LINES, limit=some.integers(1, 40))
def test_nothing_is_lost_and_nothing_too_large(data: bytes, limit: int) -> None:
    batches = made(data, [], "Line", False, limit)
    if batches is not None:
        assert b"".join(batch.body for batch in batches) == data
        assert all(len(batch.body) <= limit for batch in batches)
        assert [batch.first for batch in batches] == [
            1 + sum(batch.records for batch in batches[:number]) for number in range(len(batches))
        ]


def test_who_is_too_large_is_told_by_number() -> None:
    batcher = Batcher("Line", single=False, limit=4)
    with pytest.raises(BadData) as caught:
        batcher.feed(b"1\n2\nlonger\n3\n")
    assert caught.value.record == 3


@pytest.mark.parametrize(("split", "record"), [("RecordIO", recordio(b"hello")), ("TFRecord", tfrecord(b"hello"))])
def test_the_beginning_of_a_record_is_none(split: SplitType, record: bytes) -> None:
    batcher = Batcher(split, single=True, limit=0)
    assert [batch.body for batch in batcher.feed(record + record[:-1])] == [b"hello"]
    with pytest.raises(BadData, match="ends within a record") as caught:
        batcher.finish()
    assert caught.value.record == 2


def test_a_line_that_never_ends_is_given_up_before_it_fills_the_memory() -> None:
    for single in (True, False):
        batcher = Batcher("Line", single=single, limit=1000)
        with pytest.raises(BadData):
            for _ in range(100):
                batcher.feed(b"x" * 100)
