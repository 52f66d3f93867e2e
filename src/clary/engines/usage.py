"""What the processes of a container use: from its control groups, else from /proc."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from clary.core.containers import Usage
from clary.engines import posix
from clary.engines.instance_types import limits

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MACHINE = _PAGE * os.sysconf("SC_PHYS_PAGES")


def measure(pids: Iterable[int], groups: Sequence[Path], instance_type: str, disk: Path) -> Usage:
    """Give what these processes use, of what their instance type has; `disk` is a folder on the disk they write to."""
    bounds = limits(instance_type)
    members = list(pids)
    cpu = _first(_group_cpu(group) for group in groups)
    memory = _first(_group_memory(group) for group in groups)
    return Usage(
        cpu_seconds=sum(map(_cpu, members)) if cpu is None else cpu,
        memory=int(sum(map(_memory, members)) if memory is None else memory),
        memory_limit=min(bounds.memory, _MACHINE) if bounds else _MACHINE,
        disk_percent=_disk(disk),
    )


def _first(found: Iterable[float | None]) -> float | None:
    return next((each for each in found if each is not None), None)


def _group_cpu(group: Path) -> float | None:
    """Give the seconds of a group, of version 2 or 1; None where it does not count them."""
    if (micros := _field(group / "cpu.stat", "usage_usec")) is not None:
        return micros / 1e6
    nanos = _number(group / "cpuacct.usage")
    return None if nanos is None else nanos / 1e9


def _group_memory(group: Path) -> float | None:
    """Give the bytes of a group without the file cache that the kernel would give away at once."""
    used = _number(group / "memory.current")
    cache = "inactive_file"
    if used is None:
        used, cache = _number(group / "memory.usage_in_bytes"), "total_inactive_file"
    return None if used is None else max(0.0, used - (_field(group / "memory.stat", cache) or 0.0))


def _number(file: Path) -> float | None:
    try:
        return float(file.read_text())
    except (OSError, ValueError):
        return None


def _field(file: Path, name: str) -> float | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((float(line.partition(" ")[2]) for line in lines if line.partition(" ")[0] == name), None)


def _cpu(pid: int) -> float:
    """Give a process's seconds and those of its children that have ended; 0 for one that is gone."""
    try:
        text = (posix.PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, text[text.rindex(")") + 2 :].split()[11:15])) / _TICKS


def _memory(pid: int) -> float:
    """Give a process's resident memory without what it shares: a server's workers share their model."""
    try:
        _, resident, shared, *_ = map(int, (posix.PROC / str(pid) / "statm").read_text().split())
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return 0.0
    return float((resident - shared) * _PAGE)


def _disk(folder: Path) -> float:
    total, used, _ = shutil.disk_usage(folder)
    return 100.0 * used / total if total else 0.0
