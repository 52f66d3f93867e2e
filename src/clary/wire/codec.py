"""JSON to Python and back, by shape.

Python values carry the wire's own member names; timestamps are float seconds since the epoch, blobs are bytes. A node
is made for each shape when it is first met and kept, so that a request walks ready-made nodes instead of the model.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import Any, Protocol

from botocore.model import ListShape, MapShape, Shape, StructureShape

from clary.errors import SerializationException

_INT_BITS = {"integer": 32, "long": 64}
# What a calendar can show: from the year 1 up to, not including, 10000.
_FIRST_SECOND, _END_SECOND = -62135596800.0, 253402300800.0


def parse(body: bytes) -> Any:
    """Read a JSON body; an empty one is an empty object.

    Stricter than `json.loads`: no NaN or Infinity, no key twice (which of the two would count?), UTF-8 only. Raises
    SerializationException.
    """
    if not body:
        return {}
    try:
        return _json.decode(body.decode("utf-8"))
    except RecursionError:
        raise SerializationException("The body is nested too deeply.") from None
    except ValueError as error:
        raise SerializationException(f"The body is not valid JSON: {error}") from None


def dump(value: Any) -> bytes:
    """Write JSON, compact and in ASCII: a text with a lone surrogate (a log line of a container) cannot break it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def decode(shape: Shape, value: Any) -> Any:
    """Turn parsed JSON into Python values, checking types only.

    Unknown members are ignored and null members are absent. Raises SerializationException in AWS's words, with the
    path.
    """
    try:
        return _node(shape).decode(value)
    except _Mismatch as mismatch:
        raise SerializationException(mismatch.message()) from None
    except RecursionError:
        raise SerializationException("The body is nested too deeply.") from None


def encode(shape: Shape, value: Any) -> Any:
    """Turn Python values into JSON values; members that the shape lacks, and those that are None, are left out."""
    return _node(shape).encode(value)


def wire_path(member: str) -> str:
    """Give a member's name as AWS's messages print it: `ModelName` is `modelName`."""
    return member[:1].lower() + member[1:]


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return found


_json = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique)


class _Mismatch(Exception):
    """A value is not of its shape's type. Containers add their part of the path as it passes."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path: list[str] = []

    def message(self) -> str:
        if not self.path:
            return self.problem
        return f"{self.problem} at '{'.'.join(reversed(self.path))}'"


def _unexpected(value: Any, wanted: str) -> _Mismatch:
    match value:
        case dict():
            return _Mismatch("Start of structure or map found where not expected")
        case list():
            return _Mismatch("Start of list found where not expected")
        case None:
            found = "NULL_VALUE"
        case bool():
            found = "TRUE_VALUE" if value else "FALSE_VALUE"
        case str():
            found = "STRING_VALUE"
        case _:
            found = "NUMBER_VALUE"
    return _Mismatch(f"{found} can not be converted to {'an' if wanted[0] in 'AEIOU' else 'a'} {wanted}")


class _Node(Protocol):
    def decode(self, value: Any) -> Any: ...

    def encode(self, value: Any) -> Any: ...


class _Structure:
    def __init__(self, shape: StructureShape) -> None:
        self._shape = shape
        self._is_union = bool(shape.is_tagged_union)

    @cached_property
    def _members(self) -> dict[str, _Node]:
        # Made at first use: shapes may contain themselves.
        return {name: _node(member) for name, member in self._shape.members.items()}

    def decode(self, value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise _unexpected(value, "Structure")
        decoded: dict[str, Any] = {}
        name = ""
        try:
            for name, item in value.items():
                node = self._members.get(name)
                if node is not None and item is not None:
                    decoded[name] = node.decode(item)
        except _Mismatch as mismatch:
            mismatch.path.append(wire_path(name))
            raise
        if self._is_union and len(decoded) != 1:
            raise _Mismatch(f"Exactly one member of the union {self._shape.name} must be set")
        return decoded

    def encode(self, value: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: node.encode(item) for name, node in self._members.items() if (item := value.get(name)) is not None
        }


class _List:
    def __init__(self, shape: ListShape) -> None:
        self._shape = shape

    @cached_property
    def _member(self) -> _Node:
        return _node(self._shape.member)

    def decode(self, value: Any) -> list[Any]:
        if type(value) is not list:
            raise _unexpected(value, "List")
        decoded: list[Any] = []
        try:
            for item in value:
                decoded.append(self._member.decode(item))
        except _Mismatch as mismatch:
            mismatch.path.append(f"{len(decoded) + 1}.member")
            raise
        return decoded

    def encode(self, value: Sequence[Any]) -> list[Any]:
        return [self._member.encode(item) for item in value]


class _Map:
    def __init__(self, shape: MapShape) -> None:
        self._shape = shape

    @cached_property
    def _value(self) -> _Node:
        return _node(self._shape.value)

    def decode(self, value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise _unexpected(value, "Map")
        decoded: dict[str, Any] = {}
        key = ""
        try:
            for key, item in value.items():
                decoded[_text(key)] = self._value.decode(item)
        except _Mismatch as mismatch:
            mismatch.path.append(f"{key}.member")
            raise
        return decoded

    def encode(self, value: Mapping[str, Any]) -> dict[str, Any]:
        return {key: self._value.encode(item) for key, item in value.items()}


class _Scalar:
    """Encodes to itself."""

    def encode(self, value: Any) -> Any:
        return value


def _text(value: str) -> str:
    # JSON can escape half a surrogate pair, which no UTF-8 text can hold: neither a database nor an answer.
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise _Mismatch("Text has an unpaired surrogate") from None
    return value


class _String(_Scalar):
    def decode(self, value: Any) -> str:
        if type(value) is not str:
            raise _unexpected(value, "String")
        return _text(value)


class _Integer(_Scalar):
    def __init__(self, shape: Shape) -> None:
        self._wanted = shape.type_name.capitalize()
        self._limit = 1 << (_INT_BITS[shape.type_name] - 1)

    def decode(self, value: Any) -> int:
        if type(value) is not int:
            raise _unexpected(value, self._wanted)
        if not -self._limit <= value < self._limit:
            raise _Mismatch(f"NUMBER_VALUE is out of the range of {self._wanted}")
        return value


class _Float(_Scalar):
    def __init__(self, shape: Shape) -> None:
        self._wanted = shape.type_name.capitalize()

    def decode(self, value: Any) -> float:
        if type(value) is not float and type(value) is not int:
            raise _unexpected(value, self._wanted)
        return _finite(value, self._wanted)


class _Boolean(_Scalar):
    def decode(self, value: Any) -> bool:
        if type(value) is not bool:
            raise _unexpected(value, "Boolean")
        return value


class _Timestamp:
    def decode(self, value: Any) -> float:
        if type(value) is str:
            try:
                moment = datetime.fromisoformat(value)
                # Without an offset it is UTC, as everywhere at AWS.
                seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
            except (ValueError, OverflowError):
                raise _unexpected(value, "Timestamp") from None
        elif type(value) is float or type(value) is int:
            seconds = _finite(value, "Timestamp")
        else:
            raise _unexpected(value, "Timestamp")
        if not _FIRST_SECOND <= seconds < _END_SECOND:
            raise _Mismatch("NUMBER_VALUE is out of the range of Timestamp")
        return seconds

    def encode(self, value: float) -> float:
        return round(value, 3)


class _Blob:
    def decode(self, value: Any) -> bytes:
        if type(value) is not str:
            raise _unexpected(value, "Blob")
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:  # binascii.Error, or characters beyond ASCII
            raise _Mismatch("STRING_VALUE is not base64") from None

    def encode(self, value: bytes) -> str:
        return binascii.b2a_base64(value, newline=False).decode("ascii")


def _finite(number: float, wanted: str) -> float:
    try:
        result = float(number)
    except OverflowError:
        result = math.inf
    if math.isinf(result):
        raise _Mismatch(f"NUMBER_VALUE is out of the range of {wanted}")
    return result


@cache
def _node(shape: Shape) -> _Node:
    match shape.type_name:
        case "structure":
            return _Structure(shape)
        case "list":
            return _List(shape)
        case "map":
            return _Map(shape)
        case "string" | "character":
            return _String()
        case "integer" | "long":
            return _Integer(shape)
        case "float" | "double":
            return _Float(shape)
        case "boolean":
            return _Boolean()
        case "timestamp":
            return _Timestamp()
        case "blob":
            return _Blob()
        case other:
            raise LookupError(f"no JSON form is known for the shape type {other!r}")
