"""The keys of a bucket, in order, by pages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clary.objectstore.disk import Disk, Stored
from clary.objectstore.keys import CONTINUED, DISPLACED, from_name


@dataclass(slots=True)
class Page:
    """Some of a bucket's keys; `next` is where to go on, empty at the end."""

    objects: list[tuple[str, Stored]] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    next: str = ""


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for: keys that start with `prefix`, after `after`, rolled up to the next `delimiter`."""

    prefix: str = ""
    delimiter: str = ""
    after: str = ""
    limit: int = 1000


def list_objects(disk: Disk, bucket: str, query: Query) -> Page:
    """Give one page of a bucket's keys, in the order of their UTF-8 bytes, which is that of their code points."""
    page = Page()
    folder = disk.bucket(bucket)
    last, count = "", 0
    for key, path in _walk(folder, "", query):
        common = _common_prefix(key, query)
        if common and (common == last or (query.after.startswith(common) and common == query.after)):
            continue
        if count >= query.limit:
            page.next = last
            break
        last = common or key
        if common:
            page.prefixes.append(common)
        else:
            try:
                page.objects.append((key, disk.stored(bucket, key, path, path.stat())))
            except FileNotFoundError:
                continue  # deleted since its folder was read
        count += 1
    return page


def _common_prefix(key: str, query: Query) -> str:
    if not query.delimiter:
        return ""
    end = key.find(query.delimiter, len(query.prefix))
    return key[: end + len(query.delimiter)] if end >= 0 else ""


def _walk(folder: Path, base: str, query: Query) -> Iterator[tuple[str, Path]]:
    """Give keys and files in order, without entering folders that hold nothing of the page.

    With the usual delimiter, one key of a folder stands for all of them.
    """
    for name, path, is_folder in _entries(folder):
        key = base + name
        if not is_folder:
            if key > query.after and key.startswith(query.prefix):
                yield key, path
        elif _may_hold(key, query):
            below = _walk(path, key, query)
            if query.delimiter == "/" and len(key) > len(query.prefix):
                if key != query.after:
                    yield from (first for first in (next(below, None),) if first is not None)
            else:
                yield from below


def _may_hold(key: str, query: Query) -> bool:
    relevant = key.startswith(query.prefix) or query.prefix.startswith(key)
    return relevant and (key > query.after or query.after.startswith(key))


def _entries(folder: Path) -> list[tuple[str, Path, bool]]:
    """Give a folder's entries, sorted as keys: a folder's name ends in a slash."""
    found: dict[str, tuple[str, Path, bool]] = {}
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return []
    for entry in entries:
        is_folder = entry.is_dir()
        name = entry.name
        if is_folder and name.endswith(CONTINUED):
            start = from_name(name.removesuffix(CONTINUED))
            if start is not None:
                found |= {start + rest: (start + rest, path, deep) for rest, path, deep in _entries(Path(entry))}
            continue
        text = from_name(name if is_folder else name.removesuffix(DISPLACED))
        if text is not None:
            text += "/" if is_folder else ""
            if text not in found or not name.endswith(DISPLACED):
                found[text] = (text, Path(entry), is_folder)
    return [found[text] for text in sorted(found)]
