"""The canonical request of Signature Version 4: the one byte string that signer and verifier must agree on.

Source: AWS, "Create a signed AWS API request", step 1. Where AWS's prose and its SDKs part, botocore's bytes are taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

_PLAIN_PATH = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~/"


class Request(NamedTuple):
    """The parts of a request that are signed, as they came: percent-encoded, header names lower-case."""

    method: str
    path: bytes
    query: bytes
    headers: Mapping[bytes, bytes]


def sent_resource(path: bytes, query: bytes, *, s3: bool) -> tuple[bytes, bytes]:
    """Give the canonical path and query of a client that signs what it sends, as botocore does."""
    return path if s3 else double_encoded(path), _sorted_pairs(query) if query else b""


def strict_resource(path: bytes, query: bytes, *, s3: bool) -> tuple[bytes, bytes]:
    """Give the canonical path and query by AWS's prose: decoded, then encoded strictly.

    It differs from `sent_resource` only where characters were sent bare that AWS would encode. Both decode to the same
    resource, so that accepting either gives away nothing.
    """
    return _strictly_encoded(path) if s3 else double_encoded(path), _strict_pairs(query)


def canonical_request(
    request: Request, resource: tuple[bytes, bytes], signed: Iterable[bytes], signed_headers: bytes, payload_hash: str
) -> bytes:
    """Assemble the canonical request; `signed` are the names of `signed_headers`, in its order.

    A signed header that is absent counts as empty: removing one breaks the signature unless it was empty.
    """
    lines = [request.method.encode(), *resource]
    headers = request.headers
    for name in signed:
        lines.append(name + b":" + b" ".join(headers.get(name, b"").split()))
    lines += (b"", signed_headers, payload_hash.encode())
    return b"\n".join(lines)


def double_encoded(path: bytes) -> bytes:
    """Normalise a path (dot segments, repeated slashes) and encode what is encoded already once more: not for S3."""
    # `find`, because `in` on bytes first tries its left side as a number, which costs an exception.
    if path.find(b"//") < 0 and path.find(b"/.") < 0 and path and not path.translate(None, _PLAIN_PATH):
        return path
    segments: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del segments[-1:]
        elif segment not in (b"", b"."):
            segments.append(segment)
    normalised = b"/" + b"/".join(segments) + (b"/" if segments and path.endswith(b"/") else b"")
    return quote_from_bytes(normalised, safe="/~").encode()


def _strictly_encoded(text: bytes, safe: str = "/~") -> bytes:
    """Decode, then encode all but unreserved characters and `safe`."""
    return quote_from_bytes(unquote_to_bytes(text), safe=safe).encode()


def _sorted_pairs(query: bytes) -> bytes:
    if b"&" not in query:
        return query if b"=" in query else query + b"="
    pairs = sorted(pair.partition(b"=")[::2] for pair in query.split(b"&"))
    return b"&".join([name + b"=" + value for name, value in pairs])


def _strict_pairs(query: bytes) -> bytes:
    pairs = (pair.partition(b"=")[::2] for pair in query.replace(b"+", b"%20").split(b"&") if pair)
    encoded = sorted((_strictly_encoded(name, "~"), _strictly_encoded(value, "~")) for name, value in pairs)
    return b"&".join([name + b"=" + value for name, value in encoded])
