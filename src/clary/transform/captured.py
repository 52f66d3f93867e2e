"""Data capture of batch transform: manifests of what went in and of what came out, in the form that jobs take."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterable

from clary.core.transform import Work
from clary.objects import Objects
from clary.transform.inputs import Input


async def capture(objects: Objects, work: Work, place: str, found: Iterable[Input], done: Collection[int]) -> None:
    """Write the manifests; `place` is their URL, with `{}` for `input` and `output`. Raises as `Objects.upload`."""
    with tempfile.SpooledTemporaryFile() as given, tempfile.SpooledTemporaryFile() as made:
        for number, each in enumerate(found):
            if not number:
                given.write(_first(each.url.removesuffix(each.key)))
                made.write(_first(work.output_url("").removesuffix(".out")))
            given.write(_next(each.key))
            if each.number in done:
                made.write(_next(f"{each.key}.out"))
        for name, file in (("input", given), ("output", made)):
            file.write(b"\n]\n")
            file.seek(0)
            await objects.upload(place.format(name), file, "application/json")


def _first(prefix: str) -> bytes:
    return b"[\n" + json.dumps({"prefix": prefix}).encode()


def _next(key: str) -> bytes:
    return b",\n" + json.dumps(key).encode()
