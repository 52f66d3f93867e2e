"""From words of the command line to the values of a request: file://, JSON, shorthand and scalars."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clary.cli.aws.failures import CommandFailure, ParamError
from clary.cli.aws.shapes import Shape
from clary.cli.aws.shorthand import Parser, ShorthandError

FILE, BINARY_FILE = "file://", "fileb://"
RAW_BINARY = "raw-in-base64-out"


class Unreadable(Exception):
    """A file that a value names cannot be read."""


def read_file(value: str) -> str | bytes:
    """Give what `file://path` (text) or `fileb://path` (bytes) names, and any other value as it is."""
    for prefix in (FILE, BINARY_FILE):
        if value.startswith(prefix):
            path = Path(os.path.expandvars(os.path.expanduser(value.removeprefix(prefix))))  # noqa: PTH111
            try:
                return path.read_text() if prefix == FILE else path.read_bytes()
            except UnicodeDecodeError:
                raise Unreadable(
                    f"Unable to load paramfile ({path}), text contents could not be decoded.  If this is a binary "
                    "file, please use the fileb:// prefix instead of the file:// prefix."
                ) from None
            except OSError as error:
                raise Unreadable(f"Unable to load paramfile {value}: {error}") from error
    return value


class Reader:
    """Reads the value of one option. `binary_format` says how blobs are written: `base64` or RAW_BINARY."""

    def __init__(self, option: str, shape: Shape, binary_format: str) -> None:
        self._option = option
        self._shape = shape
        self._binary_format = binary_format

    def read(self, given: Any) -> Any:
        """Give the value of the request. `given` is a word, or a list of words where the shape is a list.

        Raises ParamError, and CommandFailure for a number that is none.
        """
        if isinstance(given, list) and len(given) == 1:
            loaded = self._load(given[0])
            given = given if loaded == given[0] else loaded
        elif isinstance(given, str):
            given = self._load(given)
        if isinstance(given, bytes) and not self._shape.is_scalar:
            given = self._text(given)
        if self._shape.takes_shorthand and not _looks_like_json(given):
            return self._shorthand(given)
        return self._plain(self._shape, given)

    def _load(self, word: str) -> str | bytes:
        try:
            return read_file(word)
        except Unreadable as error:
            raise ParamError(self._option, str(error)) from error

    def _text(self, given: bytes) -> str:
        try:
            return given.decode()
        except UnicodeDecodeError as error:
            raise ParamError(self._option, f"text contents could not be decoded: {error}") from error

    def _shorthand(self, given: Any) -> Any:
        words = given if isinstance(given, list) else [given]
        try:
            parsed = [Parser(word, read_file).parse() for word in words]
        except (ShorthandError, Unreadable) as error:
            raise ParamError(self._option, str(error)) from error
        try:
            return fit(parsed if self._shape.type == "list" else parsed[0], self._shape)
        except ValueError as error:
            raise ParamError(self._option, str(error)) from error

    def _plain(self, shape: Shape, given: Any) -> Any:
        if shape.type == "list":
            return self._list(shape, given)
        if shape.type in ("structure", "map"):
            if given.lstrip().startswith("{"):
                return self._json(given)
            raise ParamError(self._option, f"Invalid JSON:\n{given}")
        if shape.type == "blob":
            return self._blob(given)
        if shape.type in ("integer", "long", "float", "double"):
            try:
                return _number(shape, given)
            except ValueError as error:
                raise CommandFailure(str(error)) from error
        return given

    def _list(self, shape: Shape, given: Any) -> Any:
        words = [given] if isinstance(given, str) else given
        if len(words) == 1 and words[0].strip().startswith("["):
            return self._json(words[0])
        try:
            return [self._plain(shape.member, word) for word in words]
        except CommandFailure as error:
            if isinstance(error, ParamError):
                raise
            raise ParamError(self._option, words[0]) from error

    def _json(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            raise ParamError(self._option, f"Invalid JSON: {error}\nJSON received: {text}") from error

    def _blob(self, given: str | bytes) -> str | bytes:
        if isinstance(given, bytes) or self._binary_format == RAW_BINARY:
            return given
        return decode(given)


def decode(text: str) -> bytes:
    """Give the bytes of base64, read as version 2 of the aws CLI reads it: what is not of the alphabet is passed over.

    Raises CommandFailure, with its words and its exit code.
    """
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError) as error:
        raise CommandFailure(f'Invalid base64: "{text}"') from error


def fit(value: Any, shape: Shape) -> Any:
    """Give a shorthand value the types of the model; raises ValueError for what is no number or no boolean.

    A lone value where the model has a list is a list of one. What else does not fit stays, for the check of the
    request to name.
    """
    if shape.type == "structure" and isinstance(value, dict):
        members = shape.members
        return {name: fit(item, members[name]) if name in members else item for name, item in value.items()}
    if shape.type == "map" and isinstance(value, dict):
        return {name: fit(item, shape.value) for name, item in value.items()}
    if shape.type == "list":
        return [fit(item, shape.member) for item in (value if isinstance(value, list) else [value])]
    return _scalar(value, shape) if isinstance(value, str) else value


def _scalar(value: str, shape: Shape) -> Any:
    if shape.type == "boolean":
        return {"true": True, "false": False}.get(value.lower(), value)
    return _number(shape, value) if shape.type in ("integer", "long", "float", "double") else value


def _number(shape: Shape, text: str) -> int | float:
    return int(text) if shape.type in ("integer", "long") else float(text)


def decode_blobs(value: Any, shape: Shape) -> Any:
    """Give a JSON or YAML document with its base64 strings, where the model has blobs, as bytes."""
    if shape.type == "structure" and isinstance(value, Mapping):
        members = shape.members
        return {name: decode_blobs(item, members[name]) if name in members else item for name, item in value.items()}
    if shape.type == "list" and isinstance(value, list):
        return [decode_blobs(item, shape.member) for item in value]
    if shape.type == "map" and isinstance(value, Mapping):
        return {name: decode_blobs(item, shape.value) for name, item in value.items()}
    return decode(value) if shape.type == "blob" and isinstance(value, str) else value


def _looks_like_json(given: Any) -> bool:
    first = given[0] if isinstance(given, list) and given else given
    return isinstance(first, str) and first.strip().startswith(("[", "{"))
