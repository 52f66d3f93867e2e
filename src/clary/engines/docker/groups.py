"""The processes of a container, as far as they are this machine's: Docker has its id in their control groups' names."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from clary.engines.posix import PROC


def holds(container_id: str, process: Path) -> bool:
    """Tell whether a container has a process. Raises OSError where it has ended, or is somebody else's."""
    return container_id in (process / "cgroup").read_text()


def members(container_id: str) -> set[int]:
    """Give the processes of a container by their numbers on this machine."""
    found = set()
    for process in PROC.glob("[0-9]*"):
        with suppress(OSError):
            if holds(container_id, process):
                found.add(int(process.name))
    return found
