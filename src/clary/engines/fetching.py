"""Model data from its URL to a tree of files: looked up as its role would, downloaded, unpacked, open to readers.

Where the tree goes is the caller's: the cache of artifacts, or a multi-model container's folder. What is under way is
in a directory of its own that enters by one rename, so that a tree that can be seen is whole. Whoever works on such a
directory holds a lock on it: one without is left by a crash.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from clary.core.containers import ModelData, Progress
from clary.engines import archive
from clary.engines.pieces import Piece, at_hand, canonical, download, find
from clary.errors import DiskFull, LaunchFailure, Transient
from clary.objects import AtHand, Count, Objects

MB = 1_000_000

ReadRefusal = Callable[[str, str, str], str | None]
"""Says in a sentence why a role may not do something (`s3:GetObject`, `s3:ListBucket`) with a URL; None: it may."""


class Fetcher:
    """Fetches model data. `max_bytes`: the most that one may have, unpacked.

    `refusal` is asked before anything is given to a container, downloaded or not.
    """

    def __init__(self, objects: Objects, max_bytes: int, refusal: ReadRefusal) -> None:
        self._objects = objects
        self._max_bytes = max_bytes
        self._refusal = refusal

    async def find(self, data: ModelData, role_arn: str | None) -> tuple[ModelData, Sequence[Piece]]:
        """Look up the pieces as the role would, object by object; give the data under its canonical URLs, and them.

        Its policies may have changed since CreateModel, or were never asked (--defer-checks). Raises
        LaunchFailure(download) or Transient.
        """
        data = self._permitted(data, role_arn)
        pieces = await find(self._objects, data)
        self._require(role_arn, [("s3:GetObject", piece.url) for piece in pieces])
        return data, pieces

    async def fetch(self, data: ModelData, pieces: Sequence[Piece], place: Path, progress: Progress) -> int:
        """Make the tree `place / "model"` of what `find` gave, and give the bytes that its files have.

        Raises LaunchFailure (unpack, size, download) or Transient, DiskFull among them.
        """
        size, tree = sum(piece.head.size for piece in pieces), place / "model"
        self._require_size(size)
        if data.form == "archive":
            if (here := at_hand(self._objects, data)) is not None:
                if here.head != pieces[0].head:
                    here.file.close()
                    raise _replaced(data)
                return await self._unpack_here(data, here, tree, progress)
            incoming = place / "packed"
            await self._download(data, pieces, incoming, progress)
            with (incoming / pieces[0].path).open("rb") as packed:
                size = await self._unpack(data, packed, size, tree, progress)
            shutil.rmtree(incoming)
        else:
            await self._download(data, pieces, tree, progress)
            await asyncio.to_thread(_open_to_readers, tree)
        return size

    async def bring(self, data: ModelData, role_arn: str | None, place: Path) -> int:
        """Find and fetch, for whom the pieces are nothing: what is a file of this machine is found by opening it."""
        data = self._permitted(data, role_arn)
        if data.form == "archive" and (here := at_hand(self._objects, data)) is not None:
            return await self._unpack_here(data, here, place / "model", _untold)
        data, pieces = await self.find(data, role_arn)
        return await self.fetch(data, pieces, place, _untold)

    async def _unpack_here(self, data: ModelData, here: AtHand, tree: Path, progress: Progress) -> int:
        """Unpack an archive from where it is. Its file may be written over while it is read."""
        with here.file as packed:
            self._require_size(here.head.size)
            before = _version(packed)
            try:
                size = await self._unpack(data, packed, here.head.size, tree, progress)
            except LaunchFailure as failure:
                if _version(packed) != before:
                    raise _replaced(data) from failure
                raise
            if _version(packed) != before:
                raise _replaced(data)
        return size

    async def _download(self, data: ModelData, pieces: Sequence[Piece], target: Path, progress: Progress) -> None:
        with _room(data.url, target.parents[1]):
            await download(self._objects, pieces, target, _in_steps(progress))
        if await find(self._objects, data) != pieces:
            raise _replaced(data)

    def _permitted(self, data: ModelData, role_arn: str | None) -> ModelData:
        """Give the data under its canonical URLs. Raises LaunchFailure(download) where the role may not have it."""
        data = canonical(self._objects, data)
        asked = [("s3:ListBucket" if data.form == "prefix" else "s3:GetObject", data.url)]
        if data.manifest:
            asked.append(("s3:GetObject", data.manifest))
        self._require(role_arn, asked)
        return data

    def _require_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise _too_large(self._max_bytes)

    def _require(self, role_arn: str | None, asked: Sequence[tuple[str, str]]) -> None:
        for action, url in asked if role_arn else ():
            if refusal := self._refusal(role_arn or "", action, url):
                raise LaunchFailure("download", refusal)

    async def _unpack(self, data: ModelData, packed: IO[bytes], size: int, target: Path, progress: Progress) -> int:
        """Unpack an archive of so many bytes, and give the bytes of its files."""
        progress(f"unpack {size / MB:.0f} MB")
        cancelled = threading.Event()
        work = asyncio.ensure_future(
            asyncio.to_thread(archive.unpack, packed, target, self._max_bytes, cancelled),
        )
        try:
            with _room(data.url, target.parents[1]):
                unpacked = await asyncio.shield(work)
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
            raise Transient(f"unpacking {data.url}: {error}", retry_after=10.0) from error
        target.chmod(0o755)  # whatever our umask says; of what is below, unpacking has seen to it
        return unpacked


@contextmanager
def workplace(parent: Path) -> Iterator[Path]:
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


def sweep(incoming: Path) -> None:
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


@contextmanager
def _room(url: str, folder: Path) -> Iterator[None]:
    """Say of a disk that is full that it is full: room can be made."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{url}: no room in {folder}: the disk is full") from error
        raise


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


def _version(file: IO[bytes]) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _untold(_: str) -> None:
    """Progress that nobody follows."""


def _replaced(data: ModelData) -> Transient:
    return Transient(f"{data.url} was replaced while it was read")


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
