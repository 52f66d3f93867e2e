"""How the value of an option is written: its shorthand and its JSON, for the help pages."""

from __future__ import annotations

import json

from clary.cli.aws.shapes import Shape

RECURSIVE = "(recursive)"


def shorthand(shape: Shape) -> str:
    """Give the shorthand of an option that takes one; a list is written once for each element."""
    if shape.type == "list":
        return f"{_shorthand(shape.member, (), nested=False)} ..."
    return _shorthand(shape, (), nested=False)


def _shorthand(shape: Shape, above: tuple[str, ...], *, nested: bool) -> str:
    if shape.name in above:
        return RECURSIVE
    above = (*above, shape.name)
    if shape.type == "structure":
        inner = ",".join(
            f"{name}={_shorthand(member, above, nested=True)}"
            for name, member in shape.members.items()
            if not member.traits.get("document")
        )
        return f"{{{inner}}}" if nested else inner
    if shape.type == "map":
        value = _shorthand(shape.value, above, nested=True)
        inner = f"KeyName1={value},KeyName2={value}"
        return f"{{{inner}}}" if nested else inner
    if shape.type == "list":
        value = _shorthand(shape.member, above, nested=True)
        return f"[{value},{value}]"
    return shape.type


def json_syntax(shape: Shape) -> str:
    """Give the form of the JSON: types for scalars, the values of an enumeration parted by `|`."""
    return _json(shape, (), "")


def _json(shape: Shape, above: tuple[str, ...], margin: str) -> str:
    if shape.name in above:
        return "{ ... recursive ... }"
    above = (*above, shape.name)
    inner = f"{margin}  "
    if shape.type == "structure":
        lines = [f'{inner}"{name}": {_json(member, above, inner)}' for name, member in shape.members.items()]
        return "{\n" + ",\n".join(lines) + f"\n{margin}}}" if lines else "{}"
    if shape.type == "map":
        key = "|".join(json.dumps(value) for value in shape.key.enum) or '"string"'
        return f"{{\n{inner}{key}: {_json(shape.value, above, inner)}\n{inner}...\n{margin}}}"
    if shape.type == "list":
        return f"[\n{inner}{_json(shape.member, above, inner)}\n{inner}...\n{margin}]"
    if shape.enum:
        return "|".join(json.dumps(value) for value in shape.enum)
    return {"string": '"string"', "boolean": "true|false", "blob": '"base64"'}.get(shape.type, shape.type)
