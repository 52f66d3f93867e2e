"""REST-JSON requests, by their shapes: what travels in headers, and the body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from botocore.model import StructureShape

from clary.errors import SerializationException

_INTEGER = re.compile(r"-?[0-9]{1,9}")


def decode(shape: StructureShape, headers: Mapping[bytes, bytes], body: bytes) -> dict[str, Any]:
    """Give the members that are in headers (their names in lower case), and the payload; an empty one is absent.

    Raises SerializationException for a number that is none.
    """
    found: dict[str, Any] = {}
    for name, member in shape.members.items():
        if member.serialization.get("location") == "header":
            value = headers.get(member.serialization["name"].lower().encode())
            if value is not None:
                found[name] = _scalar(member.type_name, _text(value), name)
        elif name == shape.serialization.get("payload") and body:
            found[name] = body
    return found


def _text(value: bytes) -> str:
    """Read a header as clients write it: the AWS SDKs in UTF-8, older HTTP in Latin-1, which reads anything."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _scalar(kind: str, text: str, name: str) -> Any:
    if kind != "integer":
        return text
    if _INTEGER.fullmatch(text) is None:
        raise SerializationException(f"{name} must be an integer, not {text!r}")
    return int(text)
