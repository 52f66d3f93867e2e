"""Model artifacts as trees of files, each once for all the containers that use it.

`<data>/artifacts/<key>/model` is the tree, `artifact.json` beside it says where it is from and how large it is; the
key is made of the URLs and ETags of its pieces. What is under way is in `incoming/` and enters by one rename, so that a
directory that can be seen is whole. Whoever works on an incoming directory holds a lock on it: one without is left by
a crash.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

from clary.core.containers import ContainerSpec, ModelData, Progress
from clary.engines.fetching import Fetcher, ReadRefusal, sweep, workplace
from clary.engines.pieces import Piece
from clary.errors import LaunchFailure
from clary.objects import Objects


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact: `path` is its tree, to be read only."""

    key: str
    path: Path


class Artifacts:
    """The cache. `limit`: bytes to keep, beyond which what no container holds goes, the longest unused first.

    `max_bytes`: largest artifact, unpacked. `refusal` is asked before a container gets anything, downloaded or not.
    """

    def __init__(
        self,
        root: Path,
        objects: Objects,
        limit: int,
        max_bytes: int,
        refusal: ReadRefusal = lambda role_arn, action, url: None,
    ) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self.fetcher = Fetcher(objects, max_bytes, refusal)
        self._limit = limit
        self._held: dict[str, set[str]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._incoming.mkdir(parents=True, exist_ok=True)
        sweep(self._incoming)

    async def get(self, data: ModelData, holder: str, progress: Progress, role_arn: str | None = None) -> Artifact:
        """Give the data as an artifact, held for `holder` until it releases all that it holds.

        Raises LaunchFailure (unpack; download, also for what the role may not read) or Transient, after which the
        holder holds nothing. Those who want the same artifact wait for one download.
        """
        data, pieces = await self.fetcher.find(data, role_arn)
        # The same object unpacked and as it is are two artifacts.
        form = "" if data.form == "archive" else data.form
        seed = "\n".join([form, *(f"{piece.url}\n{piece.head.etag}" for piece in pieces)])
        key = hashlib.sha256(seed.encode()).hexdigest()[:32]
        # Held before it exists: from here on nobody evicts it under us.
        self.hold(key, holder)
        try:
            async with self._locks.setdefault(key, asyncio.Lock()):
                if not (self._root / key).exists():
                    await self._fetch(data, key, pieces, progress)
        except BaseException:
            self.release(holder)
            raise
        os.utime(self._root / key / "artifact.json")
        for gone in self._evict():
            await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)
        return Artifact(key, self._root / key / "model")

    async def collect(self, spec: ContainerSpec, progress: Progress) -> dict[str, Artifact]:
        """Give all that a container is to be shown, by its directory below /opt/ml, held for it.

        Raises what `get` raises, and LaunchFailure(download) for what the spec's role may not read, and where it takes
        longer than the spec allows.
        """
        try:
            async with asyncio.timeout(spec.download_timeout) as timer:
                return {data.place: await self.get(data, spec.id, progress, spec.role_arn) for data in spec.model_data}
        except TimeoutError:
            if not timer.expired():
                raise
            late = f"It took longer than {spec.download_timeout:g} s (ModelDataDownloadTimeoutInSeconds)."
            raise LaunchFailure("download", late) from None

    def hold(self, key: str, holder: str) -> None:
        """Keep an artifact from being evicted until its holder releases all that it holds."""
        self._held.setdefault(holder, set()).add(key)

    def release(self, holder: str) -> None:
        self._held.pop(holder, None)

    async def _fetch(self, data: ModelData, key: str, pieces: Sequence[Piece], progress: Progress) -> None:
        with workplace(self._incoming) as place:
            size = await self.fetcher.fetch(data, pieces, place, progress)
            card = {"url": data.url, "form": data.form, "bytes": size}
            (place / "artifact.json").write_text(json.dumps(card))
            place.rename(self._root / key)

    def _evict(self) -> list[Path]:
        """Put out of sight what was unused the longest until the rest fits; give what is to be removed.

        In one go on the event loop, so that nobody begins to hold what is about to go.
        """
        found: list[tuple[float, int, Path]] = []
        for card in self._root.glob("*/artifact.json"):
            found.append((card.stat().st_mtime, json.loads(card.read_text())["bytes"], card.parent))
        total = sum(size for _, size, _ in found)
        held = {key for keys in self._held.values() for key in keys}
        evicted = []
        for _, size, directory in sorted(found):
            if total <= self._limit:
                break
            if directory.name not in held:
                evicted.append(directory.rename(self._incoming / uuid.uuid4().hex))
                total -= size
        return evicted
