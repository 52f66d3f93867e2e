"""Logs: the last lines of every container, and what is written after."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from clary.cli import logs
from clary.cli.main import main
from clary.core.resources import log_group
from clary.logs.folder import LogFolder

GROUP = log_group("tide")
NOON = 1_800_000_000_000
"""Milliseconds since the epoch: 2027-01-15T08:00:00Z."""


@pytest.fixture
def folder(tmp_path: Path) -> LogFolder:
    folder = LogFolder(tmp_path / "logs")
    for stream, text in (("blue/i-1", "a\nb\nc\n"), ("green/i-2", "d\n")):
        folder.ensure(GROUP, stream).write_text(text)
    return folder


def run(data: Path, *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["logs", *arguments, "--data", str(data)])
    return result.exit_code, result.stdout, result.stderr


def test_lines_are_prefixed_by_variant_and_instance(folder: LogFolder, tmp_path: Path) -> None:
    code, out, _ = run(tmp_path, "tide")
    assert code == 0
    assert sorted(out.splitlines()) == ["blue/i-1  a", "blue/i-1  b", "blue/i-1  c", "green/i-2  d"]


def test_a_pipelines_containers_are_told_apart(folder: LogFolder, tmp_path: Path) -> None:
    for name in ("first", "second"):
        folder.ensure(GROUP, f"red/i-3/{name}").write_text(f"I am {name}\n")
    _, out, _ = run(tmp_path, "tide", "--variant", "red")
    assert sorted(out.splitlines()) == ["red/i-3/first  I am first", "red/i-3/second  I am second"]


def test_the_lines_of_several_containers_are_in_the_order_of_their_times(folder: LogFolder, tmp_path: Path) -> None:
    for name, seconds in (("first", (0, 3)), ("second", (1, 2))):
        with folder.writer(GROUP, f"red/i-3/{name}") as writer:
            for second in seconds:
                writer.write(NOON + second * 1000, str(second).encode())
    _, out, _ = run(tmp_path, "tide", "--variant", "red")
    assert out.split() == ["red/i-3/first", "0", "red/i-3/second", "1", "red/i-3/second", "2", "red/i-3/first", "3"]


def test_lines_and_variant_limit_the_output(folder: LogFolder, tmp_path: Path) -> None:
    assert run(tmp_path, "tide", "--variant", "blue", "--lines", "2")[1].splitlines() == ["blue/i-1  b", "blue/i-1  c"]
    assert run(tmp_path, "tide", "--variant", "bl", "--lines", "2")[0] == 1


def test_an_unknown_endpoint_is_one_line_that_names_the_known_ones(folder: LogFolder, tmp_path: Path) -> None:
    code, out, err = run(tmp_path, "ebb")
    assert (code, out) == (1, "")
    assert (
        err.startswith("clary: no logs of endpoint ebb")
        and "clary doctor ebb" in err
        and err.rstrip().endswith("there are logs of: tide")
    )
    assert err.count("\n") == 1


def test_since_filter_and_timestamps(folder: LogFolder, tmp_path: Path) -> None:
    with folder.writer(GROUP, "red/i-3") as writer:
        for second, line in enumerate((b"INFO start", b"ERROR one", b"ERROR two", b"INFO end")):
            writer.write(NOON + second * 1000, line)
    red = ("tide", "--variant", "red")
    assert run(tmp_path, *red, "--filter", "ERROR -one")[1] == "red/i-3  ERROR two\n"
    assert run(tmp_path, *red, "--since", "2027-01-15T08:00:02Z")[1] == "red/i-3  ERROR two\nred/i-3  INFO end\n"
    assert run(tmp_path, *red, "--lines", "1", "--timestamps")[1] == "2027-01-15T08:00:03.000Z red/i-3  INFO end\n"
    assert run(tmp_path, "tide", "--since", "10m")[1].count("\n") == 8  # all were written just now, or later
    for wrong in (("--since", "soon"), ("--filter", "{ a }")):
        code, _, err = run(tmp_path, "tide", *wrong)
        assert code == 2 and wrong[0] in err


def test_a_progress_bar_shows_its_last_state_and_nothing_steers_the_terminal(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path / "logs")
    folder.ensure(GROUP, "blue/i-1").write_bytes(b"10%\r50%\r100%\r\n\x1b]0;owned\x07\n")
    assert run(tmp_path, "tide")[1] == "blue/i-1  100%\nblue/i-1  \ufffd]0;owned\ufffd\n"


def test_following_gives_complete_lines_once_also_after_the_log_was_emptied(folder: LogFolder) -> None:
    path = folder.path(GROUP, "blue/i-1")
    positions: dict[str, int] = {}

    def new() -> list[str]:
        stream = folder.stream(GROUP, "blue/i-1")
        return [] if stream is None else [event.message for event in logs.new_events(stream, positions)]

    path.write_text("one\ntw")
    assert new() == ["one"]
    assert new() == []
    with path.open("a") as file:
        file.write("o\n")
    assert new() == ["two"]
    path.write_text("cut\n")
    assert new() == ["cut"]
    path.unlink()
    assert new() == []


def test_following_shows_new_containers_and_ends_well_on_ctrl_c(
    folder: LogFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def next_round(_: float) -> None:
        if folder.stream(GROUP, "blue/i-3"):
            raise KeyboardInterrupt
        folder.ensure(GROUP, "blue/i-3").write_text("born late\n")

    monkeypatch.setattr(logs.time, "sleep", next_round)
    code, out, _ = run(tmp_path, "tide", "-f", "--lines", "0")
    assert (code, out) == (0, "blue/i-3  born late\n")


def test_the_last_words_of_a_process_that_was_killed_show_without_an_end(folder: LogFolder, tmp_path: Path) -> None:
    path = folder.path(GROUP, "blue/i-1")
    path.write_text("fine\nmemory exhau")
    assert run(tmp_path, "tide", "--variant", "blue")[1] == "blue/i-1  fine\n"
    long_ago = time.time() - 60
    os.utime(path, (long_ago, long_ago))
    assert run(tmp_path, "tide", "--variant", "blue")[1] == "blue/i-1  fine\nblue/i-1  memory exhau\n"
