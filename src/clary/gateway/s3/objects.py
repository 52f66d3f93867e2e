"""The operations on one object: read, write, copy, remove, tag."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import replace
from email.utils import formatdate
from typing import BinaryIO
from urllib.parse import unquote

from clary.errors import AwsError
from clary.gateway.s3 import xml
from clary.gateway.s3.call import (
    Call,
    blocks,
    byte_range,
    checksum_headers,
    header_tags,
    in_thread,
    kept_headers,
    to_read,
    to_replace,
)
from clary.objectstore.disk import About, Incoming, Stored

_BLOCK = 256 * 1024
_OVERRIDES = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
)


async def get_object(call: Call) -> None:
    """GetObject and HeadObject."""
    with ExitStack() as files:
        stored, file = await in_thread(_open, call, files)
        headers = _object_headers(call, stored)
        if not to_read(call, stored):
            await call.request.start(304, call.headers(headers))
            await call.request.end()
            return
        ranged = byte_range(call.header("range"), stored.size)
        start, length = ranged or (0, stored.size)
        headers["content-length"] = str(length)
        if ranged:
            headers["content-range"] = f"bytes {start}-{start + length - 1}/{stored.size}"
        elif call.header("x-amz-checksum-mode").upper() == "ENABLED":
            headers |= stored.about.checksums
        await call.request.start(206 if ranged else 200, call.headers(headers))
        if call.request.method != "HEAD":
            async for data in _read(file, start, length):
                await call.request.write(data)
        await call.request.end()


def _open(call: Call, files: ExitStack) -> tuple[Stored, BinaryIO]:
    """Open an object and see to its being closed, even when nobody waits for it any more."""
    stored, file = call.disk.open(call.bucket, call.key)
    return stored, files.enter_context(file)


async def _read(file: BinaryIO, start: int, length: int) -> AsyncIterator[bytes]:
    file.seek(start)
    while length > 0:
        data = await in_thread(file.read, min(_BLOCK, length))
        if not data:
            raise OSError("an object's file was cut short while it was read")
        length -= len(data)
        yield data


def _object_headers(call: Call, stored: Stored) -> dict[str, str]:
    headers = {
        "etag": xml.quoted(stored.about.etag),
        "last-modified": formatdate(stored.mtime_ns // 10**9, usegmt=True),
        "accept-ranges": "bytes",
        **stored.about.headers,
    }
    for name in _OVERRIDES:
        if value := call.params.get(f"response-{name}"):
            headers[name] = value.replace("\r", "").replace("\n", "")
    if stored.about.tags:
        headers["x-amz-tagging-count"] = str(len(stored.about.tags))
    return headers


async def receive(call: Call) -> tuple[Incoming, dict[str, str]]:
    """Receive a request's payload; give the file, not yet anyone's, and the payload's checksums."""
    payload = call.payload()
    incoming = call.disk.incoming()
    try:
        async for block in blocks(payload):
            await in_thread(incoming.write, block)
        if (declared := call.header("content-md5")) and declared != base64.b64encode(incoming.md5).decode():
            raise AwsError(
                "The Content-MD5 you specified did not match what we received.", code="BadDigest", status=400
            )
    except BaseException:
        incoming.discard()
        raise
    return incoming, checksum_headers(payload.checksums)


async def put_object(call: Call) -> None:
    await in_thread(call.disk.bucket, call.bucket)
    incoming, checksums = await receive(call)
    about = About(
        incoming.md5.hex(), kept_headers(call.request.headers), checksums, header_tags(call.header("x-amz-tagging"))
    )
    try:
        await in_thread(call.disk.commit, call.bucket, call.key, incoming, about, to_replace(call))
    finally:
        incoming.discard()
    await call.answer(headers={"etag": xml.quoted(about.etag), **checksums})


def open_source(call: Call) -> tuple[Stored, BinaryIO]:
    """Open what is to be copied. Raises AwsError InvalidArgument (400), NoSuchKey (404), PreconditionFailed (412)."""
    source = unquote(call.header("x-amz-copy-source").partition("?")[0]).removeprefix("/")
    bucket, _, key = source.partition("/")
    if not key:
        message = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
        raise AwsError(message, code="InvalidArgument", status=400)
    stored, file = call.disk.open(bucket, key)
    try:
        if not to_read(call, stored, "x-amz-copy-source-"):
            message = "At least one of the pre-conditions you specified did not hold"
            raise AwsError(message, code="PreconditionFailed", status=412)
    except AwsError:
        file.close()
        raise
    return stored, file


def copy_bytes(file: BinaryIO, start: int, length: int, incoming: Incoming) -> None:
    file.seek(start)
    while length > 0 and (data := file.read(min(_BLOCK, length))):
        incoming.write(data)
        length -= len(data)


async def copy_object(call: Call) -> None:
    stored = await in_thread(_copy, call)
    await call.answer(
        body=xml.document(
            "CopyObjectResult",
            xml.text("LastModified", xml.timestamp(stored.mtime_ns / 1e9)),
            xml.text("ETag", xml.quoted(stored.about.etag)),
        )
    )


def _copy(call: Call) -> Stored:
    source, file = open_source(call)
    about = source.about
    replaced = call.header("x-amz-metadata-directive").upper() == "REPLACE"
    if replaced:
        about = replace(about, headers=kept_headers(call.request.headers))
    if call.header("x-amz-tagging-directive").upper() == "REPLACE":
        about = replace(about, tags=header_tags(call.header("x-amz-tagging")))
    incoming = call.disk.incoming()
    try:
        with file:
            copy_bytes(file, 0, source.size, incoming)
        about = replace(about, etag=incoming.md5.hex())
        return call.disk.commit(call.bucket, call.key, incoming, about, to_replace(call))
    finally:
        incoming.discard()


async def delete_object(call: Call) -> None:
    await in_thread(call.disk.delete, call.bucket, call.key)
    await call.answer(204)


async def get_tagging(call: Call) -> None:
    stored = await in_thread(call.disk.find, call.bucket, call.key)
    tags = (
        xml.element("Tag", xml.text("Key", name), xml.text("Value", value)) for name, value in stored.about.tags.items()
    )
    await call.answer(body=xml.document("Tagging", xml.element("TagSet", *tags)))


async def put_tagging(call: Call) -> None:
    tree = xml.parse(await call.document())
    tags = {tag.findtext("Key", ""): tag.findtext("Value", "") for tag in tree.iterfind("TagSet/Tag")}
    if len(tags) > 10:
        raise AwsError("Object tags cannot be greater than 10", code="BadRequest", status=400)
    await in_thread(call.disk.describe, call.bucket, call.key, lambda about: replace(about, tags=tags))
    await call.answer()


async def delete_tagging(call: Call) -> None:
    await in_thread(call.disk.describe, call.bucket, call.key, lambda about: replace(about, tags={}))
    await call.answer(204)
