"""The filters of DataProcessing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from clary.core.jsonpath import NoSuchElement, Path, PathRefused

RECORD: Any = {"id": "a", "x": [1, 2, [3]], "a.b": {"c": True}, "it's": None}
ROW: Any = ["id7", "5", "6", "7"]


@pytest.mark.parametrize(
    ("text", "record", "expected"),
    [
        ("$", RECORD, RECORD),
        ("$.id", RECORD, "a"),
        ("$['id']", RECORD, "a"),
        ('$["a.b"].c', RECORD, True),
        ("$['it\\'s']", RECORD, None),
        ("$['id','x']", RECORD, {"id": "a", "x": [1, 2, [3]]}),
        ("$.x[2][0]", RECORD, 3),
        ("$.x[-1]", RECORD, [3]),
        ("$.x.*", RECORD, [1, 2, [3]]),
        ("$.x[*]", RECORD, [1, 2, [3]]),
        ("$['a.b'].*", RECORD, [True]),
        ("$[0]", ROW, "id7"),
        ("$[1:]", ROW, ["5", "6", "7"]),
        ("$[:2]", ROW, ["id7", "5"]),
        ("$[1:3]", ROW, ["5", "6"]),
        ("$[:-1]", ROW, ["id7", "5", "6"]),
        ("$[0,-1]", ROW, ["id7", "7"]),
        ("$[ 1 , 0 ]", ROW, ["5", "id7"]),
        ("$[9:]", ROW, []),
    ],
)
def test_what_a_path_leads_to(text: str, record: Any, expected: Any) -> None:
    assert Path(text)(record) == expected


@pytest.mark.parametrize("text", ["$[4]", "$[-5]", "$[0,4]", "$.id", "$['id','x']"])
def test_what_a_row_does_not_have(text: str) -> None:
    with pytest.raises(NoSuchElement):
        Path(text)(ROW)


@pytest.mark.parametrize("text", ["$.x.y", "$.nobody", "$['id','nobody']", "$[0]", "$.id.*", "$.id[1:]"])
def test_what_a_document_does_not_have(text: str) -> None:
    with pytest.raises(NoSuchElement):
        Path(text)(RECORD)


@pytest.mark.parametrize(
    "text", ["", "id", "$id", "$.", "$..x", "$[", "$[]", "$[a]", "$['a',1]", "$[?(@.x)]", "$[::2]", "$[1:2,3]", "$.x "]
)
def test_what_batch_transform_has_not(text: str) -> None:
    with pytest.raises(PathRefused):
        Path(text)


@given(
    row=some.lists(some.integers(), max_size=6),
    start=some.none() | some.integers(-8, 8),
    end=some.none() | some.integers(-8, 8),
)
def test_slices_are_javascripts(row: list[int], start: int | None, end: int | None) -> None:
    written = f"$[{'' if start is None else start}:{'' if end is None else end}]"
    low = 0 if start is None else max(0, start + len(row)) if start < 0 else start
    high = len(row) if end is None else max(0, end + len(row)) if end < 0 else end
    assert Path(written)(row) == [each for index, each in enumerate(row) if low <= index < high]
