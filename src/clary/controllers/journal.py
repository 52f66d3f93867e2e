"""Which loads of models are under way, in files: what was cut off by a crash is known to the next life."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path


class LoadJournal:
    """Implements `controllers.loader.Journal`: an empty file for each load, by container and model."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def begin(self, container: str, model: str) -> None:
        folder = self._root / container
        folder.mkdir(parents=True, exist_ok=True)
        (folder / model).touch()

    def end(self, container: str, model: str) -> None:
        (self._root / container / model).unlink(missing_ok=True)

    def interrupted(self, container: str) -> Collection[str]:
        folder = self._root / container
        return [file.name for file in folder.iterdir()] if folder.exists() else ()

    def forget(self, container: str) -> None:
        shutil.rmtree(self._root / container, ignore_errors=True)
