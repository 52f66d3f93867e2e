"""The bundled S3 as a reader on the same machine has it: its disk."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from clary.errors import AwsError
from clary.objectstore.disk import Disk


class BundledS3:
    """Implements `objects.OnDisk`."""

    def __init__(self, root: Path) -> None:
        self._disk = Disk(root)

    def head(self, bucket: str, key: str) -> tuple[int, str]:
        try:
            found = self._disk.find(bucket, key)
        except AwsError as error:
            raise FileNotFoundError(error.message) from error
        return found.size, found.about.etag

    def open(self, bucket: str, key: str) -> tuple[int, BinaryIO]:
        try:
            found, file = self._disk.open(bucket, key)
        except AwsError as error:
            raise FileNotFoundError(error.message) from error
        return found.size, file
