"""The files of a multi-model container's models: what it sees below /opt/ml/models, placed and discarded while it runs.

`<data>/models/<container>/shown` is what the container is shown, with `<model>/model` in it for each model; beside it,
`sizes/<model>` says how many bytes a model's files have.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Collection
from pathlib import Path

from clary.core.ports import ModelData
from clary.engines.fetching import Fetcher, sweep, workplace
from clary.errors import Transient

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
        folder = self._root / container
        (folder / "sizes").mkdir(parents=True, exist_ok=True)
        shown = folder / "shown"
        shown.mkdir(exist_ok=True)
        shown.chmod(0o755)  # whatever our umask says
        return shown

    async def place(self, container: str, model: str, data: ModelData, role_arn: str | None) -> int:
        """Download and unpack a model, unless it is there, and give the bytes that its files have.

        Raises LaunchFailure (download, unpack, size) or Transient, DiskFull among them.
        """
        folder = self._root / container
        shown, size_file = folder / "shown" / model, folder / "sizes" / model
        if shown.exists() and size_file.exists():
            return int(size_file.read_text())
        await self._throw_away(shown)  # left by a removal that was cut off
        data, pieces = await self._fetcher.find(data, role_arn)
        self._incoming.mkdir(parents=True, exist_ok=True)
        with workplace(self._incoming) as place:
            size = await self._fetcher.fetch(data, pieces, place, lambda _: None)
            try:
                size_file.write_text(str(size))
                place.rename(shown)
            except FileNotFoundError as error:
                raise Transient(f"{container} was stopped") from error
        return size

    async def discard(self, container: str, model: str) -> None:
        """Remove a model's files. Unknown ones are fine."""
        folder = self._root / container
        (folder / "sizes" / model).unlink(missing_ok=True)
        await self._throw_away(folder / "shown" / model)

    async def placed(self, container: str) -> dict[str, int]:
        """Give the bytes of each model whose files are there."""
        return await asyncio.to_thread(self._placed, self._root / container)

    def _placed(self, folder: Path) -> dict[str, int]:
        # A size without files is of one that was about to come or go.
        return {
            file.name: int(file.read_text())
            for file in (folder / "sizes").glob("*")
            if (folder / "shown" / file.name).exists()
        }

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

    async def _throw_away(self, tree: Path) -> None:
        """Put out of sight at once, and remove in a thread: there may be thousands of files."""
        if not tree.exists():
            return
        self._incoming.mkdir(parents=True, exist_ok=True)
        gone = tree.rename(self._incoming / uuid.uuid4().hex)
        await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)
