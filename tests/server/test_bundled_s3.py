"""What is done to the bundled S3's disk without asking it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clary.objectstore.disk import Disk
from clary.objectstore.multipart import Uploads
from clary.server.bundled_s3 import BundledS3


def test_unfinished_uploads_of_these_objects_are_forgotten_and_no_others(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    for bucket in ("out", "other"):
        disk.create_bucket(bucket)
    uploads, since = Uploads(disk), time.time() - 1
    keys = [("out", "x/a.out"), ("out", "x/b.out"), ("out", "x/mine"), ("other", "x/a.out")]
    begun = {key: uploads.start(*key, {}, {}) for key in keys}
    BundledS3(tmp_path).abandon(iter(["s3://out/x/a.out", "s3://out/x/b.out", "s3://out/x/c.out"]), since)
    assert {path.name for path in disk.uploads.iterdir()} == {begun[key] for key in keys[2:]}


def test_what_was_begun_before_is_nobodys_and_objects_are_not_even_looked_at(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.create_bucket("out")
    Uploads(disk).start("out", "x/a.out", {}, {})

    def urls() -> Iterator[str]:
        pytest.fail("the objects of a job may be millions")
        yield ""

    BundledS3(tmp_path).abandon(urls(), time.time() + 60)
    assert len(list(disk.uploads.iterdir())) == 1
