"""Hypothesis strategies made from botocore's shapes, and the operations that tests draw them for."""

from __future__ import annotations

import warnings
from typing import Any

from botocore.model import OperationModel, Shape
from hypothesis import strategies as st

from clary.wire import model

HOSTING = (
    "CreateModel",
    "DescribeModel",
    "ListModels",
    "DeleteModel",
    "CreateEndpointConfig",
    "DescribeEndpointConfig",
    "ListEndpointConfigs",
    "DeleteEndpointConfig",
    "CreateEndpoint",
    "DescribeEndpoint",
    "ListEndpoints",
    "DeleteEndpoint",
    "AddTags",
    "ListTags",
    "DeleteTags",
)

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_DEEPEST = 6
# Milliseconds, which is what the protocol carries: 1970 to 2100.
_TIMES = st.integers(0, 4_102_444_800_000).map(lambda milliseconds: milliseconds / 1000)
_INTEGERS = {"integer": 32, "long": 64}


def operation(name: str) -> OperationModel:
    return model.operation("sagemaker", name)


def typed(shape: Shape, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values of the right types that keep no other rule, as decoded: floats for times, no unknown members."""
    match shape.type_name:
        case "structure":
            return _structure(shape, depth)
        case "list":
            return st.just([]) if depth > _DEEPEST else st.lists(typed(shape.member, depth + 1), max_size=2)
        case "map":
            return st.dictionaries(_TEXT, typed(shape.value, depth + 1), max_size=2)
        case "string":
            return _TEXT
        case "integer" | "long" as kind:
            limit = 1 << (_INTEGERS[kind] - 1)
            return st.integers(-limit, limit - 1)
        case "float" | "double":
            return st.floats(allow_nan=False, allow_infinity=False)
        case "boolean":
            return st.booleans()
        case "timestamp":
            return _TIMES
    raise AssertionError(shape.type_name)


def _structure(shape: Shape, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    members = {name: st.deferred(_later(member, depth + 1)) for name, member in shape.members.items()}
    if shape.is_tagged_union:
        return st.sampled_from(sorted(members)).flatmap(lambda name: st.fixed_dictionaries({name: members[name]}))
    if depth > _DEEPEST:
        return st.just({})
    return st.fixed_dictionaries({}, optional=members)


def _later(shape: Shape, depth: int) -> Any:
    return lambda: typed(shape, depth)


def conforming(shape: Shape) -> st.SearchStrategy[Any]:
    """Values that keep every rule of the model. For shapes that do not contain themselves."""
    facts = shape.metadata
    least = facts.get("min", 0)
    match shape.type_name:
        case "structure":
            required = set(shape.required_members)
            members = {name: conforming(member) for name, member in shape.members.items()}
            return st.fixed_dictionaries(
                {name: value for name, value in members.items() if name in required},
                optional={name: value for name, value in members.items() if name not in required},
            )
        case "list":
            size = min(facts.get("max", least + 2), least + 2)
            return st.lists(conforming(shape.member), min_size=least, max_size=size)
        case "map":
            return st.dictionaries(conforming(shape.key), conforming(shape.value), min_size=least, max_size=least + 2)
        case "string":
            return _string(facts)
        case "integer" | "long":
            return st.integers(least, facts.get("max", 1000))
        case "float" | "double":
            return st.floats(least, facts.get("max", 1000.0), allow_nan=False)
    return typed(shape)


def _string(facts: dict[str, Any]) -> st.SearchStrategy[str]:
    least, most = facts.get("min", 0), facts.get("max", 1024)
    if "enum" in facts:
        return st.sampled_from(facts["enum"])
    if "pattern" not in facts:
        return st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=least, max_size=min(most, 20))
    compiled = model.pattern(facts["pattern"])
    # Hypothesis reads `re`'s flavour; Unicode categories become a few letters.
    flavour = facts["pattern"].replace(r"\p{L}\p{Z}\p{N}", "A-Za-z0-9 é").replace(r"\z", r"\Z")
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # `re` wonders about [[ in classes
        candidates = st.from_regex(flavour, fullmatch=True)
    return candidates.filter(lambda text: least <= len(text) <= most and compiled.fullmatch(text) is not None)
