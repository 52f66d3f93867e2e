"""From Docker's stream to lines: each once, whatever Docker repeats, mixes or parts."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clary.engines.docker.labels import Kept
from clary.engines.docker.transcript import Cursor, Page, Transcript
from clary.engines.docker.transcript import nanoseconds as to_nanoseconds
from clary.logs.folder import LogFolder

NOON = 1_700_000_000
KEPT = Kept("0a", "/g", "s", ())
OUT, ERR = 1, 2


def entry(at: float, text: str, channel: int = OUT) -> bytes:
    """Write an entry as Docker's API does. `at`: seconds after noon."""
    nanoseconds = round(at * 10**9)
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(NOON + nanoseconds // 10**9))
    data = f"{seconds}.{nanoseconds % 10**9:09d}Z {text}".encode()
    return struct.pack(">BxxxL", channel, len(data)) + data


@pytest.fixture
def folder(tmp_path: Path) -> LogFolder:
    return LogFolder(tmp_path / "logs")


@pytest.fixture
def open_transcript(folder: LogFolder, tmp_path: Path) -> Callable[[], Transcript]:
    return lambda: Transcript(tmp_path / "page", KEPT, folder)


@pytest.fixture
def transcript(open_transcript: Callable[[], Transcript]) -> Transcript:
    return open_transcript()


def told(folder: LogFolder) -> list[str]:
    return folder.tail("/g", "s", 1000)


def test_a_cursor_counts_what_happens_in_the_same_nanosecond() -> None:
    cursor = Cursor().after(5).after(5)
    assert cursor == Cursor(5, 2) < cursor.after(5) < cursor.after(6) == Cursor(6, 1)


@pytest.mark.parametrize(
    ("stamp", "nanoseconds"),
    [
        (b"1970-01-01T00:00:01.5Z", 1_500_000_000),
        (b"2023-11-14T22:13:20Z", 1_700_000_000_000_000_000),
        (b"2023-11-14T22:13:20.123456789Z", 1_700_000_000_123_456_789),
    ],
)
def test_dockers_times_are_read_to_the_nanosecond(stamp: bytes, nanoseconds: int) -> None:
    assert to_nanoseconds(stamp) == nanoseconds


def test_entries_come_in_pieces_of_any_size(transcript: Transcript, folder: LogFolder) -> None:
    data = b"".join(entry(number, f"line {number}\r\n") for number in range(20))
    for start in range(0, len(data), 7):
        transcript.take(data[start : start + 7])
    assert transcript.is_whole
    assert told(folder) == [f"line {number}" for number in range(20)]
    transcript.take(data[:20])
    assert not transcript.is_whole


def test_a_file_that_docker_sends_again_is_written_once_and_told(transcript: Transcript, folder: LogFolder) -> None:
    lines = [entry(number // 3, f"{number}\n") for number in range(9)]
    transcript.take(b"".join(lines[:7]))
    transcript.take(b"".join(lines[3:]))
    assert told(folder) == [str(number) for number in range(9)]
    assert transcript.returns == 1


def test_what_is_late_on_one_channel_is_not_taken_for_a_repetition(transcript: Transcript, folder: LogFolder) -> None:
    transcript.take(entry(1, "out 1\n") + entry(3, "out 2\n") + entry(2, "err\n", ERR) + entry(4, "out 3\n"))
    assert told(folder) == ["out 1", "out 2", "err", "out 3"]
    assert transcript.returns == 0


def test_lines_after_the_clock_was_set_back_are_kept(
    transcript: Transcript, folder: LogFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcript.take(entry(3600, "before\n"))
    monkeypatch.setattr(time, "time_ns", lambda: (NOON + 2) * 10**9)
    transcript.take(entry(1, "after\n") + entry(2, "and after\n"))
    assert told(folder) == ["before", "after", "and after"]
    assert transcript.returns == 0


def test_the_parts_of_a_line_outlive_a_lost_connection(
    open_transcript: Callable[[], Transcript], folder: LogFolder
) -> None:
    data = entry(1, "first ") + entry(1, "second ") + entry(9, "other\n", ERR) + entry(1, "third\n")
    for cut in range(0, len(data), 9):
        transcript = open_transcript()
        transcript.take(data[:cut])
        if cut % 2:  # the connection alone is lost
            transcript.rewind()
            transcript.take(data[: cut // 2])
        transcript.close()
    last = open_transcript()
    assert int(last.since.partition(".")[0]) <= NOON + 1
    last.take(data)
    assert sorted(told(folder)) == ["first second third", "other"]


def test_reading_goes_on_near_the_end_where_one_channel_is_silent(transcript: Transcript) -> None:
    for at in range(100):
        transcript.take(entry(at, "x\n"))
    assert NOON + 90 < float(transcript.since) < NOON + 99


def test_the_last_words_need_no_end(transcript: Transcript, folder: LogFolder) -> None:
    transcript.take(entry(1, "out of mem") + entry(2, "oh", ERR))
    assert told(folder) == []
    transcript.finish()
    assert told(folder) == ["out of mem", "oh"]


def test_dockers_own_trouble_is_no_line(transcript: Transcript, folder: LogFolder) -> None:
    trouble = b"Error grabbing logs: unexpected EOF\n"
    with pytest.raises(OSError, match="grabbing"):
        transcript.take(struct.pack(">BxxxL", 3, len(trouble)) + trouble)
    assert told(folder) == []


def test_what_a_full_disk_did_not_take_is_read_again(
    transcript: Transcript, folder: LogFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    transcript.take(entry(1, "one\n"))
    with monkeypatch.context() as patch:
        patch.setattr(transcript._writer, "write_all", full)
        with pytest.raises(OSError, match="space"):
            transcript.take(entry(2, "two\n"))
    transcript.rewind()
    transcript.take(entry(1, "one\n") + entry(2, "two\n"))
    assert told(folder) == ["one", "two"]


def test_many_entries_are_written_at_once(
    transcript: Transcript, folder: LogFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    write_all = transcript._writer.write_all
    monkeypatch.setattr(transcript._writer, "write_all", lambda lines: (writes.append(len(lines)), write_all(lines)))
    transcript.take(b"".join(entry(1 + number * 1e-7, f"{number}\n") for number in range(1000)))
    assert writes == [1000]
    assert told(folder) == [str(number) for number in range(1000)]


def test_a_page_is_of_one_container_alone(tmp_path: Path, transcript: Transcript) -> None:
    transcript.take(entry(1, "one\n"))
    page = Page(tmp_path / "page")
    assert page.names() == ("/g", "s")
    assert page.begin(KEPT)[OUT] == Cursor((NOON + 1) * 10**9, 1)
    assert set(page.begin(Kept("0b", "/g", "s", ())).values()) == {Cursor()}
    assert Page(tmp_path / "none").names() is None
