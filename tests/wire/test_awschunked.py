"""Chunked bodies: what AWS's example and botocore send is read; anything else is refused."""

from __future__ import annotations

import base64
import zlib
from collections.abc import AsyncIterator, Mapping
from hashlib import sha1, sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.errors import AwsError
from clary.wire.awschunked import Decoder, Payload
from clary.wire.signer import SigningKey
from clary.wire.sigv4 import EMPTY_SHA256, Identity

SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

# The example of "Transferring payload in multiple chunks" in the S3 API reference, signatures as printed there.
SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
CHUNKS = (
    (65536, b"ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
    (1024, b"0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
    (0, b"b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
)


def identity(mode: str, seed: str = SEED) -> Identity:
    key = SigningKey("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524", "us-east-1", "s3")
    scope = "20130524/us-east-1/s3/aws4_request"
    return Identity("AKIAIOSFODNN7EXAMPLE", "s3", "us-east-1", "20130524T000000Z", scope, mode, seed, key)


def headers(mode: str, length: int, trailer: bytes = b"") -> dict[bytes, bytes]:
    made = {b"x-amz-content-sha256": mode.encode(), b"x-amz-decoded-content-length": b"%d" % length}
    return made | ({b"x-amz-trailer": trailer} if trailer else {})


def example() -> bytes:
    return b"".join(b"%x;chunk-signature=%b\r\n%b\r\n" % (size, sig, b"a" * size) for size, sig in CHUNKS)


def decode(data: bytes, head: Mapping[bytes, bytes], who: Identity | None, step: int = 0) -> bytes:
    decoder = Decoder(who, head)
    step = step or max(1, len(data))
    payload = b"".join(b"".join(decoder.feed(data[at : at + step])) for at in range(0, len(data), step))
    decoder.finish()
    return payload


def refusal(data: bytes, head: Mapping[bytes, bytes], who: Identity | None) -> str:
    with pytest.raises(AwsError) as caught:
        decode(data, head, who)
    return caught.value.code


@pytest.mark.parametrize("step", [0, 1, 7, 65537])
def test_awss_example_is_read_however_it_is_cut(step: int) -> None:
    assert decode(example(), headers(SIGNED, 66560), identity(SIGNED), step) == b"a" * 66560


@pytest.mark.parametrize("at", [100, 66_000])
def test_a_changed_chunk_is_refused(at: int) -> None:
    data = bytearray(example())
    position = data.index(b"aaaa", at)
    data[position] = ord("b")
    assert refusal(bytes(data), headers(SIGNED, 66560), identity(SIGNED)) == "SignatureDoesNotMatch"


def test_chunks_are_bound_to_their_request_and_their_order() -> None:
    assert refusal(example(), headers(SIGNED, 66560), identity(SIGNED, "0" * 64)) == "SignatureDoesNotMatch"


def test_a_chunk_without_signature_is_refused_where_they_are_signed() -> None:
    assert refusal(b"1\r\na\r\n0\r\n\r\n", headers(SIGNED, 1), identity(SIGNED)) == "SignatureDoesNotMatch"


@pytest.mark.parametrize("cut", [10, 65_000, 65_640, -20])
def test_a_body_that_ends_early_is_refused(cut: int) -> None:
    assert refusal(example()[:cut], headers(SIGNED, 66560), identity(SIGNED)) in (
        "IncompleteBody",
        "SignatureDoesNotMatch",
    )


@pytest.mark.parametrize("length", [66559, 66561])
def test_another_length_than_announced_is_refused(length: int) -> None:
    assert refusal(example(), headers(SIGNED, length), identity(SIGNED)) == "IncompleteBody"


CRC32 = b"x-amz-checksum-crc32"


def crc32(data: bytes) -> bytes:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big"))


def trailed(data: bytes, trailer: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(data), data, trailer)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (CRC32, crc32(b"hello")),
        (b"x-amz-checksum-sha1", base64.b64encode(sha1(b"hello").digest())),
        (b"x-amz-checksum-sha256", base64.b64encode(sha256(b"hello").digest())),
    ],
)
def test_a_trailing_checksum_is_verified(name: bytes, value: bytes) -> None:
    head = headers(UNSIGNED_TRAILER, 5, name)
    assert decode(trailed(b"hello", name + b":" + value), head, None) == b"hello"
    assert refusal(trailed(b"hellO", name + b":" + value), head, None) == "BadDigest"


def test_a_checksum_that_the_standard_library_lacks_is_passed_on() -> None:
    name = b"x-amz-checksum-crc64nvme"
    decoder = Decoder(None, headers(UNSIGNED_TRAILER, 5, name))
    assert decoder.feed(trailed(b"hello", name + b":abc=")) == [b"hello"]
    decoder.finish()
    assert decoder.trailers == {name: b"abc="}


@pytest.mark.parametrize("trailer", [b"x-amz-checksum-sha1:abc", b"no colon", CRC32 + b":a\r\n" + CRC32 + b":a", b""])
def test_a_trailer_other_than_announced_is_refused(trailer: bytes) -> None:
    data = trailed(b"hello", trailer)
    assert refusal(data, headers(UNSIGNED_TRAILER, 5, CRC32), None) in ("MalformedTrailerError", "InvalidRequest")


def signed_trailer(data: bytes, who: Identity) -> bytes:
    """Sign by AWS's prose: one data chunk, the empty one, the trailer."""
    prefix, previous = f"{who.timestamp}\n{who.scope}", who.signature
    lines = b""
    for chunk in (data, b""):
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{prefix}\n{previous}\n{EMPTY_SHA256}\n{sha256(chunk).hexdigest()}"
        previous = who.signing_key.sign(text.encode())
        lines += b"%x;chunk-signature=%b\r\n" % (len(chunk), previous.encode()) + (chunk + b"\r\n" if chunk else b"")
    trailer = CRC32 + b":" + crc32(data)
    text = f"AWS4-HMAC-SHA256-TRAILER\n{prefix}\n{previous}\n{sha256(trailer + bytes([10])).hexdigest()}"
    return (
        lines + trailer + b"\r\nx-amz-trailer-signature:" + who.signing_key.sign(text.encode()).encode() + b"\r\n\r\n"
    )


def test_a_signed_trailer_is_verified() -> None:
    who, head = identity(SIGNED_TRAILER), headers(SIGNED_TRAILER, 5, CRC32)
    data = signed_trailer(b"hello", who)
    assert decode(data, head, who, step=3) == b"hello"
    assert refusal(data.replace(crc32(b"hello"), crc32(b"other")), head, who) == "SignatureDoesNotMatch"
    assert refusal(data[: data.index(b"x-amz-trailer-")] + b"\r\n", head, who) == "SignatureDoesNotMatch"


@pytest.mark.parametrize("data", [b"x\r\n", b"-1\r\n", b"\r\n", b"1\r\nab\r\n", b"f" * 17 + b"\r\n", b"ffffffffff\r\n"])
def test_a_malformed_chunk_is_refused(data: bytes) -> None:
    assert refusal(data, headers(UNSIGNED_TRAILER, 5), None) in ("InvalidRequest", "IncompleteBody")


def test_a_chunk_header_without_end_does_not_fill_the_memory() -> None:
    assert refusal(b"1;" + b"x" * 20_000, headers(UNSIGNED_TRAILER, 1), None) == "InvalidRequest"


@given(st.binary(max_size=60))
def test_garbage_is_refused_in_words(data: bytes) -> None:
    try:
        decode(data, headers(UNSIGNED_TRAILER, 5, CRC32), None)
    except AwsError as error:
        assert 400 <= error.status < 500


async def sent(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def read(payload: Payload) -> bytes:
    return b"".join([piece async for piece in payload])


async def test_a_plain_body_is_held_against_the_hash_that_was_signed() -> None:
    head = {b"x-amz-content-sha256": sha256(b"hello").hexdigest().encode()}
    assert await read(Payload(None, head, sent(b"he", b"llo"))) == b"hello"
    with pytest.raises(AwsError, match="does not match what was computed"):
        await read(Payload(None, head, sent(b"he", b"llO")))


async def test_a_plain_body_is_held_against_its_checksum_header() -> None:
    head = {b"x-amz-content-sha256": b"UNSIGNED-PAYLOAD", CRC32: crc32(b"hello")}
    assert await read(Payload(None, head, sent(b"hello"))) == b"hello"
    with pytest.raises(AwsError, match="CRC32 you specified did not match"):
        await read(Payload(None, head, sent(b"other")))


async def test_the_checksums_of_a_chunked_body_are_known_at_its_end() -> None:
    head = headers(UNSIGNED_TRAILER, 5, CRC32)
    payload = Payload(None, head, sent(trailed(b"hello", CRC32 + b":" + crc32(b"hello"))))
    assert await read(payload) == b"hello"
    assert payload.checksums == {CRC32: crc32(b"hello")}
