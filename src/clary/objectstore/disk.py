"""Buckets and objects on disk. Everything here blocks; whoever has an event loop calls it from threads.

    <root>/<bucket>/<path of the key>                     the bytes, as a plain file
    <root>/.clary/meta/<bucket>/<path>%<mtime>-<size>     what S3 knows beside the bytes, as JSON
    <root>/.clary/tmp/                                    what is being received

Metadata is named after the bytes that it describes. It is written first; the rename of the bytes is then the one
moment in which an object changes, both at once, whatever dies when. A file that somebody put there by hand has no
metadata and is served with guesses.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import mimetypes
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO
from uuid import uuid4

from clary.errors import AwsError
from clary.objectstore.keys import DISPLACED, to_path

PRIVATE = ".clary"
_ABANDONED = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class About:
    """What S3 keeps of an object beside its bytes. Header names are lower-case."""

    etag: str
    headers: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it is now."""

    path: Path
    size: int
    mtime_ns: int
    about: About


Condition = Callable[[Stored | None], None]


def anything(_: Stored | None) -> None:
    """Hold for every object: the condition of a request that makes none."""


class Incoming:
    """A file that is being received; nobody sees it until it is committed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._file = path.open("wb")

    def write(self, data: bytes) -> None:
        self._md5.update(data)
        self.append(data)

    def append(self, data: bytes) -> None:
        """Write bytes whose hash is not asked for."""
        self._file.write(data)
        self.size += len(data)

    def close(self) -> None:
        self._file.close()

    def discard(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    @property
    def md5(self) -> bytes:
        return self._md5.digest()


class Disk:
    """All buckets under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._private = root / PRIVATE
        self._meta = self._private / "meta"
        self._tmp = self._private / "tmp"
        self.uploads = self._private / "uploads"
        for folder in (self._meta, self._tmp, self.uploads):
            folder.mkdir(parents=True, exist_ok=True)
        for left in self._tmp.iterdir():
            with suppress(FileNotFoundError):
                if left.stat().st_mtime < time.time() - _ABANDONED:
                    left.unlink()

    # Buckets

    def buckets(self) -> list[tuple[str, float]]:
        """Give name and creation time of each bucket, sorted by name."""
        names = sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir() and entry.name[:1] != ".")
        return [(name, self._created(name)) for name in names]

    def _created(self, bucket: str) -> float:
        mark = self._private / f"{bucket}.bucket"
        return (mark if mark.exists() else self.root / bucket).stat().st_mtime

    def bucket(self, name: str) -> Path:
        """Give a bucket's folder. Raises AwsError NoSuchBucket (404)."""
        folder = self.root / name
        if not is_bucket_name(name) or not folder.is_dir():
            raise AwsError("The specified bucket does not exist", code="NoSuchBucket", status=404)
        return folder

    def create_bucket(self, name: str) -> None:
        """Make a bucket. Raises AwsError InvalidBucketName (400) or BucketAlreadyOwnedByYou (409)."""
        if not is_bucket_name(name):
            raise AwsError("The specified bucket is not valid.", code="InvalidBucketName", status=400)
        try:
            (self.root / name).mkdir()
        except FileExistsError:
            message = "Your previous request to create the named bucket succeeded and you already own it."
            raise AwsError(message, code="BucketAlreadyOwnedByYou", status=409) from None
        (self._private / f"{name}.bucket").touch()

    def delete_bucket(self, name: str) -> None:
        """Remove an empty bucket. Raises AwsError BucketNotEmpty (409)."""
        folder = self.bucket(name)
        with self._locked(name):
            for path, _, files in os.walk(folder, topdown=False):
                if files:
                    raise AwsError("The bucket you tried to delete is not empty", code="BucketNotEmpty", status=409)
                Path(path).rmdir()
        (self._private / f"{name}.bucket").unlink(missing_ok=True)

    # Objects

    def incoming(self) -> Incoming:
        """Start to receive a file."""
        return Incoming(self._tmp / uuid4().hex)

    def find(self, bucket: str, key: str) -> Stored:
        """Give an object. Raises AwsError NoSuchBucket or NoSuchKey (404)."""
        found = self._find(self.bucket(bucket), bucket, key)
        if found is None:
            raise AwsError("The specified key does not exist.", code="NoSuchKey", status=404)
        return found

    def open(self, bucket: str, key: str) -> tuple[Stored, BinaryIO]:
        """Open an object for reading: its bytes stay these even when it is replaced. Raises as `find` does."""
        while True:
            found = self.find(bucket, key)
            with suppress(FileNotFoundError):  # replaced in between: look again
                file = found.path.open("rb")
                stat = os.fstat(file.fileno())
                if (stat.st_mtime_ns, stat.st_size) == (found.mtime_ns, found.size):
                    return found, file
                file.close()

    def commit(self, bucket: str, key: str, incoming: Incoming, about: About, condition: Condition) -> Stored:
        """Make what was received the object. `condition` sees the object that it replaces, and raises to forbid it."""
        incoming.close()
        folder, names = self.bucket(bucket), to_path(key)
        now = time.time_ns()
        os.utime(incoming.path, ns=(now, now))
        with self._locked(bucket):
            before = self._find(folder, bucket, key)
            condition(before)
            self._write_about(bucket, names, incoming.path.stat(), about)
            path = self._place(folder, names)
            incoming.path.rename(path)
            if path.name == names[-1]:
                path.with_name(path.name + DISPLACED).unlink(missing_ok=True)
            if before is not None:
                self._about_path(bucket, names, before.mtime_ns, before.size).unlink(missing_ok=True)
        return Stored(path, incoming.size, now, about)

    def describe(self, bucket: str, key: str, change: Callable[[About], About]) -> None:
        """Change what is kept beside an object's bytes."""
        with self._locked(bucket):
            stored = self.find(bucket, key)
            self._write_about(bucket, to_path(key), stored.path.stat(), change(stored.about))

    def delete(self, bucket: str, key: str, condition: Condition = anything) -> None:
        """Remove an object; one that does not exist is removed already."""
        folder, names = self.bucket(bucket), to_path(key)
        with self._locked(bucket):
            found = self._find(folder, bucket, key)
            condition(found)
            if found is None:
                return
            found.path.unlink()
            about = self._about_path(bucket, names, found.mtime_ns, found.size)
            about.unlink(missing_ok=True)
            _prune(found.path.parent, folder)
            _prune(about.parent, self._meta)

    def stored(self, bucket: str, key: str, path: Path, stat: os.stat_result) -> Stored:
        """Join a file that was found with what is known of it."""
        about_path = self._about_path(bucket, to_path(key), stat.st_mtime_ns, stat.st_size)
        try:
            about = About(**json.loads(about_path.read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            about = _guessed(key, stat)
        return Stored(path, stat.st_size, stat.st_mtime_ns, about)

    def _find(self, folder: Path, bucket: str, key: str) -> Stored | None:
        path = folder.joinpath(*to_path(key))
        for suffix in ("", DISPLACED):
            candidate = path.with_name(path.name + suffix) if suffix else path
            with suppress(FileNotFoundError, NotADirectoryError):
                status = candidate.stat()
                if S_ISREG(status.st_mode):
                    return self.stored(bucket, key, candidate, status)
        return None

    def _place(self, folder: Path, names: list[str]) -> Path:
        """Make the folders of a path; where an object has the name of one, move the object aside."""
        path = folder
        for name in names[:-1]:
            path = path / name
            if path.is_file():
                path.rename(path.with_name(name + DISPLACED))
            path.mkdir(exist_ok=True)
        path = path / names[-1]
        return path.with_name(path.name + DISPLACED) if path.is_dir() else path

    def _about_path(self, bucket: str, names: list[str], mtime_ns: int, size: int) -> Path:
        return self._meta.joinpath(bucket, *names[:-1], f"{names[-1]}%{mtime_ns:x}-{size:x}")

    def _write_about(self, bucket: str, names: list[str], stat: os.stat_result, about: About) -> None:
        path = self._about_path(bucket, names, stat.st_mtime_ns, stat.st_size)
        path.parent.mkdir(parents=True, exist_ok=True)
        written = self._tmp / uuid4().hex
        written.write_text(json.dumps(asdict(about)))
        written.rename(path)

    @contextmanager
    def _locked(self, bucket: str) -> Iterator[None]:
        """Let one process at a time change a bucket's names; bytes are received outside of it."""
        with (self._private / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.bucket(bucket)
            yield


def is_bucket_name(name: str) -> bool:
    """Tell whether S3 would take it for a bucket's name; it is then safe as a file name too."""
    plain = name.replace("-", "a").replace(".", "a")
    return 3 <= len(name) <= 63 and plain.isascii() and plain.isalnum() and name == name.lower() and name[0].isalnum()


def _guessed(key: str, stat: os.stat_result) -> About:
    """Describe a file that was put there by hand; an ETag with `-` is, to clients, not an MD5 of the bytes."""
    content_type = mimetypes.guess_type(key)[0] or "binary/octet-stream"
    identity = f"{stat.st_mtime_ns}-{stat.st_size}".encode()
    return About(f"{hashlib.md5(identity, usedforsecurity=False).hexdigest()}-1", {"content-type": content_type})


def _prune(folder: Path, stop: Path) -> None:
    """Remove folders that became empty: S3 has none."""
    while folder != stop:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
