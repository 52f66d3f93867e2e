"""Rows of CSV and documents of JSON: read, and written again. As Go's encoding/csv does it, whose words the service's
logs have: RFC 4180's quotes, empty lines are no rows, a quote belongs at the edge of a field or in quotes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Protocol

from clary.core.framing import BadData
from clary.core.jsonpath import Json


class Format(Protocol):
    """A content type whose records can be looked into."""

    by_position: bool
    """Whether records are rows, which have no names."""

    def parse(self, data: bytes, what: str) -> list[Json]:
        """Give the records in a body. `what` (`input`, `output from the algorithm`) is for BadData."""
        ...

    def dump(self, record: Json) -> bytes:
        """Write one record, without an end of line."""
        ...


class Csv:
    by_position = True

    def parse(self, data: bytes, what: str) -> list[Json]:
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise BadData(f"Failed to parse {what} as CSV: {error.reason} at byte {error.start}") from error
        if '"' not in text:
            return [line.split(",") for each in text.split("\n") if (line := each.removesuffix("\r"))]
        return [list(row) for row in _quoted_rows(text, what)]

    def dump(self, record: Json) -> bytes:
        fields = [_text(field) for field in (record if isinstance(record, list) else [record])]
        line = ",".join(fields)
        if '"' in line or "\n" in line or "\r" in line or line.count(",") >= len(fields) or line.startswith(" "):
            return _written(fields)
        return line.encode()


def _quoted_rows(text: str, what: str) -> Iterator[list[str]]:
    """Read rows of which some have quotes."""
    rows = 0
    try:
        for row in csv.reader(io.StringIO(text, newline=""), strict=True):
            if row:
                yield row
                rows += 1
    except csv.Error as error:
        raise BadData(f"Failed to parse {what} as CSV: {error}", rows + 1) from error


def _text(field: Json) -> str:
    if isinstance(field, str):
        return field
    return json.dumps(field, ensure_ascii=False, separators=(",", ":"))


def _written(fields: list[str]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="").writerow(fields)
    return buffer.getvalue().encode()


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _document(data: bytes, what: str) -> Json:
    try:
        document: Json = json.loads(data.decode(), parse_constant=_no_constant)
        return document
    except (ValueError, RecursionError) as error:
        raise BadData(f"Failed to parse {what} as JSON: {error}") from error


class JsonDocument:
    """application/json of an object that is not split: the body is one record."""

    by_position = False

    def parse(self, data: bytes, what: str) -> list[Json]:
        return [_document(data, what)]

    def dump(self, record: Json) -> bytes:
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()


class JsonLines(JsonDocument):
    """application/jsonlines, and application/json that is split by lines: each line is a record."""

    def parse(self, data: bytes, what: str) -> list[Json]:
        return [_document(line, what) for line in data.split(b"\n") if line.strip()]


def format_of(content_type: str, *, by_lines: bool) -> Format | None:
    """Give the format of a content type whose records can be looked into; None: those of this one cannot."""
    match content_type.partition(";")[0].strip().lower():
        case "text/csv":
            return Csv()
        case "application/jsonlines":
            return JsonLines()
        case "application/json":
            return JsonLines() if by_lines else JsonDocument()
    return None
