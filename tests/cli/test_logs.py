"""Logs: the last lines of every file, and what is written after."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from clary.cli import logs
from clary.cli.main import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "logs" / "endpoints" / "tide"
    for variant, instance, text in (("blue", "i-1", "a\nb\nc\n"), ("green", "i-2", "d\n")):
        (folder / variant).mkdir(parents=True)
        (folder / variant / f"{instance}.log").write_text(text)
    return folder


def run(data: Path, *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["logs", *arguments, "--data", str(data)])
    return result.exit_code, result.stdout, result.stderr


def test_lines_are_prefixed_by_variant_and_instance(folder: Path, tmp_path: Path) -> None:
    code, out, _ = run(tmp_path, "tide")
    assert code == 0
    assert sorted(out.splitlines()) == ["blue/i-1  a", "blue/i-1  b", "blue/i-1  c", "green/i-2  d"]


def test_lines_and_variant_limit_the_output(folder: Path, tmp_path: Path) -> None:
    assert run(tmp_path, "tide", "--variant", "blue", "--lines", "2")[1].splitlines() == ["blue/i-1  b", "blue/i-1  c"]


def test_an_unknown_endpoint_is_one_line_that_names_the_known_ones(folder: Path, tmp_path: Path) -> None:
    code, out, err = run(tmp_path, "ebb")
    assert (code, out) == (1, "")
    assert err.startswith("clary: no logs of endpoint ebb") and err.rstrip().endswith("there are logs of: tide")
    assert err.count("\n") == 1


@pytest.mark.parametrize("lines", [0, 1, 5, 40_000])
def test_tail_gives_the_last_lines_of_a_file_longer_than_a_chunk(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "x.log"
    everything = [f"line {n}" for n in range(20_000)]
    path.write_text("\n".join(everything) + "\nhalf")
    texts, offset = logs.tail(path, lines)
    assert texts == everything[-lines:] if lines else texts == []
    assert path.read_bytes()[offset:] == b"half"


def test_a_follower_gives_complete_lines_once(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("one\ntw")
    follower = logs.Follower(path)
    assert list(follower.new_lines()) == ["one"]
    assert list(follower.new_lines()) == []
    with path.open("a") as file:
        file.write("o\n")
    assert list(follower.new_lines()) == ["two"]


def test_a_follower_survives_rotation_truncation_and_removal(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("one\n")
    follower = logs.Follower(path)
    assert list(follower.new_lines()) == ["one"]
    path.rename(tmp_path / "x.log.1")
    assert list(follower.new_lines()) == []
    path.write_text("a longer first line\n")
    assert list(follower.new_lines()) == ["a longer first line"]
    path.write_text("cut\n")
    assert list(follower.new_lines()) == ["cut"]


def test_following_shows_new_files_and_ends_well_on_ctrl_c(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def next_round(_: float) -> None:
        new = folder / "blue" / "i-3.log"
        if new.exists():
            raise KeyboardInterrupt
        new.write_text("born late\n")

    monkeypatch.setattr(logs.time, "sleep", next_round)
    code, out, _ = run(tmp_path, "tide", "-f", "--lines", "0")
    assert (code, out) == (0, "blue/i-3  born late\n")
