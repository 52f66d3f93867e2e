"""The index of times: what it says of each byte, and that it survives what happens to files."""

from __future__ import annotations

from pathlib import Path

import pytest

from clary.logs.times import Times, append, append_all


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Bytes 0 to 9 of time 100, 10 to 29 of time 200, made at 50."""
    path = tmp_path / ".s.times"
    for end, time in ((0, 50), (10, 100), (30, 200)):
        append(path, end, time)
    return path


def test_an_index_that_is_not_there_knows_nothing(tmp_path: Path) -> None:
    times = Times(tmp_path / "none")
    assert not times
    assert (times.seen, times.at(0), times.since(5)) == (0, None, 0)


def test_bytes_have_the_time_of_the_record_that_covers_them(index: Path) -> None:
    times = Times(index)
    assert [times.at(offset) for offset in (0, 9, 10, 29, 30)] == [100, 100, 200, 200, None]
    assert (times.created, times.last, times.seen) == (50, 200, 30)


def test_a_time_leads_to_the_first_byte_that_is_not_older(index: Path) -> None:
    assert [Times(index).since(time) for time in (0, 50, 100, 101, 200, 201)] == [0, 0, 0, 10, 10, 30]


def test_times_never_fall_but_may_be_older_than_the_stream(tmp_path: Path) -> None:
    path = tmp_path / "x"
    append(path, 0, 1000)
    append(path, 10, 400)  # copied from somewhere else
    append(path, 20, 300)
    assert [Times(path).at(offset) for offset in (5, 15)] == [400, 400]
    assert Times(path).created == 1000


def test_a_first_line_makes_the_stream(tmp_path: Path) -> None:
    append(tmp_path / "x", 10, 400)
    times = Times(tmp_path / "x")
    assert (times.created, times.seen) == (400, 10)


def test_half_a_record_of_a_full_disk_is_replaced(index: Path) -> None:
    with index.open("ab") as file:
        file.write(b"\x01" * 7)
    assert Times(index).last == 200
    append(index, 40, 300)
    assert [Times(index).at(offset) for offset in (29, 30, 39)] == [200, 300, 300]
    assert index.stat().st_size == 4 * 16


def test_several_records_are_written_at_once(index: Path) -> None:
    append_all(index, [(35, 150), (40, 250)])
    assert [Times(index).at(offset) for offset in (30, 34, 35, 39, 40)] == [200, 200, 250, 250, None]


def test_what_is_left_after_a_cut_says_the_same(index: Path) -> None:
    Times(index).write_from(index, before=10)
    times = Times(index)
    assert [times.at(offset) for offset in (10, 29, 30)] == [200, 200, None]
    assert (times.created, times.seen, index.stat().st_size) == (50, 30, 2 * 16)
    times.write_from(index, before=12, moved=12)
    assert [Times(index).at(offset) for offset in (0, 17, 18)] == [200, 200, None]
