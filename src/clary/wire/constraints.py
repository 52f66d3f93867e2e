"""The model's constraints, all of them, in AWS's words.

botocore checks required members, types and minima before it sends; the service checks everything and reports all
violations of a request in one message, before any rule of its own. Values come decoded (`codec.decode`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, cached_property
from typing import Any, NamedTuple

from botocore.model import Shape, StructureShape

from clary.errors import SerializationException, ValidationException
from clary.wire import model
from clary.wire.codec import wire_path

_PATTERN_SECONDS = 0.25


def check(shape: Shape, value: dict[str, Any], code: str = ValidationException.code) -> None:
    """Raise ValidationException, under the service's `code` for it, unless the value satisfies its shape.

    Violations come in the model's order, within a member length before pattern.
    """
    found: list[str] = []
    try:
        _node(shape).descend(value, "", found)
    except RecursionError:
        raise SerializationException("The body is nested too deeply.") from None
    if found:
        head = "1 validation error" if len(found) == 1 else f"{len(found)} validation errors"
        raise ValidationException(f"{head} detected: {'; '.join(found)}", code=code)


class _Rule(NamedTuple):
    text: str
    holds: Callable[[Any], bool]


class _Node:
    """A shape's own rules; subclasses add what is inside. A scalar has nothing inside."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self.rules = tuple(_rules(shape))

    @cached_property
    def is_quotable(self) -> bool:
        """Whether a message may show the value."""
        return not _has_secrets(self._shape, ())

    def broken(self, value: Any) -> list[str]:
        return [rule.text for rule in self.rules if not rule.holds(value)]

    def violation(self, value: Any, path: str, rule: str) -> str:
        quoted = f" '{_shown(value)}'" if self.is_quotable else ""
        return f"Value{quoted} at '{path}' failed to satisfy constraint: {rule}"

    def descend(self, value: Any, path: str, found: list[str]) -> None:
        """Add the violations inside the value."""


class _Structure(_Node):
    @cached_property
    def _members(self) -> list[tuple[str, str, _Node, bool]]:
        shape: StructureShape = self._shape
        required = set(shape.required_members)
        return [(name, wire_path(name), _node(member), name in required) for name, member in shape.members.items()]

    def descend(self, value: Any, path: str, found: list[str]) -> None:
        prefix = f"{path}." if path else ""
        for name, label, node, required in self._members:
            item = value.get(name)
            if item is None:
                if required:
                    found.append(
                        f"Value null at '{prefix}{label}' failed to satisfy constraint: Member must not be null"
                    )
                continue
            for rule in node.broken(item):
                found.append(node.violation(item, f"{prefix}{label}", rule))
            if not isinstance(node, _Scalar):
                node.descend(item, f"{prefix}{label}", found)


class _Scalar(_Node):
    pass


class _List(_Node):
    @cached_property
    def _member(self) -> _Node:
        return _node(self._shape.member)

    def descend(self, value: Any, path: str, found: list[str]) -> None:
        member = self._member
        # What elements themselves must satisfy is reported once for the list, with all the rules of an element.
        if any(member.broken(item) for item in value):
            found.append(self.violation(value, path, f"Member must satisfy constraint: {_all_rules(member)}"))
        if not isinstance(member, _Scalar):
            for index, item in enumerate(value, start=1):
                member.descend(item, f"{path}.{index}.member", found)


class _Map(_Node):
    @cached_property
    def _key(self) -> _Node:
        return _node(self._shape.key)

    @cached_property
    def _value(self) -> _Node:
        return _node(self._shape.value)

    def descend(self, value: Any, path: str, found: list[str]) -> None:
        if any(self._key.broken(key) for key in value):
            found.append(self.violation(value, path, f"Map keys must satisfy constraint: {_all_rules(self._key)}"))
        if any(self._value.broken(item) for item in value.values()):
            found.append(self.violation(value, path, f"Map value must satisfy constraint: {_all_rules(self._value)}"))
        if not isinstance(self._value, _Scalar):
            for key, item in value.items():
                self._value.descend(item, f"{path}.{key}.member", found)


def _has_secrets(shape: Shape, above: tuple[str, ...]) -> bool:
    """Tell whether the model calls a shape, or anything in it, sensitive."""
    if shape.metadata.get("sensitive"):
        return True
    if shape.name in above:
        return False
    inside: dict[str, Callable[[], list[Shape]]] = {
        "structure": lambda: list(shape.members.values()),
        "list": lambda: [shape.member],
        "map": lambda: [shape.key, shape.value],
    }
    parts = inside.get(shape.type_name, list)()
    return any(_has_secrets(part, (*above, shape.name)) for part in parts)


def _all_rules(node: _Node) -> str:
    return f"[{', '.join(rule.text for rule in node.rules)}]"


def _rules(shape: Shape) -> Iterator[_Rule]:
    facts = shape.metadata
    # The models give timestamps and booleans no bounds; on everything else min and max mean length, or value.
    number = shape.type_name in ("integer", "long", "float", "double")
    noun, measure = ("value", _itself) if number else ("length", len)
    if (most := facts.get("max")) is not None:
        yield _Rule(f"Member must have {noun} less than or equal to {most}", lambda value: measure(value) <= most)
    if (least := facts.get("min")) is not None:
        yield _Rule(f"Member must have {noun} greater than or equal to {least}", lambda value: measure(value) >= least)
    if (text := facts.get("pattern")) is not None:
        yield _Rule(f"Member must satisfy regular expression pattern: {text}", _matcher(text))
    if (enum := facts.get("enum")) is not None:
        yield _Rule(f"Member must satisfy enum value set: [{', '.join(enum)}]", frozenset(enum).__contains__)


def _itself(number: Any) -> Any:
    return number


def _matcher(text: str) -> Callable[[str], bool]:
    compiled = model.pattern(text)

    def matches(value: str) -> bool:
        try:
            return compiled.fullmatch(value, timeout=_PATTERN_SECONDS) is not None
        except TimeoutError:
            # Some of AWS's patterns backtrack without end on a text made for it; honest values take microseconds.
            return False

    return matches


def _shown(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case list():
            return f"[{', '.join(map(_shown, value))}]"
        case dict():
            return f"{{{', '.join(f'{key}={_shown(item)}' for key, item in value.items())}}}"
        case _:
            return str(value)


@cache
def _node(shape: Shape) -> _Node:
    kinds: dict[str, type[_Node]] = {"structure": _Structure, "list": _List, "map": _Map}
    return kinds.get(shape.type_name, _Scalar)(shape)
