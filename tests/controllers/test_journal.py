"""The journal of loads: what was begun and not ended is known to the next life, and to no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from clary.controllers import journal as module
from clary.controllers.journal import LoadJournal


def test_what_was_cut_off_is_known_to_the_next_life(tmp_path: Path) -> None:
    first = LoadJournal(tmp_path / "loads")
    for model in ("a", "b", "c", "a"):
        first.begin("box", model)
    first.begin("other", "x")
    first.end("box", "b")
    second = LoadJournal(tmp_path / "loads")
    assert sorted(second.interrupted("box")) == ["a", "c"]
    assert list(second.interrupted("other")) == ["x"]
    assert list(second.interrupted("unknown")) == []
    for model in ("a", "c"):
        second.end("box", model)
    assert list(LoadJournal(tmp_path / "loads").interrupted("box")) == []


def test_a_container_that_is_gone_leaves_nothing(tmp_path: Path) -> None:
    journal = LoadJournal(tmp_path)
    journal.begin("box", "a")
    journal.forget("box")
    journal.forget("unknown")
    assert list(tmp_path.iterdir()) == []
    journal.begin("box", "b")
    assert list(journal.interrupted("box")) == ["b"]


def test_half_a_line_is_none(tmp_path: Path) -> None:
    (tmp_path / "box").write_text("+a\n+b")
    assert list(LoadJournal(tmp_path).interrupted("box")) == ["a"]


def test_its_size_is_bounded_and_what_is_under_way_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 100)
    journal = LoadJournal(tmp_path)
    journal.begin("box", "kept")
    for _ in range(50):
        journal.begin("box", "a")
        journal.end("box", "a")
    assert list(LoadJournal(tmp_path).interrupted("box")) == ["kept"]
    journal.end("box", "kept")
    for _ in range(50):
        journal.begin("box", "a")
        journal.end("box", "a")
    assert (tmp_path / "box").stat().st_size < 110
    journal.begin("box", "last")
    assert list(LoadJournal(tmp_path).interrupted("box")) == ["last"]
