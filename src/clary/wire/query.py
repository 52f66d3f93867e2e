"""The AWS query protocol, as STS speaks it: a form in, XML out.

A form is flat, its names are paths: `Tags.member.1.Key`. They become nested values by the input shape.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any, TypeVar
from urllib.parse import parse_qsl
from xml.etree.ElementTree import Element, SubElement

from botocore.model import OperationModel, Shape

from clary.errors import AwsError
from clary.wire import failures

_MAX_FIELDS = 1000
_Item = TypeVar("_Item")


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


def decode(shape: Shape, form: Mapping[str, str]) -> dict[str, Any]:
    """Turn a form into Python values, checking types only; names that the shape lacks are ignored.

    Raises AwsError MalformedInput (400) for a text that is not of its member's type.
    """
    return {name: value for name, value in _members(shape, "", form) if value is not None}


def _members(shape: Shape, prefix: str, form: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for name, member in shape.members.items():
        yield name, _read(member, prefix + member.serialization.get("name", name), form)


def _read(shape: Shape, path: str, form: Mapping[str, str]) -> Any:
    """Read what is at a path; None where nothing is."""
    match shape.type_name:
        case "structure":
            found = {name: value for name, value in _members(shape, f"{path}.", form) if value is not None}
            return found or None
        case "list":
            inner = "" if shape.serialization.get("flattened") else shape.member.serialization.get("name", "member")
            start = f"{path}.{inner}." if inner else f"{path}."
            items = list(_numbered(start, form, lambda at: _read(shape.member, at, form)))
            # An empty list is written as its bare name.
            return items if items or form.get(path) == "" else None
        case "map":
            start = f"{path}." if shape.serialization.get("flattened") else f"{path}.entry."
            key = shape.key.serialization.get("name", "key")
            value = shape.value.serialization.get("name", "value")
            pairs = _numbered(
                start, form, lambda at: (form.get(f"{at}.{key}"), _read(shape.value, f"{at}.{value}", form))
            )
            return {name: item for name, item in pairs if name is not None} or None
        case kind:
            return None if path not in form else _scalar_of(kind, form[path], path)


def _numbered(start: str, form: Mapping[str, str], read: Callable[[str], _Item]) -> Iterator[_Item]:
    """Read the elements of a list or map, which count from 1, up to the first number that no name has."""
    numbers = {name[len(start) :].partition(".")[0] for name in form if name.startswith(start)}
    for number in count(1):
        if str(number) not in numbers:
            return
        yield read(f"{start}{number}")


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
