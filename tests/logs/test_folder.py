"""Groups and streams: made, found, deleted, also while somebody writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from clary.logs.folder import LogFolder

NOON = 1_800_000_000.0


@pytest.fixture
def folder(tmp_path: Path) -> LogFolder:
    return LogFolder(tmp_path / "logs", lambda: NOON)


def test_a_group_is_there_with_its_first_stream(folder: LogFolder) -> None:
    assert (folder.groups(), folder.group("/g"), folder.streams("/g")) == ([], None, [])
    assert folder.create_stream("/g", "a/b")
    assert not folder.create_stream("/g", "a/b")
    group = folder.group("/g")
    assert group is not None and (group.name, group.created) == ("/g", NOON * 1000)
    assert [stream.name for stream in folder.streams("/g")] == ["a/b"]
    assert folder.streams("/g", "b") == []


def test_groups_nest_without_mixing(folder: LogFolder) -> None:
    for group, stream in (("/app", "web/1"), ("/app/web", "1"), ("app", "web/1"), ("/app.log", "x"), ("/", "root")):
        folder.ensure(group, stream).write_text(f"{group} {stream}\n")
    assert [group.name for group in folder.groups()] == ["/", "/app", "/app.log", "/app/web", "app"]
    assert [group.name for group in folder.groups("/app/")] == ["/app/web"]
    assert folder.tail("/app", "web/1", 9) == ["/app web/1"]
    assert folder.tail("/app/web", "1", 9) == ["/app/web 1"]
    folder.delete_group("/app")
    assert [group.name for group in folder.groups()] == ["/", "/app.log", "/app/web", "app"]


def test_a_group_that_somebody_made_stays_without_streams(folder: LogFolder) -> None:
    assert folder.create_group("/g", {"team": "a"}, "key")
    assert not folder.create_group("/g", {})
    group = folder.group("/g")
    assert group is not None
    folder.set_retention(group, 3)
    folder.set_tags(folder.group("/g") or group, {"team": "b"})
    changed = folder.group("/g")
    assert changed is not None
    assert (changed.retention, changed.tags, changed.kms_key, changed.created) == (3, {"team": "b"}, "key", NOON * 1000)


def test_nothing_is_left_of_what_was_deleted(folder: LogFolder, tmp_path: Path) -> None:
    folder.create_group("/a/b", {})
    folder.ensure("/a/b", "s").write_text("line\n")
    folder.delete_group("/a/b")
    folder.delete_group("/a/b")
    assert list((tmp_path / "logs").iterdir()) == []


def test_a_stream_that_is_held_open_comes_back_with_its_next_line(folder: LogFolder) -> None:
    path = folder.ensure("/g", "s")
    with path.open("ab", buffering=0) as process:
        process.write(b"before\n")
        folder.delete_group("/g")
        assert (folder.group("/g"), folder.stream("/g", "s")) == (None, None)
        process.write(b"after\n")
        assert folder.tail("/g", "s", 9) == ["after"]
        assert [group.name for group in folder.groups()] == ["/g"]
    folder.delete_group("/g")
    assert not path.exists()


def test_files_that_are_nobodys_are_no_streams(folder: LogFolder, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "demo.log").write_text("of somebody else\n")
    assert folder.groups() == []
