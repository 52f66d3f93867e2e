"""Objects by URL: `s3://` (and the `https://` spellings of S3 itself) and, below folders that were allowed, `file://`."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

import obstore
from obstore.store import S3Store

from clary.errors import Transient
from clary.objecterrors import ObjectNotFound, ObjectRefused, translated

if TYPE_CHECKING:  # the stubs' alone: obstore takes plain dictionaries
    from obstore import Attributes, GetOptions, GetResult, ObjectMeta
    from obstore.store import ClientConfig, RetryConfig, S3Config

CHUNK = 4 * 1024 * 1024
PIECE = 1024 * 1024
"""Of an object that is worked at while it comes."""
PARTS_AT_ONCE = 3
"""Of an object that is written in parts, each of which is in memory (5 MiB; more of an object beyond 50 GB)."""
PAUSE = 1.0
"""Longest wait, in seconds, before going on with an object that was interrupted."""
PART = 5 * 1024 * 1024
"""Bytes above which an object that comes in pieces is written in parts; S3 takes no smaller ones."""

# What else a store would read as another key, or another bucket: it drops empty segments and follows dots.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NO_SEGMENT = re.compile(r"|\.|\.\.|.*[\x00-\x1f\x7f\ud800-\udfff].*", re.DOTALL)

_S3_HOST = re.compile(
    r"(?:(?P<bucket>[a-z0-9][a-z0-9.-]+)\.)?s3(?:[.-](?:dualstack\.)?[a-z]{2}(?:-[a-z]+)+-\d)?\.amazonaws\.com(?:\.cn)?"
)

# Retries are obstore's. Short: a reconciler stands behind us and tries again with a longer breath. The overall time
# of a request is not limited, since objects are large; a stalled one ends by the read timeout.
_RETRIES: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=15)}
_CLIENT: ClientConfig = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=60),
    "timeout": timedelta(days=1),
}

PARTS = 10_000
"""Parts that an object may have in S3."""

_LONGEST_KEY = 1024
"""Bytes."""

Count = Callable[[int, int], None]
"""Told the bytes done and the bytes in total."""


class OnDisk(Protocol):
    """An S3 whose objects are files of this machine. Both raise FileNotFoundError for what is not there."""

    def head(self, bucket: str, key: str) -> tuple[int, str]:
        """Give an object's size and ETag, without quotes."""
        ...

    def open(self, bucket: str, key: str) -> tuple[int, str, IO[bytes]]:
        """Give an object's size, its ETag without quotes, and its bytes, which stay these when it is replaced."""
        ...


@dataclass(frozen=True, slots=True, order=True)
class ObjectHead:
    """What identifies one version of an object. Size in bytes."""

    size: int
    etag: str

    def require(self, url: str, etag: str) -> None:
        """Raise ObjectRefused where it is another version than that of this ETag; an empty one is anybody's."""
        if etag.strip('"') not in ("", self.etag.strip('"')):
            raise ObjectRefused(f"{url}: its ETag is {self.etag}, not {etag}")


class Opened(NamedTuple):
    """An object that is being read. Size in bytes."""

    size: int
    content_type: str
    """As it was stored; empty where the store does not say."""
    pieces: AsyncIterator[bytes]
    """Raises ObjectRefused or Transient where the rest cannot be had."""


class AtHand(NamedTuple):
    """An object that is a file of this machine, opened. What replaces it is another file."""

    head: ObjectHead
    file: IO[bytes]


class Objects:
    """Reads objects, and writes them to S3.

    `s3_endpoint` None or empty: AWS itself. Without a key requests are not signed, which is what the bundled S3 on
    loopback expects. `file_roots` are the folders that `file://` URLs may point into, after links are followed.
    `own`: the endpoint is on this machine, and whose its certificate is does not matter.
    """

    def __init__(
        self,
        s3_endpoint: str | None,
        access_key_id: str,
        secret_access_key: str,
        region: str,
        file_roots: tuple[Path, ...],
        *,
        own: bool = False,
    ) -> None:
        self.session_token = ""
        """Belongs to a key that is temporary; to be set before the first use."""
        self.on_disk: OnDisk | None = None
        """Where the objects are files of this machine: what models are made of is read there, and does not pass through
        those who answer invocations. To be set before the first use."""
        self._endpoint = (s3_endpoint or "").rstrip("/")
        self._key = (access_key_id, secret_access_key)
        self._region = region
        self._roots = tuple(root.resolve() for root in file_roots)
        self._own = own
        self._stores: dict[str, S3Store] = {}

    def canonical(self, url: str) -> str:
        """Give the one spelling by which policies and the store know an object or a prefix: `s3://bucket/key`.

        A `file://` URL is given back. Raises ObjectRefused for what Clary does not read.
        """
        if _is_file(url):
            return url
        bucket, key = self._split(url)
        return f"s3://{bucket}/{key}"

    async def head(self, url: str) -> ObjectHead:
        """Give an object's size and ETag. Raises ObjectNotFound, ObjectRefused or Transient."""
        if _is_file(url):
            return _file_head(self._file(url).stat())
        bucket, key = self._locate(url)
        with translated(url):
            if self.on_disk is not None:
                size, etag = self.on_disk.head(bucket, key)  # a look or two at a folder: a thread costs more
                return ObjectHead(size, f'"{etag}"')
            meta = await obstore.head_async(self._store(bucket), key)
        return _head(meta)

    async def any_below(self, url: str) -> bool:
        """Tell whether an object's key begins with the URL's, as a folder. Raises ObjectRefused or Transient."""
        bucket, prefix = self._split(url)
        with translated(url):
            async for _ in obstore.list(self._store(bucket), prefix, chunk_size=1):
                return True
        return False

    async def below(self, url: str) -> Sequence[tuple[str, str, ObjectHead]]:
        """Give every object in the folder that the URL is: its URL, its path in the folder, its head; by key.

        Raises ObjectRefused or Transient.
        """
        bucket, prefix = self._split(url)
        with translated(url):
            found = [meta async for batch in obstore.list(self._store(bucket), prefix) for meta in batch]
        folder = prefix.rstrip("/") + "/" if prefix else ""
        return sorted((f"s3://{bucket}/{m['path']}", m["path"].removeprefix(folder), _head(m)) for m in found)

    async def beginning_with(self, url: str) -> AsyncIterator[tuple[str, ObjectHead]]:
        """Give every object whose key begins with the URL's, whatever follows: its URL and its head, by key.

        Raises ObjectRefused or Transient.
        """
        bucket, prefix = self._split(url)
        folder, slash, _ = prefix.rpartition("/")
        with translated(url):
            # Keys come in order: what begins with the prefix comes after what is one character shorter.
            async for batch in obstore.list(self._store(bucket), folder + slash or None, offset=prefix[:-1] or None):
                for meta in batch:
                    if meta["path"].startswith(prefix):
                        yield f"s3://{bucket}/{meta['path']}", _head(meta)
                    elif meta["path"] > prefix:
                        return

    async def chunks(
        self, url: str, head: ObjectHead, patience: float, begun: GetResult | None = None
    ) -> AsyncIterator[bytes]:
        """Give an object of S3, a MiB or so at a time, going on where it was interrupted; the time between two chunks
        is the caller's. `begun` is an answer of the store that nobody has read yet.

        Raises ObjectNotFound, ObjectRefused (another version is there by now), or Transient after `patience` seconds in
        which nothing came.
        """
        bucket, key = self._locate(url)
        done, loop = 0, asyncio.get_running_loop()
        heard = loop.time()
        while done < head.size:
            options: GetOptions = {"range": {"offset": done}, "if_match": head.etag}
            try:
                with translated(url):
                    result = begun or await obstore.get_async(self._store(bucket), key, options=options)
                    begun = None
                    async for chunk in result.stream(min_chunk_size=PIECE):
                        done += len(chunk)
                        yield bytes(chunk)
                        heard = loop.time()
            except Transient as trouble:
                if loop.time() - heard > patience:
                    raise
                await asyncio.sleep(min(trouble.retry_after, PAUSE))

    async def read(self, url: str, limit: int, etag: str = "") -> bytes:
        """Give the whole of a small object of S3, of at most `limit` bytes.

        Raises ObjectNotFound, ObjectRefused (a larger one, or with `etag` another version) or Transient.
        """
        bucket, key = self._locate(url)
        with translated(url):
            result = await obstore.get_async(self._store(bucket), key)
            head = _head(result.meta)
            if head.size > limit:
                raise ObjectRefused(f"{url}: it has {head.size} bytes, and at most {limit} are read")
            head.require(url, etag)
            return bytes(await result.bytes_async())

    def at_hand(self, url: str) -> AtHand | None:
        """Open an object that is a file of this machine; None: it is none. Raises ObjectNotFound or ObjectRefused."""
        if _is_file(url):
            file = self._file(url).open("rb")
            return AtHand(_file_head(os.fstat(file.fileno())), file)
        bucket, key = self._locate(url)
        if self.on_disk is None:
            return None
        with translated(url):
            size, etag, opened = self.on_disk.open(bucket, key)
        return AtHand(ObjectHead(size, f'"{etag}"'), opened)

    async def download(self, url: str, path: Path, progress: Count) -> None:
        """Write an object to a file, a few MiB at a time. Raises ObjectNotFound, ObjectRefused or Transient."""
        if (here := self.at_hand(url)) is not None:
            await _copy(here, path, progress)
            return
        bucket, key = self._locate(url)
        done = 0
        with translated(url), path.open("wb") as target:
            result = await obstore.get_async(self._store(bucket), key)
            total = result.meta["size"]
            async for chunk in result.stream(min_chunk_size=CHUNK):
                await asyncio.to_thread(target.write, chunk)
                done += len(chunk)
                progress(done, total)
        if done != total:
            raise Transient(f"{url}: the connection ended after {done} of {total} bytes")

    async def put(self, url: str, body: bytes) -> None:
        """Write an object, to S3 alone. Raises ObjectNotFound (no such bucket), ObjectRefused or Transient."""
        bucket, key = self._locate(url)
        with translated(url):
            await obstore.put_async(self._store(bucket), key, body)

    async def upload(self, url: str, file: IO[bytes], content_type: str = "") -> None:
        """Write an object from a file, in parts where it is large; there is all of it afterwards, or none. Raises as
        `put` does.
        """
        bucket, key = self._locate(url)
        attributes: Attributes = {"Content-Type": content_type} if content_type else {}
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        part = max(PART, -(-size // PARTS))
        with translated(url):
            await obstore.put_async(
                self._store(bucket), key, file, attributes=attributes, chunk_size=part, max_concurrency=PARTS_AT_ONCE
            )

    async def open(self, url: str, patience: float) -> Opened:
        """Begin to read an object of S3, as `chunks` does. Raises ObjectNotFound, ObjectRefused or Transient."""
        bucket, key = self._locate(url)
        with translated(url):
            result = await obstore.get_async(self._store(bucket), key)
        head, content_type = _head(result.meta), str(result.attributes.get("Content-Type", ""))
        return Opened(head.size, content_type, self.chunks(url, head, patience, result))

    async def write(self, url: str, pieces: AsyncIterator[bytes], content_type: str = "") -> None:
        """Write an object of any size, which nobody sees before it is whole, in constant memory; to S3 alone.

        Raises ObjectNotFound (no such bucket), ObjectRefused or Transient, and whatever `pieces` raises: then there is
        no object.
        """
        bucket, key = self._locate(url)
        attributes: Attributes = {"Content-Type": content_type} if content_type else {}
        begun = bytearray()
        async for piece in pieces:
            begun += piece
            if len(begun) >= PART:
                break
        else:
            with translated(url):
                await obstore.put_async(self._store(bucket), key, bytes(begun), attributes=attributes)
            return
        whole = _joined(bytes(begun), pieces)
        with translated(url):
            await obstore.put_async(
                self._store(bucket), key, whole, attributes=attributes, chunk_size=PART, max_concurrency=1
            )

    def _locate(self, url: str) -> tuple[str, str]:
        """Split an object's URL into bucket and key."""
        bucket, key = self._split(url)
        if not key or key.endswith("/"):
            raise ObjectRefused(f"{url}: expected a bucket and a key")
        return bucket, key

    def _split(self, url: str) -> tuple[str, str]:
        """Split a URL into bucket and key; only as a prefix may a key be empty or end with a slash."""
        bucket, _, key = self._path(url).partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise ObjectRefused(f"{url}: expected a bucket")
        if key and any(_NO_SEGMENT.fullmatch(segment) for segment in key.removesuffix("/").split("/")):
            raise ObjectRefused(f"{url}: no part of a key may be empty, `.` or `..`, or hold control characters")
        if len(key.encode()) > _LONGEST_KEY:  # S3 says of it no more than 400
            raise ObjectRefused(f"{url}: a key has at most {_LONGEST_KEY} bytes")
        return bucket, key

    def _path(self, url: str) -> str:
        """Give `bucket/key` of a URL as it is written."""
        if url.startswith("s3://"):  # nothing is escaped there: a key may hold `%`, `?` and `#`
            return url.removeprefix("s3://")
        path = host = None
        parts = _parts(url)
        if self._endpoint and url.startswith(f"{self._endpoint}/"):
            path = unquote(parts.path.removeprefix(urlsplit(self._endpoint).path))
        elif parts.scheme == "https" and (host := _S3_HOST.fullmatch(parts.netloc.lower())):
            path = unquote(parts.path)
        if path is None or "?" in url or "#" in url:
            raise ObjectRefused(
                f"{url}: Clary reads s3://bucket/key, the https:// address of an S3 object, and file://"
            )
        return f"{host['bucket']}{path}" if host and host["bucket"] else path.removeprefix("/")

    def _store(self, bucket: str) -> S3Store:
        if bucket not in self._stores:
            key, secret = self._key
            config: S3Config = {"region": self._region, "virtual_hosted_style_request": False}
            if self._endpoint:
                config["endpoint"] = self._endpoint
            if key:
                config |= {"access_key_id": key, "secret_access_key": secret}
                if self.session_token:
                    config["session_token"] = self.session_token
            else:
                config["skip_signature"] = True
            client: ClientConfig = {**_CLIENT, "allow_http": self._endpoint.startswith("http://")}
            client["allow_invalid_certificates"] = self._own
            self._stores[bucket] = S3Store(bucket, config=config, client_options=client, retry_config=_RETRIES)
        return self._stores[bucket]

    def _file(self, url: str) -> Path:
        """Give the file of a file:// URL, with every link followed, if it lies below an allowed folder."""
        parts = _parts(url)
        asked = Path(unquote(parts.path))
        if parts.netloc not in ("", "localhost") or "\0" in str(asked):
            raise ObjectRefused(f"{url}: a file URL has three slashes and an absolute path")
        path = asked.resolve()
        # Checked before existence, so that the answer does not tell what exists elsewhere.
        if not any(path.is_relative_to(root) for root in self._roots):
            raise ObjectRefused(f"{url}: it is not below a folder that --file-roots allows")
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ObjectNotFound(f"{url}: there is no such file") from error
        except OSError as error:
            raise ObjectRefused(f"{url}: {error.strerror}") from error
        if not stat.S_ISREG(mode):
            raise ObjectRefused(f"{url}: it is not a file")
        return path


async def _joined(begun: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield begun
    async for piece in pieces:
        yield piece


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise ObjectRefused(f"{url}: {error}") from error


def _is_file(url: str) -> bool:
    return _parts(url).scheme == "file"


def _head(meta: ObjectMeta) -> ObjectHead:
    return ObjectHead(meta["size"], meta["e_tag"] or meta["last_modified"].isoformat())


def _file_head(status: os.stat_result) -> ObjectHead:
    return ObjectHead(status.st_size, f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}")


async def _copy(here: AtHand, path: Path, progress: Count) -> None:
    """Write a file of this machine to another."""
    done = 0
    with here.file as source, path.open("wb") as target:
        while True:
            count = await asyncio.to_thread(_copy_chunk, source, target)
            done += count
            progress(done, here.head.size)
            if done >= here.head.size:
                return
            if not count:
                raise Transient(f"{path.name}: its file was cut short while it was read")


def _copy_chunk(origin: IO[bytes], target: IO[bytes]) -> int:
    return target.write(origin.read(CHUNK))
