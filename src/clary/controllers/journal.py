"""Which loads of models are under way, in files: what was cut off by a crash is known to the next life."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

LARGEST = 64 * 1024
"""Bytes after which a file begins anew, at a moment in which nothing is under way."""


class LoadJournal:
    """Implements `controllers.loader.Journal`: a file for each container, to which `+model` and `-model` are added.

    A file that is made and removed for each load would cost more than all else that is noted of it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._under_way: defaultdict[str, set[str]] = defaultdict(set)
        root.mkdir(parents=True, exist_ok=True)

    def begin(self, container: str, model: str) -> None:
        self._note(container, "+", model)
        self._under_way[container].add(model)

    def end(self, container: str, model: str) -> None:
        size = self._note(container, "-", model)
        self._under_way[container].discard(model)
        if size > LARGEST and not self._under_way[container]:
            os.truncate(self._root / container, 0)

    def interrupted(self, container: str) -> Collection[str]:
        file = self._root / container
        found: dict[str, None] = {}
        # What follows the last end of a line was never written as a whole.
        for line in file.read_text().split("\n")[:-1] if file.exists() else ():
            if line.startswith("+"):
                found[line[1:]] = None
            else:
                found.pop(line[1:], None)
        return found.keys()

    def forget(self, container: str) -> None:
        self._under_way.pop(container, None)
        (self._root / container).unlink(missing_ok=True)

    def _note(self, container: str, sign: str, model: str) -> int:
        """Add a line, and give the bytes that there are."""
        with (self._root / container).open("ab") as file:
            file.write(f"{sign}{model}\n".encode())
            return file.tell()
