"""The check of a request before it is sent: required, known and of the right type, as botocore checks.

The walk here only tells good from bad. What is bad, or unusual, botocore checks again, and words.
"""

from __future__ import annotations

import math
from collections.abc import Sized
from typing import Any

from clary.cli.aws.failures import UsageError
from clary.cli.aws.shapes import Operation, Shape

_TYPES: dict[str, tuple[type, ...]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (float, int),
    "double": (float, int),
    "boolean": (bool,),
}


_UNUSUAL = {"union", "document", "jsonvalue"}


def require_valid(operation: Operation, request: dict[str, Any]) -> bool:
    """Tell whether the request is its own JSON, without blobs and times. Raises UsageError where it breaks a rule."""
    if operation.input is None or _plain(request, operation.input):
        return True
    from botocore.exceptions import ParamValidationError
    from botocore.model import ServiceModel
    from botocore.validate import validate_parameters

    model = {**operation.model, "operations": {operation.name: operation.model["operation"]}}
    shape = ServiceModel(model, operation.service).operation_model(operation.name).input_shape
    try:
        validate_parameters(request, shape)
    except ParamValidationError as error:
        raise UsageError(str(error)) from error
    return False


def _plain(value: Any, shape: Shape) -> bool:
    if not isinstance(value, _TYPES.get(shape.type, ())) or not _UNUSUAL.isdisjoint(shape.traits):
        return False
    if isinstance(value, float) and not math.isfinite(value):  # JSON has no word for it
        return False
    if "min" in shape.traits and shape.type != "boolean":
        measure = len(value) if isinstance(value, Sized) else value
        if measure < shape.traits["min"]:
            return False
    return _plain_parts(value, shape)


def _plain_parts(value: Any, shape: Shape) -> bool:
    if shape.type == "structure":
        members = shape.members
        return all(name in value for name in shape.required) and all(
            name in members and _plain(item, members[name]) for name, item in value.items()
        )
    if shape.type == "list":
        return all(_plain(item, shape.member) for item in value)
    if shape.type == "map":
        return all(_plain(key, shape.key) and _plain(item, shape.value) for key, item in value.items())
    return True
