"""The files of a multi-model container's models: what it sees below /opt/ml/models, placed and discarded while it runs.

`<data>/models/<container>/shown` is what the container is shown, with `<model>/model` in it for each model. A model
comes and goes by one rename: what can be seen is whole.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from collections.abc import Collection
from pathlib import Path
from stat import S_ISREG

from clary.core.containers import ModelData
from clary.engines.fetching import Fetcher, sweep, workplace
from clary.errors import ContainerGone

PLACE = "models"
"""The directory below /opt/ml."""


class ModelFolders:
    """The folders of all containers of one engine."""

    def __init__(self, root: Path, fetcher: Fetcher) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._fetcher = fetcher

    def create(self, container: str) -> Path:
        """Make a container's folders and give the one to be shown."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        shown = self._shown(container)
        shown.mkdir(parents=True, exist_ok=True)
        shown.chmod(0o755)  # whatever our umask says
        return shown

    async def place(self, container: str, model: str, data: ModelData, role_arn: str | None) -> int:
        """Download and unpack a model, unless it is there, and give the bytes that its files have.

        Raises LaunchFailure (download, unpack, size) or Transient, DiskFull and ContainerGone among them.
        """
        shown = self._shown(container) / model
        if shown.exists():
            return await asyncio.to_thread(_size, shown)
        with workplace(self._incoming) as place:
            size = await self._fetcher.bring(data, role_arn, place)
            try:
                place.rename(shown)
            except FileNotFoundError as error:
                raise ContainerGone(f"{container} was stopped") from error
        return size

    async def discard(self, container: str, model: str) -> None:
        """Remove a model's files. Unknown ones are fine."""
        await self._throw_away(self._shown(container) / model)

    async def placed(self, container: str) -> dict[str, int]:
        """Give the bytes of each model whose files are there."""
        folders = self._shown(container).glob("*")
        return await asyncio.to_thread(lambda: {folder.name: _size(folder) for folder in folders})

    async def remove(self, container: str) -> None:
        """Remove all that there is of a container. Unknown ones are fine."""
        await self._throw_away(self._root / container)

    async def retain(self, containers: Collection[str]) -> None:
        """Remove what there is of all other containers, and what a crash left."""
        if not self._root.exists():
            return
        self._incoming.mkdir(exist_ok=True)
        await asyncio.to_thread(sweep, self._incoming)
        for folder in self._root.iterdir():
            if folder.name not in containers and folder != self._incoming:
                await self._throw_away(folder)

    def _shown(self, container: str) -> Path:
        return self._root / container / "shown"

    async def _throw_away(self, tree: Path) -> None:
        """Put out of sight at once, and remove in a thread: there may be thousands of files."""
        if not tree.exists():
            return
        self._incoming.mkdir(parents=True, exist_ok=True)
        gone = tree.rename(self._incoming / uuid.uuid4().hex)
        await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)


def _size(tree: Path) -> int:
    """Give the bytes of all files below a directory."""
    return sum(
        status.st_size
        for folder, _, names in os.walk(tree)
        for status in (Path(folder, name).lstat() for name in names)
        if S_ISREG(status.st_mode)
    )
