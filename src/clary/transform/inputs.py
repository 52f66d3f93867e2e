"""Which objects a job is about: found once, written down, and read from there however often the agent is started."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from clary.core.manifest import LARGEST, ManifestRefused, listed
from clary.core.transform import Work
from clary.errors import Fatal
from clary.objecterrors import ObjectNotFound
from clary.objects import ObjectHead, Objects


class NoInput(Fatal):
    """There is nothing to transform, or not what was said to be there."""


@dataclass(frozen=True, slots=True)
class Input:
    """One object. `number` counts from 0; `key` is what its output is called by."""

    number: int
    url: str
    key: str
    head: ObjectHead


async def write_down(file: Path, work: Work, objects: Objects) -> None:
    """Find the objects and write them down, unless that was done. Raises NoInput, ObjectRefused or Transient."""
    if file.exists():
        return
    fresh = file.with_suffix(".new")
    number = 0
    with fresh.open("w") as written:
        async for url, key, head in _found(work, objects):
            written.write(json.dumps([url, key, head.size, head.etag]) + "\n")
            number += 1
    if not number:
        raise NoInput(f"no object is found at {work.source['S3Uri']}")
    fresh.rename(file)


def read(file: Path) -> Iterator[Input]:
    """Give what was written down, in the order of the keys."""
    with file.open() as lines:
        for number, line in enumerate(lines):
            url, key, size, etag = json.loads(line)
            yield Input(number, url, key, ObjectHead(size, etag))


async def _found(work: Work, objects: Objects) -> AsyncIterator[tuple[str, str, ObjectHead]]:
    source = objects.canonical(work.source["S3Uri"])
    if work.source["S3DataType"] == "S3Prefix":
        before = source[: source.rindex("/") + 1]
        async for url, head in objects.beginning_with(source):
            if url != before:
                yield url, url.removeprefix(before), head
        return
    try:
        manifest = await objects.read(source, LARGEST)
        for url, key in listed(manifest, source, objects.canonical):
            yield url, key, await objects.head(url)
    except (ManifestRefused, ObjectNotFound) as error:
        raise NoInput(error.message) from error
