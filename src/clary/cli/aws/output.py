"""The formats of --output, and --query."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TextIO

from clary.cli.aws import table
from clary.cli.aws.failures import CommandFailure, UsageError

FORMATS = ("json", "text", "table", "yaml", "yaml-stream")


class Pages(Protocol):
    """An answer that comes in pages: botocore's PageIterator."""

    result_keys: list[Any]
    non_aggregate_part: dict[str, Any]
    resume_token: str | None

    def __iter__(self) -> Iterator[dict[str, Any]]: ...

    def build_full_result(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Printer:
    """Prints answers. `query` is a compiled JMESPath expression."""

    form: str
    query: Any = None
    color: str = "auto"
    stream: TextIO | None = None

    def show(self, title: str, answer: Any) -> None:
        """Print an answer or the Pages of one; a table carries the title. Raises CommandFailure for an unknown form."""
        if self.form not in FORMATS:
            raise CommandFailure(f"Unknown output type: {self.form}")
        stream = self.stream or sys.stdout
        if self.form == "text":
            for part in [answer] if isinstance(answer, dict) else _parts(answer):
                _write_text(self._queried(part), stream)
            return
        if self.form == "yaml-stream":
            for page in [answer] if isinstance(answer, dict) else answer:
                part = {name: value for name, value in page.items() if name != "ResponseMetadata"}
                if (found := self._queried(part)) != {}:
                    stream.write(_yaml([found]))
                    stream.flush()
            return
        whole = self._queried(answer if isinstance(answer, dict) else answer.build_full_result())
        if self.form == "json" and whole != {}:
            json.dump(whole, stream, indent=4, default=encode, ensure_ascii=False)
            stream.write("\n")
        elif self.form == "yaml" and whole != {}:
            stream.write(_yaml(whole))
        elif self.form == "table":
            coloured = self.color == "on" or (self.color == "auto" and stream.isatty())
            stream.write(table.render(title, whole, coloured=coloured))

    def _queried(self, answer: dict[str, Any]) -> Any:
        if self.query is None:
            return answer
        from jmespath.exceptions import JMESPathError

        try:
            return self.query.search(answer)
        except JMESPathError as error:
            raise CommandFailure(str(error)) from error


def compile_query(expression: str) -> Any:
    """Give a compiled JMESPath expression; raises UsageError."""
    import jmespath

    try:
        return jmespath.compile(expression)
    except jmespath.exceptions.JMESPathError as error:
        raise UsageError(f"Bad value for --query {expression}: {error}") from error


def encode(value: object) -> str:
    """Give what JSON has no type for, as text: times in ISO 8601, bytes in base64."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} in an answer")


def _yaml(value: Any) -> str:
    import yaml

    written = json.dumps(value, default=encode, ensure_ascii=False)
    if _is_scalar(value):  # alone, it would be followed by the mark of a document's end
        return f"{written}\n"
    text: str = yaml.safe_dump(json.loads(written), default_flow_style=False, allow_unicode=True, width=float("inf"))
    return text


def _parts(pages: Pages) -> Iterator[dict[str, Any]]:
    """Give what text prints of pages, as they come: of the first page all, of the others the results alone."""
    for place, page in enumerate(pages):
        part = pages.non_aggregate_part if place == 0 else {}
        for key in pages.result_keys:
            _put(part, key.expression, key.search(page))
        yield part
    if pages.resume_token:
        yield {"NextToken": {"NextToken": pages.resume_token}}


def _put(document: dict[str, Any], path: str, value: Any) -> None:
    *above, last = path.split(".")
    for name in above:
        document = document.setdefault(name, {})
    document[last] = value


def _write_text(value: Any, stream: TextIO, name: str = "", columns: list[str] | None = None) -> None:
    """Write tab-separated lines: scalars of a dictionary on one, sorted by name, each other member on its own."""
    if isinstance(value, dict):
        _write_dictionary(value, stream, name, columns)
    elif not isinstance(value, list):
        stream.write(f"{value}\n")
    elif any(isinstance(item, dict) for item in value):
        names = {key for item in value if isinstance(item, dict) for key, part in item.items() if _is_scalar(part)}
        for item in value:
            _write_text(item, stream, name, sorted(names))
    else:
        _write_scalars([item for item in value if _is_scalar(item)], stream, name)
        for item in value:
            if not _is_scalar(item):
                _write_text(item, stream, name)


def _write_scalars(values: list[Any], stream: TextIO, name: str) -> None:
    if name:
        stream.writelines(f"{name.upper()}\t{value}\n" for value in values)
    elif values:
        stream.write("\t".join(str(value) for value in values) + "\n")


def _write_dictionary(value: dict[str, Any], stream: TextIO, name: str, columns: list[str] | None) -> None:
    shown = sorted(key for key in value if _is_scalar(value[key])) if columns is None else columns
    if shown:
        cells = [str(value.get(key, "")) for key in shown]
        stream.write("\t".join([name.upper(), *cells] if name else cells) + "\n")
    for key in sorted(value.keys() - set(shown)):
        _write_text(value[key], stream, key)


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, list | dict)
