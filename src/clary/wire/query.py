"""The AWS query protocol, as STS speaks it: a form in, XML out.

A form is flat, its names are paths: `Tags.member.1.Key`. They become nested values by the input shape.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any
from urllib.parse import parse_qsl
from xml.etree.ElementTree import Element, SubElement

from botocore.model import OperationModel, Shape

from clary.errors import AwsError
from clary.wire import failures

_MAX_FIELDS = 100_000
"""A PutMetricData of a thousand metrics with their dimensions has tens of thousands."""


def read_form(body: bytes) -> dict[str, str]:
    """Read a request's fields; raise MalformedQueryString or MissingAction (400)."""
    try:
        form = dict(
            parse_qsl(body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
        )
    except ValueError:
        raise AwsError("The form cannot be read.", code="MalformedQueryString", status=400) from None
    if not form.get("Action"):
        raise AwsError("The request has no Action.", code="MissingAction", status=400)
    return form


class _Place:
    """What a form has at a path: a text, and places below. Made once: reading then takes as long as the form is."""

    __slots__ = ("below", "text")

    def __init__(self) -> None:
        self.text: str | None = None
        self.below: dict[str, _Place] = {}


def decode(shape: Shape, form: Mapping[str, str]) -> dict[str, Any]:
    """Turn a form into Python values, checking types only; names that the shape lacks are ignored.

    Raises AwsError MalformedInput (400) for a text that is not of its member's type.
    """
    root = _Place()
    for path, text in form.items():
        place = root
        for part in path.split("."):
            place = place.below.setdefault(part, _Place())
        place.text = text
    return _members(shape, root, "")


def _members(shape: Shape, place: _Place, path: str) -> dict[str, Any]:
    found = {}
    for name, member in shape.members.items():
        part = member.serialization.get("name", name)
        value = _read(member, place.below.get(part), path + part)
        if value is not None:
            found[name] = value
    return found


def _read(shape: Shape, place: _Place | None, path: str) -> Any:
    """Read what is at a place; None where nothing is."""
    if place is None:
        return None
    match shape.type_name:
        case "structure":
            return _members(shape, place, f"{path}.") or None
        case "list":
            flattened = shape.serialization.get("flattened")
            inner = "" if flattened else shape.member.serialization.get("name", "member")
            items = [_read(shape.member, item, at) for item, at in _numbered(place, inner, path)]
            # An empty list is written as its bare name.
            return items if items or place.text == "" else None
        case "map":
            inner = "" if shape.serialization.get("flattened") else "entry"
            key = shape.key.serialization.get("name", "key")
            value = shape.value.serialization.get("name", "value")
            found = {}
            for entry, at in _numbered(place, inner, path):
                if (name := entry.below.get(key)) is not None and name.text is not None:
                    found[name.text] = _read(shape.value, entry.below.get(value), f"{at}.{value}")
            return found or None
        case kind:
            return None if place.text is None else _scalar_of(kind, place.text, path)


def _numbered(place: _Place, inner: str, path: str) -> Iterator[tuple[_Place, str]]:
    """Give the elements of a list or map, which count from 1, up to the first number that no name has."""
    if inner:
        path = f"{path}.{inner}"
        if (found := place.below.get(inner)) is None:
            return
        place = found
    for number in count(1):
        if (element := place.below.get(str(number))) is None:
            return
        yield element, f"{path}.{number}"


def _scalar_of(kind: str, text: str, path: str) -> Any:
    try:
        match kind:
            case "boolean":
                return {"true": True, "false": False}[text.lower()]
            case "integer" | "long":
                return int(text)
            case "float" | "double":
                return float(text)
            case "timestamp":
                return datetime.fromisoformat(text).timestamp()
            case "blob":
                return base64.b64decode(text, validate=True)
            case _:
                return text
    except (KeyError, ValueError):
        raise AwsError(f"The value of {path} is not of type {kind}.", code="MalformedInput", status=400) from None


def refusal(service: str, form: Mapping[str, str]) -> AwsError:
    """Give the answer for an action that Clary does not have."""
    action = form["Action"]
    name = f"{service}:{action}" if service else action
    message = f"Clary does not implement {name}; docs/coverage.md lists what it does."
    if service == "iam":
        # SDKs that look a role up go on after AccessDenied and give up after anything else.
        return AwsError(message, code="AccessDenied", status=403)
    return AwsError(message, code="InvalidAction", status=400)


def result_document(operation: OperationModel, result: Mapping[str, Any], request_id: str) -> bytes:
    """Write the answer of an operation by its output shape."""
    root = Element(f"{operation.name}Response", xmlns=operation.service_model.metadata["xmlNamespace"])
    shape = operation.output_shape
    if shape is not None:
        wrapper = shape.serialization.get("resultWrapper")
        _write_members(SubElement(root, wrapper) if wrapper else root, shape, result)
    SubElement(SubElement(root, "ResponseMetadata"), "RequestId").text = request_id
    return failures.xml_document(root)


def _write_members(parent: Element, shape: Shape, value: Mapping[str, Any]) -> None:
    for name, member in shape.members.items():
        if (item := value.get(name)) is not None:
            _write(parent, member.serialization.get("name", name), member, item)


def _write(parent: Element, name: str, shape: Shape, value: Any) -> None:
    match shape.type_name:
        case "structure":
            _write_members(SubElement(parent, name), shape, value)
        case "list":
            flattened = shape.serialization.get("flattened")
            inner = shape.member.serialization.get("name", "member")
            holder = parent if flattened else SubElement(parent, name)
            for item in value:
                _write(holder, name if flattened else inner, shape.member, item)
        case "map":
            flattened = shape.serialization.get("flattened")
            holder = parent if flattened else SubElement(parent, name)
            for key, item in value.items():
                entry = SubElement(holder, name if flattened else "entry")
                _write(entry, shape.key.serialization.get("name", "key"), shape.key, key)
                _write(entry, shape.value.serialization.get("name", "value"), shape.value, item)
        case kind:
            SubElement(parent, name).text = failures.xml_text(_scalar(kind, value))


def _scalar(kind: str, value: Any) -> str:
    match kind:
        case "boolean":
            return "true" if value else "false"
        case "timestamp":
            return datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case "blob":
            return base64.b64encode(value).decode("ascii")
        case _:
            return str(value)
