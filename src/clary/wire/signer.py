"""What is derived once for many signatures: the key of a day, and the rest of an `Authorization` header."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from operator import itemgetter

ALGORITHM = "AWS4-HMAC-SHA256"
TERMINATOR = "aws4_request"


class SigningKey:
    """A derived key, held as the two hash states that HMAC starts from: a third of the price of `hmac.digest`."""

    __slots__ = ("inner", "outer", "pads")

    def __init__(self, secret: str, date: str, region: str, service: str) -> None:
        key = f"AWS4{secret}".encode()
        for part in (date, region, service, TERMINATOR):
            key = hmac.digest(key, part.encode(), "sha256")
        block = key.ljust(64, b"\0")
        self.pads = (bytes(byte ^ 0x36 for byte in block), bytes(byte ^ 0x5C for byte in block))
        """What both begin with."""
        self.inner, self.outer = map(sha256, self.pads)

    def sign(self, message: bytes) -> str:
        """Give the HMAC-SHA256 of a message in hexadecimal."""
        inner = self.inner.copy()
        inner.update(message)
        outer = self.outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest()


@dataclass(slots=True)
class KnownSigner:
    """All that an `Authorization` header says but the signature."""

    access_key_id: str
    service: str
    region: str
    scope: str
    date: str
    signed: tuple[bytes, ...]
    signed_headers: bytes
    key: SigningKey
    token: bytes
    expires_at: float
    form: bytes = field(init=False)
    """The canonical request with places for method, path, the signed headers' values and the payload's hash."""
    values: Callable[[Mapping[bytes, bytes]], tuple[bytes, ...]] = field(init=False)
    """Gives the signed headers' values, in order. Raises KeyError."""
    covered: set[bytes] = field(init=False)
    """Names of headers that may come with this signature: signed ones and, of those seen, others that need not be."""

    def __post_init__(self) -> None:
        lines = [name.replace(b"%", b"%%") + b":%b" for name in self.signed]
        self.form = b"\n".join((b"%b", b"%b", b"", *lines, b"", self.signed_headers.replace(b"%", b"%%"), b"%b"))
        self.values = itemgetter(b"host", *self.signed)  # of one key it would give no tuple
        self.covered = set(self.signed)

    def signature(self, stamp: str, canonical: bytes) -> bytes:
        """Give the signature, in hexadecimal, that a canonical request has at a time."""
        text = f"{ALGORITHM}\n{stamp}\n{self.scope}\n{sha256(canonical).hexdigest()}"
        return self.key.sign(text.encode()).encode()
