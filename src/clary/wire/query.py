"""The AWS query protocol as far as STS's GetCallerIdentity needs it: a form in, XML out.

Operations whose input has members are refused when the dispatcher is built; nothing here could read them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl
from xml.etree.ElementTree import Element, SubElement

from botocore.model import OperationModel, Shape

from clary.errors import AwsError
from clary.wire import failures

_MAX_FIELDS = 1000


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


def takes_parameters(operation: OperationModel) -> bool:
    """Tell whether the operation's input has members."""
    return operation.input_shape is not None and bool(operation.input_shape.members)


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
