"""AWS's event stream, from the server's side: `application/vnd.amazon.eventstream`.

A message is its total length, the length of its headers and a checksum of these two, then headers, payload and a
checksum of everything before. The reference is botocore's decoder, against which the tests run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from struct import Struct
from zlib import crc32

CONTENT_TYPE = b"application/vnd.amazon.eventstream"
MAX_PAYLOAD = 16 * 1024 * 1024
"""Bytes that readers take in one message."""

_PRELUDE = Struct(">II")
_CHECKSUM = Struct(">I")
_STRING = 7
_AROUND = 16
"""Bytes of a message besides headers and payload."""


def _headers(headers: Mapping[str, str]) -> bytes:
    parts = []
    for name, value in headers.items():
        raw_name, raw_value = name.encode(), value.encode()
        parts += [bytes((len(raw_name),)), raw_name, bytes((_STRING,)), len(raw_value).to_bytes(2, "big"), raw_value]
    return b"".join(parts)


def message(headers: bytes, payload: bytes) -> bytes:
    """Frame a payload of at most MAX_PAYLOAD bytes with headers that are encoded already."""
    prelude = _PRELUDE.pack(_AROUND + len(headers) + len(payload), len(headers))
    start = b"".join((prelude, _CHECKSUM.pack(crc32(prelude)), headers, payload))
    return start + _CHECKSUM.pack(crc32(start))


_PAYLOAD_PART = _headers(
    {":event-type": "PayloadPart", ":content-type": "application/octet-stream", ":message-type": "event"}
)


def payload_part(data: bytes) -> bytes:
    """Frame a piece of a model's answer."""
    if len(data) <= MAX_PAYLOAD:
        return message(_PAYLOAD_PART, data)
    pieces = (data[at : at + MAX_PAYLOAD] for at in range(0, len(data), MAX_PAYLOAD))
    return b"".join(message(_PAYLOAD_PART, piece) for piece in pieces)


def exception(name: str, members: Mapping[str, str]) -> bytes:
    """Frame an error that ends the stream: `ModelStreamError`, `InternalStreamFailure`."""
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return message(_headers(headers), json.dumps(members).encode())
