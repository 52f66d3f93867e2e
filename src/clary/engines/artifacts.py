"""Model artifacts as trees of files, each once for all the containers that use it.

`<data>/artifacts/<key>/model` is the tree, `artifact.json` beside it says where it is from and how large it is; the
key is made of the URLs and ETags of its pieces. What is under way is in `incoming/` and enters by one rename, so that a
directory that can be seen is whole. Whoever works on an incoming directory holds a lock on it: one without is left by
a crash.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

from clary.core.ports import ContainerSpec, ModelData, Progress
from clary.engines import archive
from clary.engines.pieces import Piece, canonical, download, find
from clary.errors import LaunchFailure, Transient
from clary.objects import Count, Objects

MB = 1_000_000

ReadRefusal = Callable[[str, str, str], str | None]
"""Says in a sentence why a role may not do something (`s3:GetObject`, `s3:ListBucket`) with a URL; None: it may."""


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
        self._objects = objects
        self._limit = limit
        self._max_bytes = max_bytes
        self._refusal = refusal
        self._held: dict[str, set[str]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._incoming.mkdir(parents=True, exist_ok=True)
        _sweep(self._incoming)

    async def get(self, data: ModelData, holder: str, progress: Progress, role_arn: str | None = None) -> Artifact:
        """Give the data as an artifact, held for `holder` until it releases all that it holds.

        Raises LaunchFailure (unpack; download, also for what the role may not read) or Transient, after which the
        holder holds nothing. Those who want the same artifact wait for one download.
        """
        data = canonical(self._objects, data)
        pieces = await self._find(data, role_arn)
        # The same object unpacked and as it is are two artifacts.
        form = "" if data.form == "archive" else data.form
        seed = "\n".join([form, *(f"{piece.url}\n{piece.head.etag}" for piece in pieces)])
        key = hashlib.sha256(seed.encode()).hexdigest()[:32]
        # Held before it exists: from here on nobody evicts it under us.
        self.hold(key, holder)
        try:
            async with self._locks.setdefault(key, asyncio.Lock()):
                if not (self._root / key).exists():
                    if sum(piece.head.size for piece in pieces) > self._max_bytes:
                        raise _too_large(self._max_bytes)
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

    async def _find(self, data: ModelData, role_arn: str | None) -> Sequence[Piece]:
        """Look up the pieces as the role would, object by object.

        Its policies may have changed since CreateModel, or were never asked (--defer-checks).
        """
        asked = [("s3:ListBucket" if data.form == "prefix" else "s3:GetObject", data.url)]
        if data.manifest:
            asked.append(("s3:GetObject", data.manifest))
        self._require(role_arn, asked)
        pieces = await find(self._objects, data)
        self._require(role_arn, [("s3:GetObject", piece.url) for piece in pieces])
        return pieces

    def _require(self, role_arn: str | None, asked: Sequence[tuple[str, str]]) -> None:
        for action, url in asked if role_arn else ():
            if refusal := self._refusal(role_arn or "", action, url):
                raise LaunchFailure("download", refusal)

    async def _fetch(self, data: ModelData, key: str, pieces: Sequence[Piece], progress: Progress) -> None:
        url, form = data.url, data.form
        with _workplace(self._incoming) as place:
            tree = place / "model"
            incoming = place / "packed" if form == "archive" else tree
            await download(self._objects, pieces, incoming, _in_steps(progress))
            if await find(self._objects, data) != pieces:
                raise Transient(f"{url} was replaced while it was downloaded")
            size = sum(piece.head.size for piece in pieces)
            if form == "archive":
                progress(f"unpack {size / MB:.0f} MB")
                size = await self._unpack(url, incoming / pieces[0].path, tree)
                shutil.rmtree(incoming)
            await asyncio.to_thread(_open_to_readers, tree)
            (place / "artifact.json").write_text(json.dumps({"url": url, "form": form, "bytes": size}))
            place.rename(self._root / key)

    async def _unpack(self, url: str, packed: Path, target: Path) -> int:
        cancelled = threading.Event()
        work = asyncio.ensure_future(
            asyncio.to_thread(archive.unpack, packed, target, self._max_bytes, cancelled),
        )
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # A thread cannot be cancelled; its directory must not be removed before it has let go.
            cancelled.set()
            await asyncio.wait({work})
            work.exception()
            raise
        except archive.Refused as error:
            raise LaunchFailure("unpack", str(error)) from error
        except archive.TooLarge as error:
            raise _too_large(self._max_bytes) from error
        except OSError as error:
            raise Transient(f"unpacking {url}: {error}", retry_after=10.0) from error

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


def _open_to_readers(tree: Path) -> None:
    """Let every user of a container read the files, whatever our umask says; nobody else gets into the data folder."""
    tree.chmod(0o755)
    for folder, folders, files in os.walk(tree):
        for name in folders:
            Path(folder, name).chmod(0o755)
        for name in files:
            file = Path(folder, name)
            if not file.is_symlink():
                file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)


def _too_large(limit: int) -> LaunchFailure:
    return LaunchFailure("size", f"--max-artifact allows {limit / 2**30:.3g} GiB, unpacked")


def _in_steps(progress: Progress) -> Count:
    """Tell of a download in whole MB, so that a small one is not all messages."""
    told = -1

    def count(done: int, total: int) -> None:
        nonlocal told
        if done // MB != told:
            told = done // MB
            progress(f"download {told} of {total / MB:.0f} MB")

    return count


@contextmanager
def _workplace(parent: Path) -> Iterator[Path]:
    """Make a locked directory that is gone afterwards, unless it was renamed."""
    place = parent / uuid.uuid4().hex
    place.mkdir(mode=0o755)
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield place
    finally:
        os.close(descriptor)
        shutil.rmtree(place, ignore_errors=True)


def _sweep(incoming: Path) -> None:
    """Remove what a crash left."""
    for place in incoming.iterdir():
        descriptor = os.open(place, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # another engine is at work
        finally:
            os.close(descriptor)
        shutil.rmtree(place, ignore_errors=True)
