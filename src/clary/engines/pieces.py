"""The objects that a model's data is made of, and where each goes: one archive, one file, or a tree of files.

The rules for names are those of the API reference of S3ModelDataSource. Of manifests it says only that they are CSV;
the JSON that other operations take for one (S3DataType ManifestFile) is read too.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from clary.core.ports import ModelData
from clary.errors import LaunchFailure
from clary.objects import Count, ObjectHead, ObjectNotFound, ObjectRefused, Objects, as_s3

_LONGEST_NAME = 255
"""Bytes."""
_LARGEST_MANIFEST = 16 * 1024 * 1024
"""Bytes."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One object. `path` is relative to where the data goes, with slashes."""

    url: str
    path: str
    head: ObjectHead


async def find(objects: Objects, data: ModelData) -> list[Piece]:
    """Look up what the data's URL stands for, in the order of keys.

    Raises LaunchFailure(download) where there is nothing, or where a key cannot be the name of a file; or Transient.
    """
    url = data.url
    try:
        if data.form != "prefix":
            return _checked([Piece(url, url.rpartition("/")[2], await objects.head(url))], url)
        found = [Piece(*each) for each in await objects.below(url)]
        if data.manifest:
            found = _selected(found, await _read(objects, data.manifest), data)
    except (ObjectNotFound, ObjectRefused) as error:
        raise LaunchFailure("download", error.message) from error
    if not found:
        raise LaunchFailure("download", f"{url}: there is no object whose key begins with it")
    return _checked(found, url)


async def _read(objects: Objects, manifest: str) -> str:
    if (await objects.head(manifest)).size > _LARGEST_MANIFEST:
        raise LaunchFailure("download", f"{manifest}: a manifest has at most {_LARGEST_MANIFEST} bytes")
    with TemporaryDirectory() as folder:
        file = Path(folder, "manifest")
        await objects.download(manifest, file, lambda done, total: None)
        try:
            return file.read_text()
        except UnicodeDecodeError as error:
            raise LaunchFailure("download", f"{manifest}: a manifest is text in UTF-8") from error


def _selected(found: list[Piece], manifest: str, data: ModelData) -> list[Piece]:
    """Keep the pieces that a manifest names. It may only name what lies below the data's own URL."""
    by_url = {piece.url: piece for piece in found}
    wanted = dict.fromkeys(_locations(manifest, data))
    if missing := next((url for url in wanted if url not in by_url), None):
        raise LaunchFailure("download", f"{data.manifest} names {missing}, which is not there below {data.url}")
    return [piece for url, piece in by_url.items() if url in wanted]


def _locations(manifest: str, data: ModelData) -> Iterator[str]:
    """Give the URLs in a manifest: a JSON list of a prefix and of keys below it, or CSV, each line begun by one."""
    try:
        if manifest.lstrip().startswith("["):
            first, *keys = json.loads(manifest)
            prefix = as_s3(first["prefix"])
        else:
            keys = [row[0].strip() for row in csv.reader(manifest.splitlines()) if row]
            prefix = as_s3(data.url)
        for key in filter(None, keys):
            yield key if key.startswith("s3://") else prefix + key
    except (ValueError, TypeError, KeyError, AttributeError, csv.Error) as error:
        message = f'{data.manifest}: a manifest is CSV, or in JSON [{{"prefix": "s3://..."}}, "key", ...]'
        raise LaunchFailure("download", message) from error


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
