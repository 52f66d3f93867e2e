"""Uploads in parts. Each part is a file, `<number>.<md5>`, in the folder of its upload; completing joins them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from clary.errors import AwsError
from clary.objectstore.disk import About, Condition, Disk, Incoming, Stored

_BUFFER = 1024 * 1024
_SMALLEST_PART = 5 * 1024 * 1024
_LARGEST_NUMBER = 10_000


@dataclass(frozen=True, slots=True)
class Part:
    number: int
    etag: str
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload in progress. `headers` and `tags` become the object's."""

    id: str
    bucket: str
    key: str
    headers: Mapping[str, str]
    tags: Mapping[str, str]
    started: float = 0.0


class Uploads:
    """All uploads in progress."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def start(self, bucket: str, key: str, headers: Mapping[str, str], tags: Mapping[str, str]) -> str:
        """Begin an upload; give its id."""
        self._disk.bucket(bucket)
        upload_id = uuid4().hex
        folder = self._disk.uploads / upload_id
        folder.mkdir()
        known = {"bucket": bucket, "key": key, "headers": dict(headers), "tags": dict(tags)}
        written = folder / "upload.tmp"
        written.write_text(json.dumps(known))
        written.rename(folder / "upload.json")
        return upload_id

    def find(self, upload_id: str, bucket: str, key: str) -> Upload:
        """Give an upload. Raises AwsError NoSuchUpload (404)."""
        upload = self._read(self._disk.uploads / upload_id) if upload_id.isalnum() else None
        if upload is None or (upload.bucket, upload.key) != (bucket, key):
            message = (
                "The specified upload does not exist. The upload ID may be invalid, or the upload may have been "
                "aborted or completed."
            )
            raise AwsError(message, code="NoSuchUpload", status=404)
        return upload

    def of_bucket(self, bucket: str, prefix: str) -> list[Upload]:
        """Give a bucket's uploads, ordered by key and start."""
        self._disk.bucket(bucket)
        every = (self._read(folder) for folder in self._disk.uploads.iterdir())
        mine = [each for each in every if each and each.bucket == bucket and each.key.startswith(prefix)]
        return sorted(mine, key=lambda upload: (upload.key, upload.started))

    def begun_since(self, moment: float) -> list[Upload]:
        """Give the uploads, of all buckets, that were begun since then (in seconds since the epoch)."""
        every = (self._read(folder) for folder in self._disk.uploads.iterdir())
        return [each for each in every if each and each.started >= moment]

    def _read(self, folder: Path) -> Upload | None:
        try:
            path = folder / "upload.json"
            return Upload(id=folder.name, started=path.stat().st_mtime, **json.loads(path.read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put_part(self, upload: Upload, number: int, incoming: Incoming) -> str:
        """Add a part that was received; give its ETag. A part that is sent again replaces the one before."""
        if not 1 <= number <= _LARGEST_NUMBER:
            message = "Part number must be an integer between 1 and 10000, inclusive"
            raise AwsError(message, code="InvalidArgument", status=400)
        incoming.close()
        etag = incoming.md5.hex()
        folder = self._disk.uploads / upload.id
        try:
            incoming.path.rename(folder / f"{number:05}.{etag}")
        except FileNotFoundError:
            self.find(upload.id, upload.bucket, upload.key)
            raise
        for other in folder.glob(f"{number:05}.*"):
            if other.name != f"{number:05}.{etag}":
                other.unlink(missing_ok=True)
        return etag

    def parts(self, upload: Upload) -> list[Part]:
        """Give the parts that were received, ordered by number."""
        found = []
        for path in sorted((self._disk.uploads / upload.id).glob("[0-9]*.*")):
            number, _, etag = path.name.partition(".")
            stat = path.stat()
            found.append(Part(int(number), etag, stat.st_size, stat.st_mtime))
        return found

    def complete(self, upload: Upload, wanted: Sequence[tuple[int, str]], condition: Condition) -> Stored:
        """Join the wanted parts, (number, ETag) each, into the object.

        Raises AwsError InvalidPart, InvalidPartOrder, EntityTooSmall or MalformedXML (400).
        """
        self._check(upload, wanted)
        folder = self._disk.uploads / upload.id
        digests = hashlib.md5(usedforsecurity=False)
        whole = self._disk.incoming()
        try:
            for number, etag in wanted:
                digests.update(bytes.fromhex(etag))
                with (folder / f"{number:05}.{etag}").open("rb") as part:
                    _append(part, whole)
            about = About(f"{digests.hexdigest()}-{len(wanted)}", upload.headers, {}, upload.tags)
            stored = self._disk.commit(upload.bucket, upload.key, whole, about, condition)
        except FileNotFoundError:
            self.find(upload.id, upload.bucket, upload.key)
            raise
        finally:
            whole.discard()
        self.abort(upload)
        return stored

    def _check(self, upload: Upload, wanted: Sequence[tuple[int, str]]) -> None:
        if not wanted:
            message = "The XML you provided was not well-formed or did not validate against our published schema"
            raise AwsError(message, code="MalformedXML", status=400)
        sizes = {(part.number, part.etag): part.size for part in self.parts(upload)}
        numbers = [number for number, _ in wanted]
        if numbers != sorted(set(numbers)):
            message = "The list of parts was not in ascending order. Parts must be ordered by part number."
            raise AwsError(message, code="InvalidPartOrder", status=400)
        if any(part not in sizes for part in wanted):
            message = (
                "One or more of the specified parts could not be found.  The part may not have been uploaded, or the "
                "specified entity tag may not match the part's entity tag."
            )
            raise AwsError(message, code="InvalidPart", status=400)
        if any(sizes[part] < _SMALLEST_PART for part in wanted[:-1]):
            message = "Your proposed upload is smaller than the minimum allowed size"
            raise AwsError(message, code="EntityTooSmall", status=400)

    def abort(self, upload: Upload) -> None:
        """Forget an upload and its parts."""
        shutil.rmtree(self._disk.uploads / upload.id, ignore_errors=True)


def _append(part: BinaryIO, whole: Incoming) -> None:
    while data := part.read(_BUFFER):
        whole.append(data)
