"""Space at the head of a file that somebody appends to is given back."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from clary.logs import holes
from clary.logs.lines import head


def test_a_hole_frees_space_and_moves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "s.log"
    with file.open("ab", buffering=0) as writer:
        writer.write(b"old line\n" * 100_000)
        os.fsync(writer.fileno())
        before = file.stat()
        assert holes.cut(file, 899_991) == 899_991
        writer.write(b"new line\n")
    os.sync()
    assert file.stat().st_size == before.st_size + 9
    assert file.stat().st_blocks < before.st_blocks / 10
    assert head(file) == 899_991
    assert file.read_bytes()[899_991:] == b"old line\nnew line\n"


def test_without_holes_the_end_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        holes.ctypes.set_errno(errno.EOPNOTSUPP)
        return -1

    monkeypatch.setattr(holes, "_fallocate", refused)
    file = tmp_path / "s.log"
    with file.open("ab", buffering=0) as writer:
        writer.write(b"one\ntwo\n")
        assert holes.cut(file, 4) == 0
        writer.write(b"three\n")
    assert file.read_bytes() == b"two\nthree\n"


def test_other_failures_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        holes.ctypes.set_errno(errno.ENOSPC)
        return -1

    monkeypatch.setattr(holes, "_fallocate", full)
    (tmp_path / "s.log").write_bytes(b"one\n")
    with pytest.raises(OSError, match="No space left"):
        holes.cut(tmp_path / "s.log", 4)
