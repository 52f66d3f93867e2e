"""S3's XML, both ways. S3 documents no schema that a client validates; element names are those of botocore's model."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from clary.errors import AwsError
from clary.objectstore.disk import Stored
from clary.objectstore.listing import Page, Query
from clary.objectstore.multipart import Part, Upload

DECLARATION = b'<?xml version="1.0" encoding="UTF-8"?>\n'
_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_OWNER = "<Owner><ID>clary</ID></Owner>"
# XML has no way to say these but as references, and S3 writes them so although XML 1.0 forbids it.
_CONTROLS = {chr(code): f"&#{code};" for code in (*range(32), 127)}


def element(name: str, *content: str) -> str:
    """Write an element around what is XML already."""
    return f"<{name}>{''.join(content)}</{name}>"


def text(name: str, value: str | int | bool) -> str:
    """Write an element around a value."""
    written = str(value).lower() if isinstance(value, bool) else str(value)
    return f"<{name}>{escape(written, _CONTROLS)}</{name}>"


def document(name: str, *content: str) -> bytes:
    """Write a whole answer."""
    return DECLARATION + root(name, *content)


def root(name: str, *content: str) -> bytes:
    """Write an answer whose declaration is out already."""
    return f"<{name} {_NAMESPACE}>{''.join(content)}</{name}>".encode()


def timestamp(seconds: float) -> str:
    """Write a time as S3 does: UTC, milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(seconds * 1000) % 1000:03}Z"


def quoted(etag: str) -> str:
    return f'"{etag}"'


def error(failure: AwsError, resource: str, request_id: str) -> bytes:
    """Write the body of an error: the one document of S3's without a namespace."""
    content = (text("Code", failure.code), text("Message", failure.message), text("Resource", resource))
    return DECLARATION + element("Error", *content, text("RequestId", request_id)).encode()


def buckets(found: Iterable[tuple[str, float]]) -> bytes:
    each = (element("Bucket", text("Name", name), text("CreationDate", timestamp(made))) for name, made in found)
    return document("ListAllMyBucketsResult", _OWNER, element("Buckets", *each))


def key_text(name: str, key: str, *, encoded: bool) -> str:
    """Write an element around a key or a part of one, as it is written in URLs where the client asks for that."""
    return text(name, quote(key, safe="/") if encoded else key)


def listing(page: Page, query: Query, bucket: str, heading: str, *, encoded: bool) -> bytes:
    """Write a page of keys; `heading` is what the two versions of ListObjects say differently."""

    def one(name: str, stored: Stored) -> str:
        return element(
            "Contents",
            key_text("Key", name, encoded=encoded),
            text("LastModified", timestamp(stored.mtime_ns / 1e9)),
            text("ETag", quoted(stored.about.etag)),
            text("Size", stored.size),
            text("StorageClass", "STANDARD"),
        )

    return document(
        "ListBucketResult",
        text("Name", bucket),
        key_text("Prefix", query.prefix, encoded=encoded),
        key_text("Delimiter", query.delimiter, encoded=encoded) if query.delimiter else "",
        text("MaxKeys", query.limit),
        text("EncodingType", "url") if encoded else "",
        text("IsTruncated", bool(page.next)),
        heading,
        *(one(name, stored) for name, stored in page.objects),
        *(element("CommonPrefixes", key_text("Prefix", prefix, encoded=encoded)) for prefix in page.prefixes),
    )


def parts(upload: Upload, found: Iterable[Part], limit: int, *, more: bool) -> bytes:
    found = list(found)
    each = (
        element(
            "Part",
            text("PartNumber", part.number),
            text("LastModified", timestamp(part.modified)),
            text("ETag", quoted(part.etag)),
            text("Size", part.size),
        )
        for part in found
    )
    return document(
        "ListPartsResult",
        text("Bucket", upload.bucket),
        text("Key", upload.key),
        text("UploadId", upload.id),
        text("MaxParts", limit),
        text("NextPartNumberMarker", found[-1].number if found else 0),
        text("IsTruncated", more),
        *each,
    )


def uploads(bucket: str, found: Iterable[Upload]) -> bytes:
    each = (
        element(
            "Upload",
            text("Key", upload.key),
            text("UploadId", upload.id),
            text("Initiated", timestamp(upload.started)),
        )
        for upload in found
    )
    return document("ListMultipartUploadsResult", text("Bucket", bucket), text("IsTruncated", False), *each)


def parse(body: bytes) -> ElementTree.Element:
    """Read a request's document; element names lose their namespace. Raises AwsError MalformedXML (400)."""
    try:
        if b"<!DOCTYPE" in body:  # nothing of S3's has one, and entities are how XML is turned against its reader
            raise ElementTree.ParseError("a document type")
        tree = ElementTree.fromstring(body)  # noqa: S314 - without a DOCTYPE there are no entities to expand
    except ElementTree.ParseError:
        raise malformed() from None
    for node in tree.iter():
        node.tag = node.tag.rpartition("}")[2]
    return tree


def malformed() -> AwsError:
    message = "The XML you provided was not well-formed or did not validate against our published schema"
    return AwsError(message, code="MalformedXML", status=400)
