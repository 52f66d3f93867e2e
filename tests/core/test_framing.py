"""Records begin and end where the formats say, byte for byte."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as some

from clary.core.framing import FRAMINGS, BadData, Framing, SplitType, masked_crc32c

MAGIC = struct.pack("<I", 0xCED7230A)


def recordio(payload: bytes) -> bytes:
    """Write one record as dmlc-core does: parted where it holds the magic number at a multiple of four."""
    parts, start = [], 0
    for place in range(0, len(payload) - 3, 4):
        if payload[place : place + 4] == MAGIC:
            parts.append(payload[start:place])
            start = place + 4
    parts.append(payload[start:])
    framed = b""
    for number, part in enumerate(parts):
        flag = 0 if len(parts) == 1 else 1 if number == 0 else 3 if number == len(parts) - 1 else 2
        framed += MAGIC + struct.pack("<I", flag << 29 | len(part)) + part + b"\0" * (-len(part) % 4)
    return framed


def tfrecord(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    checksums = [struct.pack("<I", masked_crc32c(each)) for each in (length, payload)]
    return length + checksums[0] + payload + checksums[1]


PAYLOADS = some.one_of(
    some.binary(max_size=40),
    some.lists(some.sampled_from([MAGIC, b"abcd", b"x", b"\0"]), max_size=8).map(b"".join),
)


def test_the_checksum_is_tensorflows() -> None:
    # CRC-32C of "123456789" is e3069283, before it is masked.
    assert masked_crc32c(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.parametrize(
    ("split", "framed"),
    [
        ("RecordIO", "0a23d7ce0500000068656c6c6f000000"),
        ("TFRecord", "0500000000000000eab2043e68656c6c6fbb1f1c19"),
    ],
)
def test_hello_as_the_formats_own_writers_write_it(split: SplitType, framed: str) -> None:
    framing, record = FRAMINGS[split], bytes.fromhex(framed)
    assert framing.end(record, 0) == len(record)
    assert framing.content(record) == b"hello"


@pytest.mark.parametrize(("framing", "write"), [(FRAMINGS["RecordIO"], recordio), (FRAMINGS["TFRecord"], tfrecord)])
@given(payloads=some.lists(PAYLOADS, max_size=5), cut=some.integers(0, 400))
def test_what_was_written_is_read_and_no_part_is_taken_for_a_record(
    framing: Framing, write: object, payloads: list[bytes], cut: int
) -> None:
    records = [write(payload) for payload in payloads]  # type: ignore[operator]
    data = b"".join(records)[:cut]
    start, found = 0, []
    while (end := framing.end(data, start)) >= 0:
        found.append(data[start:end])
        start = end
    whole = [record for number, record in enumerate(records) if sum(map(len, records[: number + 1])) <= cut]
    assert found == whole
    assert [framing.content(record) for record in found] == payloads[: len(whole)]


def test_noise_is_no_record() -> None:
    with pytest.raises(BadData, match="magic number"):
        FRAMINGS["RecordIO"].end(b"hello, world", 0)
    with pytest.raises(BadData, match="checksum"):
        FRAMINGS["TFRecord"].end(b"hello, world", 0)
