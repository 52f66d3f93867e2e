"""Skeletons: --generate-cli-skeleton input, yaml-input and output.

A string is empty, or the first of the values that it may have, so that a skeleton is the same each time. In an output
it is its own name, as in botocore's.
"""

from __future__ import annotations

import json
from typing import Any

from clary.cli.aws.prose import first_sentence
from clary.cli.aws.shapes import Operation, Shape

_SCALARS: dict[str, Any] = {
    "integer": 0,
    "long": 0,
    "float": 0.0,
    "double": 0.0,
    "boolean": True,
    "timestamp": "1970-01-01T00:00:00",
}
INDENT = 2


def sample_input(operation: Operation) -> Any:
    """Give a request with every member."""
    return _sample(operation.input, (), None) if operation.input else {}


def sample_output(operation: Operation) -> Any:
    """Give an answer with every member."""
    return _sample(operation.output, (), "") if operation.output else {}


def yaml_input(operation: Operation) -> str:
    """Give a request with every member as YAML; a comment says what it is, where the operation comes with its
    documentation, whether it is required, and which values there are.
    """
    lines: list[str] = []
    if operation.input:
        _yaml_structure(operation.input, 0, (), lines)
    return "\n".join(lines) + "\n" if lines else "{}\n"


def _sample(shape: Shape, above: tuple[str, ...], name: str | None) -> Any:
    """`name` is what stands for a string; None for the first of its values."""
    above = (*above, shape.name)
    if shape.type == "structure":
        if above.count(shape.name) > 1:
            return {}
        return {
            member: _sample(found, above, None if name is None else member) for member, found in shape.members.items()
        }
    if shape.type == "list":
        return [_sample(shape.member, above, None if name is None else shape.member.name)]
    if shape.type == "map":
        return {"KeyName": _sample(shape.value, above, None if name is None else "")}
    if shape.type == "string":
        return name if name is not None else next(iter(shape.enum), "")
    return _SCALARS.get(shape.type)


def _yaml_structure(shape: Shape, indent: int, above: tuple[str, ...], lines: list[str]) -> None:
    above = (*above, shape.name)
    for member, found in shape.members.items():
        said = [
            "[REQUIRED]" if member in shape.required else "",
            first_sentence(found.documentation),
            f"Valid values are: {', '.join(found.enum)}." if found.enum else "",
        ]
        comment = " ".join(filter(None, said))
        _yaml_member(f"{' ' * indent}{member}:", found, indent, above, (lines, comment and f"  # {comment}"))


def _yaml_member(start: str, shape: Shape, indent: int, above: tuple[str, ...], sink: tuple[list[str], str]) -> None:
    lines, comment = sink
    above = (*above, shape.name)
    if shape.type == "structure" and shape.members and above.count(shape.name) == 1:
        lines.append(start + comment)
        _yaml_structure(shape, indent + INDENT, above[:-1], lines)
    elif shape.type == "map":
        lines.append(start + comment)
        _yaml_member(f"{' ' * (indent + INDENT)}KeyName:", shape.value, indent + INDENT, above, (lines, ""))
    elif shape.type == "list":
        lines.append(start + comment)
        _yaml_item(shape.member, indent, above, lines)
    else:
        lines.append(f"{start} {json.dumps(_sample(shape, above[:-1], None))}{comment}")


def _yaml_item(shape: Shape, indent: int, above: tuple[str, ...], lines: list[str]) -> None:
    nested: list[str] = []
    if shape.type == "structure" and shape.members and shape.name not in above:
        _yaml_structure(shape, indent + INDENT, above, nested)
    elif shape.type == "map":
        _yaml_member(f"{' ' * (indent + INDENT)}KeyName:", shape.value, indent + INDENT, above, (nested, ""))
    elif shape.type == "list":
        _yaml_item(shape.member, indent + INDENT, above, nested)
    else:
        nested.append(f"{' ' * (indent + INDENT)}{json.dumps(_sample(shape, above, None))}")
    lines.append(f"{' ' * indent}- {nested[0].lstrip()}")
    lines.extend(nested[1:])
