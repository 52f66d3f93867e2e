"""The bundled S3 as those on the same machine have it: its disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from clary.errors import AwsError
from clary.objectstore.disk import Disk
from clary.objectstore.multipart import Uploads


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

    def open(self, bucket: str, key: str) -> tuple[int, str, BinaryIO]:
        try:
            found, file = self._disk.open(bucket, key)
        except AwsError as error:
            raise FileNotFoundError(error.message) from error
        return found.size, found.about.etag, file

    def abandon(self, urls: Iterable[str], since: float) -> None:
        """Forget uploads in parts of these objects that were begun since then (in seconds) and are not completed."""
        uploads = Uploads(self._disk)
        if found := uploads.begun_since(since):  # hardly ever, and the objects may be millions
            wanted = set(urls)
            for upload in found:
                if f"s3://{upload.bucket}/{upload.key}" in wanted:
                    uploads.abort(upload)
