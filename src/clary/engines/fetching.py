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

from clary.core.ports import ModelData, Progress
from clary.engines import archive
from clary.engines.pieces import Piece, canonical, download, find
from clary.errors import DiskFull, LaunchFailure, Transient
from clary.objects import Count, Objects

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
        data = canonical(self._objects, data)
        asked = [("s3:ListBucket" if data.form == "prefix" else "s3:GetObject", data.url)]
        if data.manifest:
            asked.append(("s3:GetObject", data.manifest))
        self._require(role_arn, asked)
        pieces = await find(self._objects, data)
        self._require(role_arn, [("s3:GetObject", piece.url) for piece in pieces])
        return data, pieces

    async def fetch(self, data: ModelData, pieces: Sequence[Piece], place: Path, progress: Progress) -> int:
        """Make the tree `place / "model"` of what `find` gave, and give the bytes that its files have.

        Raises LaunchFailure (unpack, size, download) or Transient, DiskFull among them.
        """
        size = sum(piece.head.size for piece in pieces)
        if size > self._max_bytes:
            raise _too_large(self._max_bytes)
        tree = place / "model"
        incoming = place / "packed" if data.form == "archive" else tree
        with _room(data.url, place.parent):
            await download(self._objects, pieces, incoming, _in_steps(progress))
        if await find(self._objects, data) != pieces:
            raise Transient(f"{data.url} was replaced while it was downloaded")
        if data.form == "archive":
            progress(f"unpack {size / MB:.0f} MB")
            size = await self._unpack(data.url, incoming / pieces[0].path, tree)
            shutil.rmtree(incoming)
            tree.chmod(0o755)  # whatever our umask says; of what is below, unpacking has seen to it
        else:
            await asyncio.to_thread(_open_to_readers, tree)
        return size

    def _require(self, role_arn: str | None, asked: Sequence[tuple[str, str]]) -> None:
        for action, url in asked if role_arn else ():
            if refusal := self._refusal(role_arn or "", action, url):
                raise LaunchFailure("download", refusal)

    async def _unpack(self, url: str, packed: Path, target: Path) -> int:
        cancelled = threading.Event()
        work = asyncio.ensure_future(
            asyncio.to_thread(archive.unpack, packed, target, self._max_bytes, cancelled),
        )
        try:
            with _room(url, target.parents[1]):
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
