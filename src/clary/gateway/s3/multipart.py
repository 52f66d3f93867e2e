"""The operations on uploads in parts."""

from __future__ import annotations

import asyncio

from clary.errors import AwsError
from clary.gateway.s3 import xml
from clary.gateway.s3.call import Call, byte_range, header_tags, in_thread, kept_headers, to_replace
from clary.gateway.s3.objects import copy_bytes, open_source, receive
from clary.objectstore.multipart import Upload

_KEEP_ALIVE = 10.0
"""Seconds between two signs of life while parts are joined; clients give up after a minute of silence."""


async def create_upload(call: Call) -> None:
    headers, tags = kept_headers(call.request.headers), header_tags(call.header("x-amz-tagging"))
    upload_id = await in_thread(call.uploads.start, call.bucket, call.key, headers, tags)
    names = (xml.text("Bucket", call.bucket), xml.text("Key", call.key), xml.text("UploadId", upload_id))
    algorithm = call.header("x-amz-checksum-algorithm")
    await call.answer(
        body=xml.document("InitiateMultipartUploadResult", *names),
        headers={"x-amz-checksum-algorithm": algorithm} if algorithm else {},
    )


async def _upload(call: Call) -> Upload:
    return await in_thread(call.uploads.find, call.params["uploadId"], call.bucket, call.key)


async def upload_part(call: Call) -> None:
    """UploadPart, and UploadPartCopy where a source is named."""
    upload = await _upload(call)
    if call.header("x-amz-copy-source"):
        etag, modified = await in_thread(_copy_part, call, upload)
        result = (xml.text("LastModified", xml.timestamp(modified)), xml.text("ETag", xml.quoted(etag)))
        await call.answer(body=xml.document("CopyPartResult", *result))
        return
    incoming, checksums = await receive(call)
    try:
        etag = await in_thread(call.uploads.put_part, upload, call.number("partNumber", 0), incoming)
    finally:
        incoming.discard()
    await call.answer(headers={"etag": xml.quoted(etag), **checksums})


def _copy_part(call: Call, upload: Upload) -> tuple[str, float]:
    source, file = open_source(call)
    incoming = call.disk.incoming()
    try:
        with file:
            wanted = call.header("x-amz-copy-source-range")
            start, length = (byte_range(wanted, source.size) if wanted else None) or (0, source.size)
            copy_bytes(file, start, length, incoming)
        return call.uploads.put_part(upload, call.number("partNumber", 0), incoming), source.mtime_ns / 1e9
    finally:
        incoming.discard()


async def list_parts(call: Call) -> None:
    upload = await _upload(call)
    found = await in_thread(call.uploads.parts, upload)
    after, limit = call.number("part-number-marker", 0), min(call.number("max-parts", 1000), 1000)
    left = [part for part in found if part.number > after]
    await call.answer(body=xml.parts(upload, left[:limit], limit, more=len(left) > limit))


async def complete_upload(call: Call) -> None:
    """Join the parts. As at AWS, an answer that takes long begins before its outcome is known."""
    tree = xml.parse(await call.document())
    try:
        wanted = [
            (int(part.findtext("PartNumber", "")), part.findtext("ETag", "").strip('"')) for part in tree.iter("Part")
        ]
    except ValueError:
        raise xml.malformed() from None
    upload = await _upload(call)
    work = asyncio.create_task(in_thread(call.uploads.complete, upload, wanted, to_replace(call)))
    started = False
    while not (await asyncio.wait({work}, timeout=_KEEP_ALIVE))[0]:
        if not started:
            await call.request.start(200, call.headers({"content-type": "application/xml"}))
            await call.request.write(xml.DECLARATION)
            started = True
        await call.request.write(b" ")
    try:
        stored = work.result()
        names = (xml.text("Bucket", call.bucket), xml.text("Key", call.key))
        location = xml.text("Location", f"/{call.bucket}/{call.key}")
        result = xml.root(
            "CompleteMultipartUploadResult", location, *names, xml.text("ETag", xml.quoted(stored.about.etag))
        )
    except AwsError as failure:
        if not started:
            raise
        result = xml.error(failure, call.request.path, call.request.request_id).removeprefix(xml.DECLARATION)
    if started:
        await call.request.write(result)
        await call.request.end()
    else:
        await call.answer(body=xml.DECLARATION + result)


async def abort_upload(call: Call) -> None:
    upload = await _upload(call)
    await in_thread(call.uploads.abort, upload)
    await call.answer(204)


async def list_uploads(call: Call) -> None:
    found = await in_thread(call.uploads.of_bucket, call.bucket, call.params.get("prefix", ""))
    await call.answer(body=xml.uploads(call.bucket, found))
