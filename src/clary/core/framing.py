"""Where the records of an object begin and end: lines, RecordIO, TFRecord. Bytes in, bytes out, nothing is changed.

RecordIO as in dmlc-core's recordio.h, of which MXNet's and the SageMaker SDK's writers make use; TFRecord as in
TensorFlow's record_writer.
"""

from __future__ import annotations

import struct
from typing import Literal, Protocol

from clary.errors import ClaryError

SplitType = Literal["None", "Line", "RecordIO", "TFRecord"]

_MAGIC = struct.pack("<I", 0xCED7230A)
_LENGTH = (1 << 29) - 1
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_TF_HEAD, _TF_TAIL = 12, 4
_CASTAGNOLI = 0x82F63B78


class BadData(ClaryError):
    """An object, or a model's answer, is not what it is said to be. `record`: the number of the culprit, from 1."""

    def __init__(self, message: str, record: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.record = record


class Framing(Protocol):
    """How one kind of record lies among others."""

    def end(self, data: bytes | bytearray, start: int) -> int:
        """Give where the record ends that begins at `start`; -1 where not all of it is there. Raises BadData."""
        ...

    def content(self, record: bytes) -> bytes:
        """Give what is sent of a whole record when it is sent alone."""
        ...

    @property
    def may_be_cut_off(self) -> bool:
        """Whether what is left at an object's end is a record too."""
        ...


class Lines:
    """A record ends with `\\n`, which belongs to it, like a `\\r` before it; the last one need not."""

    may_be_cut_off = True

    def end(self, data: bytes | bytearray, start: int) -> int:
        return data.find(b"\n", start) + 1 or -1

    def content(self, record: bytes) -> bytes:
        return record


class RecordIO:
    """Magic number, a word of flag and length, payload, zeros up to a multiple of four bytes.

    A payload that holds the magic number at such a multiple is in several parts, between which it is left out.
    """

    may_be_cut_off = False

    def end(self, data: bytes | bytearray, start: int) -> int:
        while True:
            if len(data) < start + 8:
                return -1
            flag, length = _part(data, start)
            start += 8 + (length + 3) // 4 * 4
            if len(data) < start:
                return -1
            if flag in (_WHOLE, _LAST):
                return start

    def content(self, record: bytes) -> bytes:
        payloads, start = [], 0
        while start < len(record):
            _, length = _part(record, start)
            payloads.append(record[start + 8 : start + 8 + length])
            start += 8 + (length + 3) // 4 * 4
        return _MAGIC.join(payloads)


def _part(data: bytes | bytearray, start: int) -> tuple[int, int]:
    magic, word = data[start : start + 4], struct.unpack_from("<I", data, start + 4)[0]
    if magic != _MAGIC:
        raise BadData("Failed to parse input as RecordIO: a record does not begin with the magic number")
    return word >> 29, word & _LENGTH


class TFRecord:
    """Length, its checksum, payload, its checksum. The length's is verified: without it all that follows is noise."""

    may_be_cut_off = False

    def end(self, data: bytes | bytearray, start: int) -> int:
        if len(data) < start + _TF_HEAD:
            return -1
        length, checksum = struct.unpack_from("<QI", data, start)
        if masked_crc32c(bytes(data[start : start + 8])) != checksum:
            raise BadData("Failed to parse input as TFRecord: a record's length does not match its checksum")
        end = start + _TF_HEAD + length + _TF_TAIL
        return end if len(data) >= end else -1

    def content(self, record: bytes) -> bytes:
        return record[_TF_HEAD:-_TF_TAIL]


def masked_crc32c(data: bytes) -> int:
    """Give TensorFlow's checksum: CRC-32C, rotated by 15 bits, and a constant added."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _row(number: int) -> int:
    for _ in range(8):
        number = number >> 1 ^ (_CASTAGNOLI if number & 1 else 0)
    return number


_TABLE = tuple(_row(number) for number in range(256))

FRAMINGS: dict[SplitType, Framing] = {"Line": Lines(), "RecordIO": RecordIO(), "TFRecord": TFRecord()}
