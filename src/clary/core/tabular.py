"""Rows of CSV and documents of JSON: read, and written again. As Go's encoding/csv does it, whose words the service's
logs have: RFC 4180's quotes, empty lines are no rows, a quote belongs at the edge of a field or in quotes.
"""

from __future__ import annotations

import json
import re
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
        """Write one record, without an end of line. Raises BadData."""
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
        if not line or _SPECIAL.search(line) or line.count(",") >= len(fields):
            return ",".join(map(_quoted, fields)).encode() or b'""'
        return line.encode()


_SPECIAL = re.compile(r'["\r\n]|(?:^|,)\s')
"""What a field is put in quotes for, besides a comma."""


def _quoted(field: str) -> str:
    return '"' + field.replace('"', '""') + '"' if "," in field or _SPECIAL.search(field) else field


_FIELD = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\n]*))(,|\r?\n|\Z)')


def _quoted_rows(text: str, what: str) -> Iterator[list[str]]:
    """Read rows of which some have quotes."""
    rows, place = 0, 0
    row: list[str] = []
    while place < len(text) or row:
        found = _FIELD.match(text, place)
        if found is None:
            fault = (
                'extraneous or missing \\" in quoted-field' if text[place] == '"' else 'bare \\" in non quoted field'
            )
            raise BadData(f"Failed to parse {what} as CSV: {fault}", rows + 1)
        quoted, plain, end = found.groups()
        place = found.end()
        if quoted is not None:
            row.append(quoted.replace('""', '"'))
        else:
            row.append(plain if end == "," else plain.removesuffix("\r"))
        if end != ",":
            if len(row) > 1 or row[0] or quoted is not None:
                yield row
                rows += 1
            row = []


def _text(field: Json) -> str:
    if isinstance(field, str):
        return field
    return json.dumps(field, ensure_ascii=False, separators=(",", ":"))


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
        try:
            return _encoded(record, ensure_ascii=False)
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON has and UTF-8 has not
            return _encoded(record, ensure_ascii=True)
        except (ValueError, RecursionError) as error:  # 1e999, which is read as infinity; nested too deeply
            raise BadData(f"Failed to write a record as JSON: {error}") from error


def _encoded(record: Json, *, ensure_ascii: bool) -> bytes:
    return json.dumps(record, ensure_ascii=ensure_ascii, allow_nan=False, separators=(",", ":")).encode()


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
