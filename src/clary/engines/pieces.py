"""The objects that a model's data is made of, and where each goes: one archive, one file, or a tree of files.

The rules for names are those of the API reference of S3ModelDataSource.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clary.core.ports import ModelDataForm
from clary.errors import LaunchFailure
from clary.objects import Count, ObjectHead, ObjectNotFound, ObjectRefused, Objects

_LONGEST_NAME = 255
"""Bytes."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One object. `path` is relative to where the data goes, with slashes."""

    url: str
    path: str
    head: ObjectHead


async def find(objects: Objects, url: str, form: ModelDataForm) -> list[Piece]:
    """Look up what the URL stands for, in the order of keys.

    Raises LaunchFailure(download) where there is nothing, or where a key cannot be the name of a file; or Transient.
    """
    try:
        if form != "prefix":
            return _checked([Piece(url, url.rpartition("/")[2], await objects.head(url))], url)
        found = await objects.below(url)
    except (ObjectNotFound, ObjectRefused) as error:
        raise LaunchFailure("download", error.message) from error
    if not found:
        raise LaunchFailure("download", f"{url}: there is no object whose key begins with it")
    return _checked([Piece(*each) for each in found], url)


async def download(objects: Objects, pieces: Sequence[Piece], target: Path, progress: Count) -> None:
    """Write the pieces below `target`, which is made. Raises LaunchFailure(download) or Transient."""
    total, before = sum(piece.head.size for piece in pieces), 0
    for piece in pieces:
        file = target / piece.path
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            await objects.download(piece.url, file, _beyond(before, total, progress))
        except (ObjectNotFound, ObjectRefused) as error:
            raise LaunchFailure("download", error.message) from error
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
