"""The Smithy RPC v2 CBOR protocol: CBOR to Python and back, by shape.

The same Python values as in `codec`: the wire's member names, float seconds since the epoch, bytes. Source: "Smithy RPC
v2 CBOR protocol" in the Smithy specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import cbor2
from botocore.model import Shape

from clary.errors import SerializationException

PROTOCOL = "rpc-v2-cbor"
"""Value of the `smithy-protocol` header, in requests and answers."""
PREFIX, MIDDLE = "/service/", "/operation/"

_EPOCH_TAG = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_DEEPEST = 64
_INT_BITS = {"integer": 32, "long": 64}


def target(path: str) -> tuple[str, str] | None:
    """Give service and operation of `/service/<service>/operation/<operation>`; None for any other path."""
    service, found, operation = path.removeprefix(PREFIX).partition(MIDDLE)
    if not path.startswith(PREFIX) or not found or "/" in service or "/" in operation:
        return None
    return service, operation


def parse(body: bytes) -> Any:
    """Read a CBOR body; an empty one is an empty map. Raises SerializationException."""
    if not body:
        return {}
    try:
        return cbor2.loads(body, max_depth=_DEEPEST, allow_duplicate_keys=False, strict_hashable_types=True)
    except (cbor2.CBORDecodeError, ValueError, OverflowError) as error:
        raise SerializationException(f"The body is not valid CBOR: {error}") from None


def dump(value: Any) -> bytes:
    """Write CBOR. A lone surrogate, which UTF-8 cannot hold, becomes a question mark."""
    try:
        return cbor2.dumps(value)
    except (UnicodeEncodeError, cbor2.CBOREncodeError):
        return cbor2.dumps(_replaced(value))


def decode(shape: Shape, value: Any) -> Any:
    """Turn parsed CBOR into Python values, checking types only.

    Unknown members are ignored and null members are absent. Raises SerializationException with the path.
    """
    return _decode(shape, value, "")


def encode(shape: Shape, value: Any) -> Any:
    """Turn Python values into what `dump` writes; members that the shape lacks, or that are None, are left out."""
    match shape.type_name:
        case "structure":
            members = shape.members.items()
            return {name: encode(member, item) for name, member in members if (item := value.get(name)) is not None}
        case "list":
            return [encode(shape.member, item) for item in value]
        case "map":
            return {key: encode(shape.value, item) for key, item in value.items()}
        case "timestamp":
            # Milliseconds, as in JSON; whole seconds as the integer that they are.
            seconds = round(value, 3)
            return cbor2.CBORTag(_EPOCH_TAG, int(seconds) if seconds == int(seconds) else seconds)
        case "float" | "double":
            return float(value)
        case _:
            return value


def _decode(shape: Shape, value: Any, path: str) -> Any:
    match shape.type_name:
        case "structure":
            if not isinstance(value, Mapping):
                raise _mismatch(value, "structure", path)
            members = shape.members
            return {
                name: _decode(members[name], item, f"{path}.{name}")
                for name, item in value.items()
                if name in members and not _is_null(item)
            }
        case "list":
            if not isinstance(value, list):
                raise _mismatch(value, "list", path)
            return [_decode(shape.member, item, f"{path}[{index}]") for index, item in enumerate(value)]
        case "map":
            if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
                raise _mismatch(value, "map", path)
            pairs = ((key, item) for key, item in value.items() if not _is_null(item))
            return {key: _decode(shape.value, item, f"{path}.{key}") for key, item in pairs}
        case kind:
            return _scalar(kind, value, path)


def _scalar(kind: str, value: Any, path: str) -> Any:
    match kind, value:
        case ("boolean", bool()) | ("string" | "character", str()) | ("blob", bytes()):
            return value
        case "float" | "double", int() | float() if not isinstance(value, bool):
            return float(value)
        case "integer" | "long", int() if not isinstance(value, bool):
            limit = 1 << (_INT_BITS[kind] - 1)
            if -limit <= value < limit:
                return value
        case "timestamp", datetime():
            return (value - _EPOCH) / _SECOND
    raise _mismatch(value, kind, path)


def _is_null(value: Any) -> bool:
    return value is None or value is cbor2.undefined


def _mismatch(value: Any, wanted: str, path: str) -> SerializationException:
    where = f" at '{path.lstrip('.')}'" if path else ""
    return SerializationException(f"A value of CBOR type {type(value).__name__} is no {wanted}{where}.")


def _replaced(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case Mapping():
            return {_replaced(key): _replaced(item) for key, item in value.items()}
        case list():
            return [_replaced(item) for item in value]
        case _:
            return value
