"""Control groups, on a copy of what the kernel would show."""

from __future__ import annotations

from pathlib import Path

import pytest

from clary.engines import cgroups
from clary.engines.instance_types import GIB, Limits

BOUNDS = Limits(2, 8 * GIB)


def machine(tmp_path: Path, groups: str, *mounts: tuple[str, str, str]) -> Path:
    """Write a /proc/self whose hierarchies are folders below tmp_path."""
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(groups)
    lines = [f"1 2 0:1 / {tmp_path / name} rw - {kind} x {options}" for name, kind, options in mounts]
    (proc / "mountinfo").write_text("\n".join(lines))
    for name, _, _ in mounts:
        (tmp_path / name).mkdir(parents=True)
    return proc


def test_version_1_limits_where_the_root_is_ours(tmp_path: Path) -> None:
    mounts = (("cpu", "cgroup", "rw,cpu,cpuacct"), ("memory", "cgroup", "rw,memory"))
    proc = machine(tmp_path, "2:cpu,cpuacct:/\n3:memory:/\n1:name=systemd:/", *mounts)
    found = cgroups.discover("clary-1", proc)
    assert found.limited == {"cpu", "memory"}
    assert found.notes == ()
    assert found.create("c", BOUNDS) == [tmp_path / "cpu/clary-1/c", tmp_path / "memory/clary-1/c"]
    assert (tmp_path / "cpu/clary-1/c/cpu.cfs_quota_us").read_text() == "200000"
    assert (tmp_path / "memory/clary-1/c/memory.limit_in_bytes").read_text() == str(8 * GIB)


def test_anothers_group_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proc = machine(tmp_path, "3:memory:/theirs", ("memory", "cgroup", "rw,memory"))
    (tmp_path / "memory" / "theirs").mkdir()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    found = cgroups.discover("clary-1", proc)
    assert found.create("c", BOUNDS) == []
    assert "CPU and memory of models is not limited" in found.notes[0]


def test_version_2_limits_where_controllers_are_handed_down(tmp_path: Path) -> None:
    proc = machine(tmp_path, "0::/", ("all", "cgroup2", "rw"))
    (tmp_path / "all" / "cgroup.controllers").write_text("cpuset cpu memory pids")
    found = cgroups.discover("clary-1", proc)
    assert found.limited == {"cpu", "memory"}
    (group,) = found.create("c", BOUNDS)
    assert (group / "cpu.max").read_text() == "200000 100000"
    assert (group / "memory.max").read_text() == str(8 * GIB)
    assert (tmp_path / "all" / "clary-1" / "cgroup.subtree_control").read_text() == "+cpu +memory"


def test_groups_that_no_container_has_are_removed(tmp_path: Path) -> None:
    proc = machine(tmp_path, "3:memory:/", ("memory", "cgroup", "rw,memory"))
    found = cgroups.discover("clary-1", proc)
    (kept,), (lost,) = found.create("kept", None), found.create("lost", None)
    found.retain({"kept"})
    assert (kept.exists(), lost.exists()) == (True, False)
    found.retain(())
    assert not (tmp_path / "memory" / "clary-1").exists()


@pytest.mark.parametrize(
    ("file", "text"),
    [("memory.events", "low 0\noom 3\noom_kill 2\n"), ("memory.oom_control", "oom_kill_disable 0\noom_kill 2\n")],
)
def test_kills_for_memory_are_counted(tmp_path: Path, file: str, text: str) -> None:
    assert cgroups.memory_kills([tmp_path]) == 0
    (tmp_path / file).write_text(text)
    assert cgroups.memory_kills([tmp_path]) == 2
