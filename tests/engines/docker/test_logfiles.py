"""Logs as engines write them to the disk: nothing is left out, however files are replaced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.engines.docker import logfiles
from clary.engines.docker.logfiles import LogFiles

DAY = "2026-11-29T09:00:00"
NOON = 1_795_942_800 * 10**9


def docker(number: int, text: str = "", stream: str = "stdout") -> bytes:
    """Write an entry as Docker does; `number`: microseconds after nine."""
    stamp = f"{DAY}.{number:06d}Z"
    return json.dumps({"log": f"{text or number}\n", "stream": stream, "time": stamp}).encode() + b"\n"


def texts(frames: bytes) -> Iterator[tuple[int, str]]:
    """Give channel and text of each entry, the time left out."""
    while frames:
        length = int.from_bytes(frames[4:8], "big")
        yield frames[0], frames[8 : 8 + length].decode().partition(" ")[2]
        frames = frames[8 + length :]


def all_of(files: LogFiles) -> list[int]:
    found: list[int] = []
    while data := files.read():
        found += [int(text) for _, text in texts(data)]
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c-json.log"


def replace(path: Path) -> None:
    """Do what Docker does with two files."""
    path.replace(path.with_name(f"{path.name}.1"))
    path.touch()


@given(
    steps=st.lists(st.sampled_from(("write", "write", "replace", "read")), max_size=40),
    kept=st.booleans(),
    chunk=st.integers(1, 400),
)
def test_every_entry_is_read_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], kept: bool, chunk: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    path.touch()
    written, got, unread = 0, [], 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logfiles, "_CHUNK", chunk)
        files = LogFiles(path, 0)
        assert files.open() is None
        for step in steps:
            if step == "write":
                written += 1
                with path.open("ab") as log:
                    log.write(docker(written))
            elif step == "replace" and not unread:
                unread += 1  # once between looks, which is many megabytes
                if kept:
                    replace(path)
                else:  # as Podman does
                    path.unlink()
                    path.touch()
            elif step == "read":
                unread = 0
                got += [int(text) for _, text in texts(files.read())]
        got += all_of(files)
        files.close()
    assert got == list(range(1, written + 1))


def test_reading_begins_near_a_time_in_whichever_file_it_is(path: Path) -> None:
    path.with_name(f"{path.name}.1").write_bytes(b"".join(map(docker, range(5_000))))
    path.write_bytes(b"".join(map(docker, range(5_000, 10_000))))
    for since in (0, 1, 2_500, 4_999, 5_000, 7_777, 9_999, 20_000):
        files = LogFiles(path, NOON + since * 1000)
        files.open()
        found = all_of(files)
        files.close()
        assert found[-1] == 9_999
        assert found == list(range(found[0], 10_000))
        assert found[0] <= since < found[0] + 2_000 or since == 20_000


def test_the_oldest_time_tells_what_was_missed(path: Path) -> None:
    path.write_bytes(docker(7) + docker(9))
    files = LogFiles(path, NOON + 3_000)
    assert files.open() == NOON + 7_000
    files.close()


def test_channels_torn_lines_and_foreign_ones(path: Path) -> None:
    path.write_bytes(docker(1, "out") + b'{"log":"torn' + b"\n\0\0\0\n[]\n" + docker(2, "err", "stderr") + b'{"log"')
    files = LogFiles(path, 0)
    files.open()
    assert list(texts(files.read())) == [(1, "out\n"), (2, "err\n")]
    assert files.read() == b""
    with path.open("ab") as log:
        log.write(docker(3, "whole")[6:])
    assert list(texts(files.read())) == [(1, "whole\n")]
    files.close()


def test_podmans_lines_with_offsets_and_parts(path: Path) -> None:
    path.write_bytes(
        b"2026-11-29T11:00:00.000000007+02:00 stdout F a line\n"
        b"2026-11-29T09:00:00.000000008+00:00 stderr P begun, \n"
        b"2026-11-29T03:30:00.000000009-05:30 stderr F and ended\n"
    )
    files = LogFiles(path, 0)
    assert files.open() == NOON + 7
    data = files.read()
    assert [text for _, text in texts(data)] == ["a line\n", "begun, ", "and ended\n"]
    assert [channel for channel, _ in texts(data)] == [1, 2, 2]
    assert [f"{DAY}.00000000{number}Z".encode() in data for number in (7, 8, 9)] == [True] * 3
    files.close()


def test_what_waits_is_bounded_and_what_is_given_up_is_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfiles, "_CHUNK", 1)
    path.write_bytes(docker(0))
    files = LogFiles(path, 0)
    files.open()
    for number in range(1, 30):
        replace(path)
        path.write_bytes(docker(number))
        files._notice()
    assert files.skipped == 10
    assert all_of(files) == list(range(10, 30))
    files.close()


def test_a_file_that_is_not_there_or_no_file_is_an_oserror(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path, Path()):
        files = LogFiles(path, 0)
        with pytest.raises(OSError):
            files.open()
        files.close()
