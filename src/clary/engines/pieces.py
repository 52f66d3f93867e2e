"""The objects that a model's data is made of, and where each goes: one archive, one file, or a tree of files.

The rules for names are those of the API reference of S3ModelDataSource.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clary.core import manifest
from clary.core.containers import ModelData
from clary.errors import LaunchFailure
from clary.objecterrors import ObjectNotFound, ObjectRefused
from clary.objects import AtHand, Count, ObjectHead, Objects

_LONGEST_NAME = 255
"""Bytes."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One object. `path` is relative to where the data goes, with slashes."""

    url: str
    path: str
    head: ObjectHead


def canonical(objects: Objects, data: ModelData) -> ModelData:
    """Give the data under the URLs by which policies know it. Raises LaunchFailure(download) for URLs that are none."""
    with _failing():
        manifest = objects.canonical(data.manifest) if data.manifest else ""
        return data._replace(url=objects.canonical(data.url), manifest=manifest)


async def find(objects: Objects, data: ModelData) -> list[Piece]:
    """Look up what the data's URL stands for, in the order of keys.

    Raises LaunchFailure(download) where there is nothing, where it is another version than the data's ETag says, or
    where a key cannot be the name of a file; or Transient.
    """
    url = data.url
    with _failing():
        if data.form != "prefix":
            head = await objects.head(url)
            head.require(url, data.etag)
            return _checked([Piece(url, url.rpartition("/")[2], head)], url)
        found = [Piece(*each) for each in await objects.below(url)]
        if data.manifest:
            found = await _selected(objects, found, data)
    if not found:
        raise LaunchFailure("download", f"{url}: there is no object whose key begins with it")
    return _checked(found, url)


async def _selected(objects: Objects, found: list[Piece], data: ModelData) -> list[Piece]:
    """Keep the pieces that the manifest names."""
    text = await objects.read(data.manifest, manifest.LARGEST, data.manifest_etag)
    there = {piece.url: piece for piece in found}
    wanted = manifest.chosen(text, data.manifest, data.url, there.keys(), objects.canonical)
    return [piece for url, piece in there.items() if url in wanted]


def at_hand(objects: Objects, data: ModelData) -> AtHand | None:
    """Open the one object of the data, if it is a file of this machine. Raises LaunchFailure(download)."""
    with _failing():
        if (found := objects.at_hand(data.url)) is None:
            return None
        try:
            found.head.require(data.url, data.etag)
        except ObjectRefused:
            found.file.close()
            raise
        return found


async def download(objects: Objects, pieces: Sequence[Piece], target: Path, progress: Count) -> None:
    """Write the pieces below `target`, which is made. Raises LaunchFailure(download) or Transient."""
    total, before = sum(piece.head.size for piece in pieces), 0
    for piece in pieces:
        file = target / piece.path
        file.parent.mkdir(parents=True, exist_ok=True)
        with _failing():
            await objects.download(piece.url, file, _beyond(before, total, progress))
        before += piece.head.size


def _checked(pieces: list[Piece], url: str) -> list[Piece]:
    """Refuse what cannot be a tree of files: each name must be one, and no file may be a directory too."""
    files = {PurePosixPath(piece.path) for piece in pieces}
    for piece in pieces:
        for name in piece.path.split("/"):
            if name in ("", ".", "..") or "\0" in name or len(name.encode()) > _LONGEST_NAME:
                raise LaunchFailure("download", f"{url}: {piece.path!r} has a part that cannot be the name of a file")
        clash = next((parent for parent in PurePosixPath(piece.path).parents if parent in files), None)
        if clash is not None:
            raise LaunchFailure("download", f"{url}: {str(clash)!r} would be a file and a directory")
    return pieces


def _beyond(before: int, total: int, progress: Count) -> Count:
    return lambda done, _: progress(before + done, total)


@contextmanager
def _failing() -> Iterator[None]:
    """Make what can be known of an object, and will not change by itself, the end of a launch."""
    try:
        yield
    except (ObjectNotFound, ObjectRefused, manifest.ManifestRefused) as error:
        raise LaunchFailure("download", error.message) from error
