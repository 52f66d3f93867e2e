"""Bodies that S3 clients send in pieces, with a signature for each piece or checksums at the end (`aws-chunked`).

Source: the S3 API reference, "Signature calculations for the Authorization header: transferring payload in multiple
chunks" and "... trailing headers". A chunk is handed on before its signature can be known, so that memory stays
constant whatever size a client chooses; one who stores them must drop everything when the decoder raises.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from hashlib import sha1, sha256
from typing import Protocol
from zlib import crc32

from clary.errors import AwsError
from clary.wire.sigv4 import EMPTY_SHA256, STREAMED_PAYLOADS, UNSIGNED_PAYLOAD, Identity, payload_mismatch

_MAX_LINE = 16 * 1024
_MAX_CHUNK = 5 * 1024**3
_CHECKSUM = b"x-amz-checksum-"
_NOT_SUMS = (b"x-amz-checksum-algorithm", b"x-amz-checksum-mode", b"x-amz-checksum-type")


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def checksum(header: bytes) -> _Hash | None:
    """Make the hash of an `x-amz-checksum-*` header; None for those that the standard library lacks."""
    match header.lower():
        case b"x-amz-checksum-crc32":
            return _Crc32()
        case b"x-amz-checksum-sha1":
            return sha1(usedforsecurity=False)
        case b"x-amz-checksum-sha256":
            return sha256()
    return None


def bad_digest(header: bytes) -> AwsError:
    """Make S3's answer to a checksum that is not the body's."""
    name = header.removeprefix(_CHECKSUM).decode("latin-1").upper()
    return AwsError(f"The {name} you specified did not match the calculated checksum.", code="BadDigest", status=400)


def incomplete_body() -> AwsError:
    """Make S3's answer to a body that ends early, or has another length than announced."""
    message = "You did not provide the number of bytes specified by the Content-Length HTTP header"
    return AwsError(message, code="IncompleteBody", status=400)


class Decoder:
    """Decode one `aws-chunked` body, fed piece by piece; verify what it carries to be verified by.

    Raises AwsError: SignatureDoesNotMatch (403), IncompleteBody, BadDigest, MalformedTrailerError, InvalidChunk (400).
    """

    def __init__(self, identity: Identity | None, headers: Mapping[bytes, bytes]) -> None:
        mode = headers.get(b"x-amz-content-sha256", b"").decode("latin-1")
        self._identity = identity if mode.startswith("STREAMING-AWS4") else None
        self._with_trailer = mode.endswith("-TRAILER")
        self._previous = identity.signature if identity else ""
        announced = headers.get(b"x-amz-decoded-content-length")
        self._announced = int(announced) if announced is not None and announced.isdigit() else None
        self._declared = {
            name.strip().lower() for name in headers.get(b"x-amz-trailer", b"").split(b",") if name.strip()
        }
        self._checksums = {name: made for name in self._declared if (made := checksum(name)) is not None}
        self.trailers: dict[bytes, bytes] = {}
        self._buffer = bytearray()
        self._state = self._read_header
        self._left = self._total = 0
        self._hash = sha256()
        self._signature = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes as they come; give the pieces of payload that they complete."""
        self._buffer += data
        pieces: list[bytes] = []
        while self._state(pieces):
            pass
        return pieces

    def finish(self) -> None:
        """Tell that no more bytes will come; raises when the body is not complete."""
        ended = self._state in (self._read_nothing, self._read_end) and not self._buffer
        if not ended or (self._announced is not None and self._announced != self._total):
            raise incomplete_body()

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_LINE:
                raise _invalid_chunk()
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _read_header(self, pieces: list[bytes]) -> bool:
        line = self._line()
        if line is None:
            return False
        size, _, extension = line.partition(b";")
        if not size or len(size) > 16 or size.translate(None, b"0123456789abcdefABCDEF"):
            raise _invalid_chunk()
        self._left = int(size, 16)
        if self._left > _MAX_CHUNK:
            raise _invalid_chunk()
        name, _, self._signature = extension.strip().partition(b"=")
        if self._identity and name != b"chunk-signature":
            raise _wrong_signature()
        if self._left:
            self._state = self._read_data
        else:
            self._end_chunk()
            self._state = self._read_trailer if self._with_trailer else self._read_end
        return True

    def _read_data(self, pieces: list[bytes]) -> bool:
        piece = bytes(self._buffer[: self._left])
        if not piece:
            return False
        del self._buffer[: len(piece)]
        self._left -= len(piece)
        self._total += len(piece)
        if self._announced is not None and self._total > self._announced:
            raise incomplete_body()
        if self._identity:
            self._hash.update(piece)
        for made in self._checksums.values():
            made.update(piece)
        pieces.append(piece)
        if not self._left:
            self._state = self._read_data_end
        return True

    def _read_data_end(self, pieces: list[bytes]) -> bool:
        if len(self._buffer) < 2:
            return False
        if self._buffer[:2] != b"\r\n":
            raise _invalid_chunk()
        del self._buffer[:2]
        self._end_chunk()
        self._state = self._read_header
        return True

    def _end_chunk(self) -> None:
        if self._identity:
            self._check("AWS4-HMAC-SHA256-PAYLOAD", f"{EMPTY_SHA256}\n{self._hash.hexdigest()}", self._signature)
            self._hash = sha256()

    def _check(self, algorithm: str, hashes: str, signature: bytes) -> None:
        identity = self._identity
        assert identity is not None
        text = f"{algorithm}\n{identity.timestamp}\n{identity.scope}\n{self._previous}\n{hashes}"
        expected = identity.signing_key.sign(text.encode())
        if not hmac.compare_digest(expected.encode(), signature):
            raise _wrong_signature()
        self._previous = expected

    def _read_trailer(self, pieces: list[bytes]) -> bool:
        line = self._line()
        if line is None:
            return False
        if not line:
            self._check_trailers()
            self._state = self._read_nothing
            return True
        name, colon, value = line.partition(b":")
        name = name.strip().lower()
        if not colon or name in self.trailers or len(self.trailers) > 16:
            raise _malformed_trailer()
        self.trailers[name] = value.strip()
        return True

    def _check_trailers(self) -> None:
        signature = self.trailers.pop(b"x-amz-trailer-signature", b"")
        if self.trailers.keys() != self._declared:
            raise _malformed_trailer()
        if self._identity:
            text = b"".join(name + b":" + value + b"\n" for name, value in sorted(self.trailers.items()))
            self._check("AWS4-HMAC-SHA256-TRAILER", sha256(text).hexdigest(), signature)
        for name, made in self._checksums.items():
            if b64encode(made.digest()) != self.trailers[name]:
                raise bad_digest(name)

    def _read_end(self, pieces: list[bytes]) -> bool:
        """Read the line that ends a body without trailers; some clients leave it out."""
        if not self._buffer or self._buffer == b"\r":
            return False
        if self._buffer[:2] != b"\r\n":
            raise _invalid_chunk()
        del self._buffer[:2]
        self._state = self._read_nothing
        return True

    def _read_nothing(self, pieces: list[bytes]) -> bool:
        if self._buffer:
            raise _invalid_chunk()
        return False


class Payload:
    """An S3 request's payload as it is meant: without chunk framing, and verified at its end.

    The last step of iterating raises AwsError when the body is not what was signed, announced or summed: what was read
    until then must not be kept. `identity` is None where requests need no signature; sums are verified all the same.
    After the end, `checksums` holds the `x-amz-checksum-*` headers and trailers.
    """

    def __init__(self, identity: Identity | None, headers: Mapping[bytes, bytes], body: AsyncIterator[bytes]) -> None:
        self._identity = identity
        self._headers = headers
        self._body = body
        self.checksums = {
            name: value for name, value in headers.items() if name.startswith(_CHECKSUM) and name not in _NOT_SUMS
        }

    async def __aiter__(self) -> AsyncIterator[bytes]:
        headers = self._headers
        declared = headers.get(b"x-amz-content-sha256", b"").decode("latin-1")
        sums = {name: made for name in self.checksums if (made := checksum(name)) is not None}
        signed = sha256() if declared not in ("", UNSIGNED_PAYLOAD, *STREAMED_PAYLOADS) else None
        chunked = declared in STREAMED_PAYLOADS or b"aws-chunked" in headers.get(b"content-encoding", b"")
        decoder = Decoder(self._identity, headers) if chunked else None
        async for data in self._body:
            for piece in decoder.feed(data) if decoder else (data,):
                if signed is not None:
                    signed.update(piece)
                for made in sums.values():
                    made.update(piece)
                yield piece
        if decoder:
            decoder.finish()
            self.checksums |= decoder.trailers
        if signed is not None and signed.hexdigest() != declared:
            raise payload_mismatch()
        for name, made in sums.items():
            if b64encode(made.digest()) != headers[name]:
                raise bad_digest(name)


def _invalid_chunk() -> AwsError:
    return AwsError("The aws-chunked body is not well-formed.", code="InvalidRequest", status=400)


def _wrong_signature() -> AwsError:
    message = "The request signature we calculated does not match the signature you provided."
    return AwsError(message, code="SignatureDoesNotMatch", status=403)


def _malformed_trailer() -> AwsError:
    message = "The request contained trailing data that was not well-formed or did not conform to our published schema."
    return AwsError(message, code="MalformedTrailerError", status=400)
