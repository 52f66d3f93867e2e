"""One S3 request: what it names, what it is conditional on, how it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from functools import partial
from typing import ParamSpec, TypeVar
from urllib.parse import parse_qs, unquote

from clary.errors import AwsError
from clary.gateway.s3 import xml
from clary.gateway.streamed import Streamed
from clary.objectstore.disk import Condition, Disk, Stored
from clary.objectstore.multipart import Uploads
from clary.wire.awschunked import Payload
from clary.wire.sigv4 import Identity

P = ParamSpec("P")
R = TypeVar("R")

_BLOCK = 1024 * 1024
_LARGEST_DOCUMENT = 4 * 1024 * 1024
_SYSTEM_HEADERS = ("cache-control", "content-disposition", "content-language", "expires")


async def in_thread(work: Callable[P, R], *args: P.args, **named: P.kwargs) -> R:
    """Do what blocks on the disk away from the loop that serves invocations.

    When the request is cancelled meanwhile, this waits for the thread, which cannot be stopped: whoever cleans up after
    it must not overtake it.
    """
    running = asyncio.get_running_loop().run_in_executor(None, partial(work, *args, **named))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        running.exception()  # nobody is left to hear of it
        raise


@dataclass(frozen=True, slots=True)
class Call:
    """A request that is authenticated and taken apart. `key` is decoded; empty for a bucket's own operations."""

    request: Streamed
    identity: Identity | None
    disk: Disk
    uploads: Uploads
    bucket: str
    key: str
    params: Mapping[str, str]

    def header(self, name: str) -> str:
        return self.request.headers.get(name.encode(), b"").decode("utf-8", "replace")

    def payload(self) -> Payload:
        return Payload(self.identity, self.request.headers, aiter(self.request.body))

    async def document(self) -> bytes:
        """Read a body that is a document. Raises AwsError MaxMessageLengthExceeded (400)."""
        pieces, size = [], 0
        async for piece in self.payload():
            pieces.append(piece)
            size += len(piece)
            if size > _LARGEST_DOCUMENT:
                raise AwsError("Your request was too big.", code="MaxMessageLengthExceeded", status=400)
        return b"".join(pieces)

    def number(self, name: str, default: int) -> int:
        """Read a parameter that counts. Raises AwsError InvalidArgument (400)."""
        value = self.params.get(name, "")
        if value == "":
            return default
        if not (value.isascii() and value.isdigit() and len(value) < 10):
            message = f"Provided {name} not an integer or within integer range"
            raise AwsError(message, code="InvalidArgument", status=400)
        return int(value)

    async def answer(self, status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Answer with a whole document, or nothing."""
        lines = self.headers({"content-type": "application/xml"} if body else {})
        lines += [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        if status == 204:
            await self.request.start(status, lines)
            await self.request.end()
        else:
            await self.request.answer(status, lines, body)

    def headers(self, more: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        named = {"x-amz-request-id": self.request.request_id, "date": formatdate(usegmt=True), **more}
        return [(name.encode(), value.encode("utf-8")) for name, value in named.items()]


async def refuse(request: Streamed, failure: AwsError) -> None:
    """Answer with an error, in S3's XML; raise it on when an answer has begun, so that the connection breaks."""
    if request.started:
        raise failure
    if failure.code == "MissingAuthenticationTokenException":  # S3's words for it are others
        failure = AwsError("Access Denied", code="AccessDenied", status=403)
    body = xml.error(failure, request.path, request.request_id)
    headers = [(b"content-type", b"application/xml"), (b"x-amz-request-id", request.request_id.encode())]
    await request.answer(failure.status, headers, body)


def kept_headers(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """Pick what an object keeps of the request that made it: type, encoding, metadata."""
    given = {name.decode("latin-1"): value.decode("utf-8", "replace") for name, value in headers.items()}
    kept = {name: given[name] for name in _SYSTEM_HEADERS if name in given}
    kept |= {name: value for name, value in given.items() if name.startswith("x-amz-meta-")}
    kept["content-type"] = given.get("content-type") or "binary/octet-stream"
    encodings = [each.strip() for each in given.get("content-encoding", "").split(",")]
    if encoding := ",".join(each for each in encodings if each not in ("", "aws-chunked")):
        kept["content-encoding"] = encoding
    return kept


def header_tags(value: str) -> dict[str, str]:
    """Read `x-amz-tagging`: tags as a query string."""
    return {unquote(name): values[-1] for name, values in parse_qs(value, keep_blank_values=True).items()}


def to_replace(call: Call) -> Condition:
    """Make the condition under which a write may replace what is there (If-Match, If-None-Match)."""
    match, none_match = call.header("if-match"), call.header("if-none-match")

    def check(before: Stored | None) -> None:
        if match and before is None:
            raise AwsError("The specified key does not exist.", code="NoSuchKey", status=404)
        if match and before is not None and not _matches(match, before):
            raise _failed("If-Match")
        if none_match and before is not None and _matches(none_match, before):
            raise _failed("If-None-Match")

    return check


def to_read(call: Call, stored: Stored, prefix: str = "") -> bool:
    """Check the conditions of a read; False says that the reader's copy is still good (304).

    `prefix` is `x-amz-copy-source-` for the source of a copy. Precedence is RFC 9110's, section 13.2.2.
    Raises AwsError PreconditionFailed (412).
    """
    match, none_match = call.header(f"{prefix}if-match"), call.header(f"{prefix}if-none-match")
    modified = stored.mtime_ns // 10**9
    if match:
        if not _matches(match, stored):
            raise _failed("If-Match")
    elif (since := _date(call.header(f"{prefix}if-unmodified-since"))) is not None and modified > since:
        raise _failed("If-Unmodified-Since")
    if none_match:
        return not _matches(none_match, stored)
    since = _date(call.header(f"{prefix}if-modified-since"))
    return since is None or modified > since


def _matches(wanted: str, stored: Stored) -> bool:
    etags = [each.strip().removeprefix("W/").strip('"') for each in wanted.split(",")]
    return "*" in etags or stored.about.etag in etags


def _failed(condition: str) -> AwsError:
    message = f"At least one of the pre-conditions you specified did not hold ({condition})"
    return AwsError(message, code="PreconditionFailed", status=412)


def _date(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp() if value else None
    except ValueError:
        return None  # a date that cannot be read is as good as none: RFC 9110, section 13.1.3


def byte_range(value: str, size: int) -> tuple[int, int] | None:
    """Give first byte and length of a Range header; None where it is to be ignored (several ranges, other units).

    Raises AwsError InvalidRange (416).
    """
    first, dash, last = value.removeprefix("bytes=").partition("-")
    plain = all(each.isascii() and each.isdigit() and len(each) < 20 for each in (first, last) if each)
    if not value.startswith("bytes=") or not dash or not plain or not (first or last):
        return None
    if not first:
        start, end = max(0, size - int(last)), size - 1
        unsatisfiable = int(last) == 0 or size == 0
    else:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
        unsatisfiable = start >= size
        if last and int(last) < start:
            return None
    if unsatisfiable:
        raise AwsError("The requested range is not satisfiable", code="InvalidRange", status=416)
    return start, end - start + 1


async def blocks(pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Join small pieces, so that each trip to a thread is worth it."""
    waiting: list[bytes] = []
    size = 0
    async for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _BLOCK:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def checksum_headers(checksums: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in checksums.items()}
