"""model.tar.gz -> directory, with the archive taken for an attack until it is unpacked.

What is refused, and why: paths that are absolute or hold `..`, links that leave the tree, hard links (one could name a
file of the host), devices and FIFOs, a name that occurs twice or lies below something that is not a directory, sparse
members, names that are not UTF-8 or too long, and more bytes or members than agreed. AWS fails on every symbolic link;
Clary lets through relative ones that end at a file of the same archive, which is the layout of a Hugging Face cache.
"""

from __future__ import annotations

import gzip
import os
import posixpath
import shutil
import tarfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, Self

MAX_MEMBERS = 200_000
MAX_NAME = 1024
"""Bytes of a member's whole name; a part of it may have 255, as the file system says."""
MAX_HEADER = 1024 * 1024
"""Bytes of one extended header: tarfile reads it into memory, and its size is the archive's word."""
_PER_MEMBER = 2048
_CHUNK = 1024 * 1024
_BLOCK = 64 * 1024
"""Bytes that tarfile reads at a time; by itself 10 KiB, which is many more calls."""
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class Refused(Exception):
    """The archive is damaged, or one of its members is not let through. The text names it and says why."""


class TooLarge(Exception):
    """It unpacks to more bytes than agreed."""


class Cancelled(Exception):
    """Whoever asked does not want it any more."""


def unpack(archive: IO[bytes], target: Path, max_bytes: int, cancelled: threading.Event) -> int:
    """Unpack a gzip'ed tar into a new directory and give the bytes that its files have.

    Blocks; runs in constant memory. Files get mode 0644, or 0755 where their owner could execute them, so that
    nothing is set-uid. Raises Refused, TooLarge or Cancelled, leaving a part of the tree behind.
    """
    target.mkdir(mode=0o755)
    with _translated(), gzip.open(archive) as plain:
        stream = _Bounded(plain, max_bytes + MAX_MEMBERS * _PER_MEMBER, cancelled)
        tree = _Tree(target, max_bytes)
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_BLOCK, tarinfo=_Header, encoding="utf-8") as tar:  # type: ignore[call-overload]  # typeshed wants a whole IO; read() is what tarfile calls
            for member in tar:
                tree.add(tar, member)
                tar.members.clear()  # tarfile remembers every member, and there may be many
        while stream.read(_CHUNK):  # to the end, where gzip's checksum is
            pass
        tree.finish()
    return tree.size


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error) as error:
        raise Refused(f"It is not a gzip'ed tar: {error}.") from error
    except EOFError as error:
        raise Refused("It is cut off: the compressed data ends too early.") from error
    except (RecursionError, ValueError, OverflowError) as error:
        raise Refused(f"Its headers make no sense: {type(error).__name__}.") from error


class _Header(tarfile.TarInfo):
    """A tar header whose extensions are bounded."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _EXTENSIONS and header.size > MAX_HEADER):
            raise Refused(f"An extended header claims to have {header.size} bytes.")
        return header


class _Bounded:
    """The plain side of the archive: limited in length, and where cancellation is noticed."""

    def __init__(self, plain: IO[bytes] | gzip.GzipFile, limit: int, cancelled: threading.Event) -> None:
        self._plain = plain
        self._left = limit
        self._cancelled = cancelled

    def read(self, size: int) -> bytes:
        if self._cancelled.is_set():
            raise Cancelled
        data = self._plain.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise TooLarge
        return data


class _Tree:
    """What has been unpacked so far, by normalised name.

    Symbolic links are made last of all, so that nothing can ever be written through one.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._kinds: dict[str, Literal["directory", "file", "link"]] = {}
        self._links: dict[str, str] = {}
        self._members = 0
        self.size = 0

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise Refused(f"It has more than {MAX_MEMBERS} members.")
        name = _normalised(member.name)
        if member.isdir():
            if name:
                self._make_directory(name)
            return
        if not name:
            raise _refusal(member.name, "only a directory can be the root")
        if name in self._kinds:
            raise _refusal(name, "it occurs twice")
        self._make_directory(posixpath.dirname(name))
        if member.issym():
            self._kinds[name] = "link"
            self._links[name] = _link_target(name, member.linkname)
        elif member.isreg() and not member.issparse():
            self._kinds[name] = "file"
            self._write(tar, member, name)
        else:
            raise _refusal(name, f"it is {_describe(member)}")

    def finish(self) -> None:
        """Make the links, then look where each one really ends."""
        for name, target in self._links.items():
            (self._root / name).symlink_to(target)
        root = self._root.resolve()
        for name in self._links:
            try:
                end = (root / name).resolve(strict=True)
            except (OSError, RuntimeError) as error:  # RuntimeError: a loop
                raise _refusal(name, "it is a link that leads nowhere") from error
            if not end.is_relative_to(root) or not end.is_file():
                raise _refusal(name, "it is a link to something other than a file of the archive")

    def _make_directory(self, name: str) -> None:
        if not name or self._kinds.get(name) == "directory":
            return
        if name in self._kinds:
            raise _refusal(name, "it is a file or a link and also a directory")
        self._make_directory(posixpath.dirname(name))
        (self._root / name).mkdir(mode=0o755)
        (self._root / name).chmod(0o755)  # whatever our umask says
        self._kinds[name] = "directory"

    def _write(self, tar: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
        self.size += member.size
        if self.size > self._max_bytes:
            raise TooLarge
        source = tar.extractfile(member)
        assert source is not None, "a regular member has content"
        descriptor = os.open(self._root / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with source, os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(source, file, _CHUNK)
            os.fchmod(descriptor, 0o755 if member.mode & 0o100 else 0o644)


def _normalised(name: str) -> str:
    """Give a member's name without `.` and doubled slashes; empty for the root itself."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError as error:  # tarfile keeps what is not UTF-8 as lone surrogates
        raise _refusal(name, "its name is not UTF-8") from error
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/"):
        raise _refusal(name, "its path is absolute")
    if ".." in parts:
        raise _refusal(name, "its path has '..' in it")
    if "\0" in name:
        raise _refusal(name, "its name holds a NUL")
    if len(encoded) > MAX_NAME or any(len(part.encode()) > 255 for part in parts):
        raise _refusal(name, "its name is too long")
    return "/".join(parts)


def _link_target(name: str, target: str) -> str:
    try:
        too_long = len(target.encode()) > MAX_NAME
    except UnicodeEncodeError as error:
        raise _refusal(name, "it is a link whose target is not UTF-8") from error
    if too_long or not target or "\0" in target:
        raise _refusal(name, "it is a link whose target is no path")
    if target.startswith("/"):
        raise _refusal(name, f"it is a link to the absolute path {_shown(target)}")
    end = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    if end == ".." or end.startswith("../"):
        raise _refusal(name, f"it is a link that leaves the archive: {_shown(target)}")
    return target


def _describe(member: tarfile.TarInfo) -> str:
    if member.islnk():
        return "a hard link"
    if member.ischr() or member.isblk():
        return "a device"
    if member.isfifo():
        return "a FIFO"
    return "a sparse file" if member.issparse() else f"a member of type {member.type!r}"


def _refusal(name: str, why: str) -> Refused:
    return Refused(f"Member {_shown(name)}: {why}.")


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 100 else f"{name[:60]}...{name[-30:]}")
