"""How much memory models take, and how much they may.

A model's memory is what its processes share with nobody (resident, or swapped out): what unloading it gives back. What
it shares with the nursery, the framework above all, is there once for all models.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from pathlib import Path

MIB = 1024 * 1024
# A process with a small model, until one has been measured.
FIRST_GUESS = 8 * MIB
# What a container may use is not all for models at rest: invocations need some too.
FOR_MODELS = 0.9
# What a front worker or the keeper takes besides what it shares.
HELPER = 16 * MIB

_OWN = ("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:", "Swap:")


def own(pid: int) -> int:
    """Measure a process: bytes that it has for itself; 0 where it is gone. Takes a few milliseconds."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = (line.split() for line in text.splitlines())
    return sum(int(words[1]) * 1024 for words in fields if words[0] in _OWN)


def resident(pid: int) -> int:
    """Measure all that a process has in memory, shared or not, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def size_of(folder: Path) -> int:
    """Add up the files of a model, in bytes."""
    return sum((Path(where) / name).lstat().st_size for where, _, names in os.walk(folder) for name in names)


def for_models(environment: Mapping[str, str], helpers: int) -> int:
    """Give how many bytes the models of this container may take together.

    `CLARY_SERVING_MODEL_MEMORY_MB` says so. Else it is 0.9 of what the container has (of its control group, of
    `CLARY_SERVING_MEMORY_MB`, which the platform sets by the instance type, of the machine: the least of these), less
    what the server itself takes. Raises ValueError for what is no number.
    """
    if told := environment.get("CLARY_SERVING_MODEL_MEMORY_MB"):
        return int(told) * MIB
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *group_limits()]
    if told := environment.get("CLARY_SERVING_MEMORY_MB"):
        limits.append(int(told) * MIB)
    return max(0, int(min(limits) * FOR_MODELS) - resident(os.getpid()) - helpers * HELPER)


def group_limits(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Give the limits, in bytes, of the memory control group that this process is in, and of those around it."""
    found = []
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, file = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, file = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = base / path.lstrip("/")
        for place in (group, *group.parents):
            limit = place / file
            text = limit.read_text().strip() if limit.is_file() else "max"
            if text != "max":
                found.append(int(text))
            if place == base:
                break
    return found


class Budget:
    """Who holds how much of what there is for models. Bytes. `processes` is how many each model has."""

    def __init__(self, total: int, processes: int = 1) -> None:
        self.total = total
        self._processes = processes
        self._held: dict[Hashable, int] = {}
        self._known: dict[str, int] = {}  # what each model took when it was last seen

    @property
    def over(self) -> bool:
        return sum(self._held.values()) > self.total

    def admit(self, holder: Hashable, name: str, files: int) -> bool:
        """Set memory aside for a model that is going to be loaded, if there is any.

        For one that was here before it is what it took then; else, for each process, its files and what a process
        takes. Where nothing else is loaded every model is tried: a guess must not keep one out for good.
        """
        expected = self._known.get(name) or self._processes * files + min(self._known.values(), default=self._guess)
        if self._held and sum(self._held.values()) + expected > self.total:
            return False
        self._held[holder] = min(expected, self.total)
        return True

    def grow(self, holder: Hashable, name: str, measured: int) -> None:
        """Note what a model takes that is not there yet: no less than what was set aside for it."""
        self._held[holder] = max(self._held.get(holder, 0), measured)
        self._known[name] = max(self._known.get(name, 0), measured)

    def hold(self, holder: Hashable, name: str, measured: int) -> None:
        """Note what a loaded model takes."""
        self._held[holder] = self._known[name] = measured

    def held(self, holder: Hashable) -> int:
        return self._held.get(holder, 0)

    def release(self, holder: Hashable) -> None:
        self._held.pop(holder, None)

    @property
    def _guess(self) -> int:
        return self._processes * FIRST_GUESS
