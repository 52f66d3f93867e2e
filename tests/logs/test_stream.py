"""One stream: events with times, in both directions, and its writer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from clary.logs.folder import LogFolder
from clary.logs.stream import Range, Stream, last_texts
from clary.logs.upkeep import see

NOON = 1_800_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> LogFolder:
    return LogFolder(tmp_path, lambda: NOON / 1000)


@pytest.fixture
def stream(folder: LogFolder) -> Stream:
    """Ten lines, `line 0` to `line 9`, a second apart; 4 and 5 at one time."""
    with folder.writer("/g", "s") as writer:
        for number in range(10):
            writer.write(NOON + (4 if number == 5 else number) * 1000, b"line %d" % number)
    found = folder.stream("/g", "s")
    assert found is not None
    return found


def numbers(events: object) -> list[int]:
    return [int(event.message[-1]) for event in events]  # type: ignore[attr-defined]


def test_events_come_in_order_and_backward(stream: Stream) -> None:
    events = list(stream.events())
    assert numbers(events) == list(range(10))
    assert [event.timestamp - NOON for event in events] == [0, 1000, 2000, 3000, 4000, 4000, 6000, 7000, 8000, 9000]
    assert list(stream.events_before()) == events[::-1]
    assert (stream.first_timestamp, stream.last_timestamp) == (NOON, NOON + 9000)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(4, 4, [4, 5]), (5, 7, [6, 7]), (0, 1, [0, 1]), (9, 99, [9]), (10, 99, []), (3, 2, []), (-5, -1, [])],
)
def test_times_bound_events_inclusively(stream: Stream, start: int, end: int, expected: list[int]) -> None:
    within = Range(NOON + start * 1000, NOON + end * 1000)
    assert numbers(stream.events(within=within)) == expected
    assert numbers(stream.events_before(within=within)) == expected[::-1]


def test_positions_join_pages_in_both_directions(stream: Stream) -> None:
    events = list(stream.events())
    for event in events:
        assert next(iter(stream.events(event.position))) == event
        assert [e.position for e in stream.events_before(event.after)][:1] == [event.position]
    assert list(stream.events(events[-1].after)) == []
    assert list(stream.events_before(0)) == []


def test_a_process_that_writes_by_itself_gets_times_by_looking(folder: LogFolder) -> None:
    path = folder.ensure("/g", "raw")
    with path.open("ab", buffering=0) as process:
        process.write(b"one\ntw")
        see(path, NOON / 1000 + 1)
        process.write(b"o\n\xffthree\r\n")
        see(path, NOON / 1000 + 2)
        process.write(b"four\n")
    found = folder.stream("/g", "raw")
    assert found is not None
    seen = [(event.message, event.timestamp - NOON) for event in found.events()]
    # A line is as old as its end: nobody was shown its beginning.
    assert seen[:3] == [("one", 1000), ("two", 2000), ("\ufffdthree", 2000)]
    assert seen[3][0] == "four" and found.last_timestamp == seen[3][1] + NOON >= NOON + 2000


def test_a_line_without_an_end_is_an_event_when_nothing_follows(folder: LogFolder) -> None:
    path = folder.ensure("/g", "raw")
    path.write_bytes(b"fine\nout of mem")
    assert [event.message for event in Stream("/g", "raw", path).events()] == ["fine"]
    assert folder.tail("/g", "raw", 1) == ["out of mem"], "who asks for the last words gets them at once"
    os.utime(path, (time.time() - 60,) * 2)
    quiet = Stream("/g", "raw", path)
    assert [event.message for event in quiet.events()] == ["fine", "out of mem"]
    assert [event.message for event in quiet.events_before()] == ["out of mem", "fine"]


@pytest.mark.parametrize("lines", [0, 1, 5, 40_000])
def test_the_last_texts_of_a_long_file(tmp_path: Path, lines: int) -> None:
    everything = [f"line {n}" for n in range(20_000)] + ["half"]
    (tmp_path / "s.log").write_text("\n".join(everything))
    assert last_texts(tmp_path / "s.log", lines) == (everything[-lines:] if lines else [])
    assert last_texts(tmp_path / "none.log", 5) == []


def test_a_writer_goes_on_where_another_one_stopped(folder: LogFolder) -> None:
    with folder.writer("/g", "w") as writer:
        writer.write_all([(NOON + 5, b"one\n"), (NOON + 4, b"two"), (NOON + 5, b"three")])
    writer.close()
    with folder.writer("/g", "w") as again:
        again.write(NOON + 1, b"late")
        again.write_all([])
    found = folder.stream("/g", "w")
    assert found is not None
    assert [(event.message, event.timestamp) for event in found.events()] == [
        (message, NOON + 5) for message in ("one", "two", "three", "late")
    ], "times do not fall within a stream"


def test_lines_that_do_not_fit_the_disk_are_not_there_by_half(
    folder: LogFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) < 10:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:10])

    with folder.writer("/g", "w") as writer:
        writer.write(NOON, b"before")
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(OSError, match="space"):
                writer.write_all([(NOON, b"12345678"), (NOON, b"12345")])
        writer.write(NOON, b"after")
    assert folder.tail("/g", "w", 9) == ["before", "after"]


def test_newlines_within_an_event_are_kept(folder: LogFolder) -> None:
    with folder.writer("/g", "w") as writer:
        writer.write(NOON, b"Traceback:\n  line 1\n")
        writer.write(NOON, "a line\N{LINE SEPARATOR}of its own".encode())
    found = folder.stream("/g", "w")
    assert found is not None
    assert [event.message for event in found.events()] == ["Traceback:\n  line 1", "a line\N{LINE SEPARATOR}of its own"]
    assert folder.path("/g", "w").read_bytes().count(b"\n") == 2


def test_a_writer_ends_the_half_line_that_it_finds(folder: LogFolder) -> None:
    folder.ensure("/g", "w").write_bytes(b"half a li")
    with folder.writer("/g", "w") as writer:
        writer.write(NOON, b"whole")
    assert folder.tail("/g", "w", 9) == ["half a li", "whole"]


def test_two_writers_do_not_mix_their_times(folder: LogFolder) -> None:
    with folder.writer("/g", "w") as one, folder.writer("/g", "w") as two:
        for number in range(20):
            (one if number % 2 else two).write(NOON + number, b"%d" % number)
    found = folder.stream("/g", "w")
    assert found is not None
    assert [(e.message, e.timestamp - NOON) for e in found.events()] == [(str(n), n) for n in range(20)]
