"""One invocation as the model sees it: headers, body, answer."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

_SPELLING = {"sagemaker": "SageMaker", "id": "Id"}


@lru_cache(maxsize=1024)
def spell(variable: str) -> str:
    """Give back a header's own name from its WSGI variable: `X_AMZN_SAGEMAKER_TARGET_MODEL`, `CONTENT_TYPE`."""
    words = variable.lower().split("_")
    return "-".join(_SPELLING.get(word, word.capitalize()) for word in words)


class Headers(Mapping[str, str]):
    """Header fields that keep their spelling and are found in any."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = dict(fields)
        self._names = {name.lower(): name for name in self._fields}

    def __getitem__(self, name: str) -> str:
        return self._fields[self._names[name.lower()]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    @classmethod
    def from_environ(cls, environ: Mapping[str, Any]) -> Headers:
        return cls(fields_of(environ))


def fields_of(environ: Mapping[str, Any]) -> dict[str, str]:
    """Collect the request's header fields from a WSGI environment."""
    fields = {spell(key[5:]): str(value) for key, value in environ.items() if key.startswith("HTTP_")}
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(key):
            fields[spell(key)] = str(environ[key])
    return fields


@dataclass(frozen=True)
class Request:
    headers: Headers
    body: bytes


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def text(cls, status: int, message: str) -> Response:
        return cls(status, message.encode("utf-8", "replace"), {"Content-Type": "text/plain; charset=utf-8"})

    @classmethod
    def of_exception(cls, error: BaseException) -> Response:
        """Make a 500 of what was raised, with its traceback, which also goes to the log. Call it while handling it."""
        traceback.print_exc()
        return cls.text(500, f"{error}\n{traceback.format_exc()}")
