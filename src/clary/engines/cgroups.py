"""Limits by control groups, as far as this machine lets us.

Groups are made only where we were given the right: in a hierarchy's root, or below a group that systemd delegated or
that belongs to our user. Another's group (a container runtime's, a supervisor's) is not divided behind its back.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clary.engines.instance_types import GIB, Limits

CONTROLLERS = ("cpu", "memory")
MEMBERS = "cgroup.procs"
_PERIOD = 100_000


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A group below which containers' groups can be made, and which of cpu and memory they limit."""

    version: int
    controllers: tuple[str, ...]
    base: Path


class ControlGroups:
    """Where containers' groups are made."""

    def __init__(self, hierarchies: Sequence[Hierarchy]) -> None:
        self._hierarchies = tuple(hierarchies)

    @property
    def limited(self) -> frozenset[str]:
        """Which of cpu and memory can be limited."""
        return frozenset(name for hierarchy in self._hierarchies for name in hierarchy.controllers)

    @property
    def notes(self) -> tuple[str, ...]:
        """What cannot be enforced, in sentences."""
        missing = [name for name in CONTROLLERS if name not in self.limited]
        if not missing:
            return ()
        what = " and ".join({"cpu": "CPU", "memory": "memory"}[name] for name in missing)
        return (
            f"{what[0].upper()}{what[1:]} of models is not limited by instance type: no control group was delegated "
            "to Clary (under systemd: Delegate=yes and DelegateSubgroup=).",
        )

    def create(self, id: str, limits: Limits | None) -> list[Path]:
        """Make a container's groups and give their directories.

        Where the machine refuses, only the limits are lost: that group is not among them.
        """
        groups = []
        for hierarchy in self._hierarchies:
            group = hierarchy.base / id
            try:
                _make(hierarchy)
                group.mkdir(exist_ok=True)
                for name, value in _values(hierarchy, limits):
                    (group / name).write_text(value)
            except OSError:
                with contextlib.suppress(OSError):
                    group.rmdir()
                continue
            groups.append(group)
        return groups

    def retain(self, ids: Collection[str]) -> None:
        """Remove the groups of all other containers: an earlier life died before it had written down what they are."""
        for hierarchy in self._hierarchies:
            remove([group for group in hierarchy.base.glob("*/") if group.name not in ids])


def members(groups: Sequence[Path]) -> set[int]:
    """Give the processes that are in the groups, whichever session they went to."""
    return {int(pid) for group in groups for pid in _lines(group / MEMBERS)}


def remove(groups: Sequence[Path]) -> None:
    """Remove the groups, and with the last one what they were made in; one that is still in use stays."""
    for group in groups:
        with contextlib.suppress(OSError):
            group.rmdir()
            group.parent.rmdir()


def memory_kills(groups: Sequence[Path]) -> int:
    """Count the processes that were killed for memory."""
    for group in groups:
        for file in ("memory.events", "memory.oom_control"):
            for line in _lines(group / file):
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def discover(folder: str, proc: Path = Path("/proc/self")) -> ControlGroups:
    """Find out where groups can be made, in a group `folder` that is there as long as it is needed."""
    mounts = _mounts(proc)
    found = []
    for line in _lines(proc / "cgroup"):
        _, names, path = line.split(":", 2)
        wanted = tuple(name for name in names.split(",") if name in CONTROLLERS)
        mount = mounts.get(names or "unified")
        if mount is None or (names and not wanted):
            continue
        own = mount / path.lstrip("/")
        with contextlib.suppress(OSError):
            found += _second(mount, own, folder) if not names else _first(mount, own, folder, wanted)
    return ControlGroups(found)


def describe(limit: int) -> str:
    """Write a memory limit as in AWS's tables: `8 GiB`."""
    return f"{limit / GIB:g} GiB"


def _first(mount: Path, own: Path, folder: str, controllers: tuple[str, ...]) -> list[Hierarchy]:
    return [Hierarchy(1, controllers, own / folder)] if _given(mount, own) else []


def _second(mount: Path, own: Path, folder: str) -> list[Hierarchy]:
    """Version 2: a group with processes of its own cannot hand controllers down, so our parent is tried too."""
    for parent in (own, own.parent) if own != mount else (own,):
        available = [name for name in CONTROLLERS if name in (parent / "cgroup.controllers").read_text().split()]
        if not available or not _given(mount, parent):
            continue
        hierarchy = Hierarchy(2, tuple(available), parent / folder)
        try:
            _make(hierarchy)
        except OSError:
            continue
        finally:
            with contextlib.suppress(OSError):  # absent, or in use by containers of an earlier life
                hierarchy.base.rmdir()
        return [hierarchy]
    return []


def _make(hierarchy: Hierarchy) -> None:
    hierarchy.base.mkdir(exist_ok=True)
    if hierarchy.version == 2:
        for group in (hierarchy.base.parent, hierarchy.base):
            (group / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in hierarchy.controllers))


def _given(mount: Path, group: Path) -> bool:
    """Tell whether the group is ours to divide."""
    if not os.access(group, os.W_OK):
        return False
    if group == mount or (os.geteuid() != 0 and group.stat().st_uid == os.geteuid()):
        return True
    marks = []
    with contextlib.suppress(OSError):
        marks = os.listxattr(group)
    return "trusted.delegate" in marks or "user.delegate" in marks


def _values(hierarchy: Hierarchy, limits: Limits | None) -> Iterator[tuple[str, str]]:
    if limits is None:
        return
    quota = int(limits.cpus * _PERIOD)
    if "cpu" in hierarchy.controllers:
        if hierarchy.version == 2:
            yield "cpu.max", f"{quota} {_PERIOD}"
        else:
            yield "cpu.cfs_period_us", str(_PERIOD)
            yield "cpu.cfs_quota_us", str(quota)
    if "memory" in hierarchy.controllers:
        yield ("memory.max" if hierarchy.version == 2 else "memory.limit_in_bytes"), str(limits.memory)


def _mounts(proc: Path) -> dict[str, Path]:
    """Give the mount point of each hierarchy, by its controllers as /proc/self/cgroup lists them."""
    mounts = {}
    for line in _lines(proc / "mountinfo"):
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ")[:3]
        place = Path(before.split(" ")[4])
        if kind == "cgroup2":
            mounts["unified"] = place
        elif kind == "cgroup":
            names = [name for name in options.split(",") if name in ("cpu", "cpuacct", "memory")]
            mounts[",".join(names)] = place
    return mounts


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
