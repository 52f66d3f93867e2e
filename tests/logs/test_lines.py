"""Lines, forward and backward, whatever bytes they are made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clary.logs import lines
from clary.logs.lines import Line, backward, forward, head


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "s.log"


def read(file: Path, content: bytes, **options: bool) -> list[bytes]:
    file.write_bytes(content)
    return [line.data for line in forward(file, 0, len(content), **options)]


def test_ends_of_lines(file: Path) -> None:
    assert read(file, b"a\nb\r\n\n10%\r20%\r\nnul\0\n\xff\n") == [b"a", b"b", b"", b"10%\r20%", b"nul\0", b"\xff"]


def test_a_line_without_an_end_waits_for_it(file: Path) -> None:
    assert read(file, b"one\ntw") == [b"one"]
    assert read(file, b"one\ntw", torn=True) == [b"one", b"tw"]


def test_positions_lead_to_the_lines(file: Path) -> None:
    file.write_bytes(b"one\ntwo\r\nthree\n")
    assert list(forward(file, 0, 15)) == [Line(0, 4, b"one"), Line(4, 9, b"two"), Line(9, 15, b"three")]
    assert next(iter(forward(file, 4, 15))).data == b"two"


def test_very_long_lines_are_parted_between_characters(file: Path) -> None:
    content = "é".encode() * lines.LONGEST + b"\nnext\n"  # twice the longest, and LONGEST is even
    shifted = b"x" + content
    parts = read(file, shifted)
    assert [len(part) for part in parts] == [lines.LONGEST - 1, lines.LONGEST, 2, 4]
    assert b"".join(parts) == shifted.replace(b"\n", b"")
    assert all(part.decode() for part in parts)
    found = list(forward(file, 0, len(shifted)))
    assert list(forward(file, found[1].start, len(shifted))) == found[1:], "a position within a long line is one too"


def test_a_growing_line_is_parted_as_a_whole_one_is(file: Path) -> None:
    whole = read(file, b"x" * (lines.LONGEST + 10) + b"\n")
    growing = read(file, b"x" * (lines.LONGEST + 5))
    assert growing == whole[:1]


@settings(suppress_health_check=list(HealthCheck), max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40_000), max_size=12), st.booleans())
def test_backward_is_forward_reversed(file: Path, lengths: list[int], torn: bool) -> None:
    content = b"".join(bytes([65 + n % 26]) * length + b"\n" for n, length in enumerate(lengths))[
        : -1 if torn else None
    ]
    file.write_bytes(content)
    expected = list(forward(file, 0, len(content), torn=True))
    found = [line for part in backward(file, 0, len(content), torn=True) for line in reversed(part)]
    assert found == expected[::-1]


def test_the_head_is_behind_what_was_cut(file: Path) -> None:
    assert head(file) == 0
    file.write_bytes(b"")
    assert head(file) == 0
    file.write_bytes(b"\0" * 10_000 + b"line\n")
    assert head(file) == 10_000
    with file.open("wb") as sparse:
        sparse.truncate(1 << 20)
    assert head(file) == 1 << 20
    with file.open("r+b") as sparse:
        sparse.seek((1 << 20) - 5)
        sparse.write(b"line\n")
    assert head(file) == (1 << 20) - 5


def test_a_file_that_goes_away_ends_its_lines(file: Path) -> None:
    file.write_bytes(b"line\n" * 100_000)
    found = forward(file, 0, 500_000)
    assert next(found).data == b"line"
    file.unlink()
    assert sum(1 for _ in found) < 99_999
    assert list(forward(file, 0, 5)) == []
