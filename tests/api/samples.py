"""Requests made from the service model: the smallest, the largest, each constraint broken on its own, all broken.

What the service says of a broken request is worked out here a second time, straight from the model's facts, so that
the tests do not take the server's own word for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from botocore.model import Shape

from clary.wire import model

OMIT = object()
Given = Mapping[str, Any]
"""By path (`PrimaryContainer.Image`): a value, OMIT, or a function that gets the value that would have been taken."""

_GOOD = (
    "a",
    "s3://bucket/key",
    "arn:aws:iam::123456789012:role/clary",
    "arn:aws:sagemaker:us-east-1:123456789012:model-package/g/1",
    "arn:aws:sns:us-east-1:123456789012:topic",
    "sha256:" + "0a" * 32,
    "1.0",
    "1.0.0",
    "text/csv",
    "mig-1g.5gb",
    "/metrics",
)
_BAD = ("!", "\n", " ", "!" * 20, "!" * 40)
_LONGEST_INTEGER = 2**31 - 1


def smallest(shape: Shape, given: Given) -> Any:
    """Give the required members alone, and those that `given` has a value for."""
    return _sample(shape, "", given, everything=False)


def largest(shape: Shape, given: Given) -> Any:
    """Give every member, lists and maps with one element."""
    return _sample(shape, "", given, everything=True)


def _sample(shape: Shape, path: str, given: Given, *, everything: bool) -> Any:
    facts = shape.metadata
    match shape.type_name:
        case "structure":
            value = {}
            for name, member in shape.members.items():
                inner = f"{path}.{name}" if path else name
                chosen = given.get(inner)
                if chosen is OMIT or not (everything or name in shape.required_members or chosen is not None):
                    continue
                if callable(chosen) or chosen is None:
                    sample = _sample(member, inner, given, everything=everything)
                    value[name] = chosen(sample) if callable(chosen) else sample
                else:
                    value[name] = chosen
            return value
        case "list":
            return [_sample(shape.member, path, given, everything=everything)] * max(facts.get("min", 0), 1)
        case "map":
            return {_text(shape.key): _sample(shape.value, path, given, everything=everything)}
        case "string":
            return _text(shape)
        case "boolean":
            return True
        case "timestamp":
            return 1_700_000_000
        case "float" | "double":
            return float(facts.get("min", 0)) + 0.5
        case "integer" | "long":
            return max(facts.get("min", 0), min(1, facts.get("max", 1)))
    raise AssertionError(shape.type_name)


def _text(shape: Shape) -> str:
    facts = shape.metadata
    if "enum" in facts:
        return str(facts["enum"][0])
    least = facts.get("min", 0)
    return next(text for text in (*_GOOD, "a" * least) if not _broken(shape, text))


def each_broken(shape: Shape, value: Any) -> Iterator[tuple[str, Any]]:
    """Give copies of a good value, in each of which one thing is wrong, each with a name."""
    yield from _broken_itself(shape, value)
    match shape.type_name:
        case "structure":
            for name, inner in value.items():
                rest = {member: each for member, each in value.items() if member != name}
                if name in shape.required_members:
                    yield f"no {name}", rest
                for label, broken in each_broken(shape.members[name], inner):
                    yield f"{name}.{label}", {**rest, name: broken}
        case "list":
            for label, broken in each_broken(shape.member, value[0]) if value else ():
                yield f"[].{label}", [broken, *value[1:]]
        case "map":
            ((key, inner),) = value.items()
            for label, broken in _broken_itself(shape.key, key):
                yield f"key {label}", {broken: inner}
            for label, broken in each_broken(shape.value, inner):
                yield f"{{}}.{label}", {key: broken}


def _broken_itself(shape: Shape, value: Any) -> Iterator[tuple[str, Any]]:
    facts, kind = shape.metadata, shape.type_name
    least, most = facts.get("min"), facts.get("max")
    if kind in ("integer", "long", "float"):
        if least is not None:
            yield "too small", float(least - 1) if kind == "float" else least - 1
        if most is not None and most < _LONGEST_INTEGER:
            yield "too large", most + 1
        return
    if most is not None:
        if kind == "string":
            yield "too long", value + "a" * (most + 1 - len(value))
        if kind == "list":
            yield "too many", value[:1] * (most + 1)
        if kind == "map":
            yield "too many", {f"k{n}": next(iter(value.values())) for n in range(most + 1)}
    if least:
        yield "too few", {"string": "", "list": [], "map": {}}[kind]
    if "enum" in facts:
        yield "unknown", "Nonsense"
    if "pattern" in facts:
        rule = _pattern_rule(facts["pattern"])
        breaking = [bad for bad in _BAD if rule in _broken(shape, bad)]
        # Best is one that breaks nothing else; some patterns forbid nothing.
        alone = [bad for bad in breaking if _broken(shape, bad) == [rule]]
        yield from (("pattern", bad) for bad in (alone or breaking)[:1])


def all_broken(shape: Shape, value: Any) -> Any:
    """Break in a copy of a good value whatever can be broken at the same time."""
    match shape.type_name:
        case "structure":
            broken = {name: all_broken(shape.members[name], inner) for name, inner in value.items()}
            # A required member in which nothing can be wrong can at least be missing.
            return {n: b for n, b in broken.items() if b != value[n] or n not in shape.required_members}
        case "list":
            return [all_broken(shape.member, value[0])] if value else value
        case "map":
            return {key: all_broken(shape.value, inner) for key, inner in value.items()}
    return next((broken for _, broken in _broken_itself(shape, value)), value)


# What the service says


def message(shape: Shape, value: Any) -> str | None:
    """Give the text for a request; None where nothing is wrong with it."""
    items = list(_items(shape, value, ""))
    plural = "error" if len(items) == 1 else "errors"
    return f"{len(items)} validation {plural} detected: {'; '.join(items)}" if items else None


def _items(shape: Shape, value: Any, path: str) -> Iterator[str]:
    match shape.type_name:
        case "structure":
            for name, member in shape.members.items():
                inner = f"{path}.{name[0].lower()}{name[1:]}".removeprefix(".")
                if name in value:
                    yield from (_item(member, value[name], inner, rule) for rule in _broken(member, value[name]))
                    yield from _items(member, value[name], inner)
                elif name in shape.required_members:
                    yield f"Value null at '{inner}' failed to satisfy constraint: Member must not be null"
        case "list":
            yield from _of_elements(shape, value, value, path, ("Member must", shape.member))
            for index, each in enumerate(value, 1):
                yield from _items(shape.member, each, f"{path}.{index}.member")
        case "map":
            yield from _of_elements(shape, value, value, path, ("Map keys must", shape.key))
            yield from _of_elements(shape, value, value.values(), path, ("Map value must", shape.value))
            for key, each in value.items():
                yield from _items(shape.value, each, f"{path}.{key}.member")


def _of_elements(shape: Shape, whole: Any, elements: Any, path: str, rule: tuple[str, Shape]) -> Iterator[str]:
    words, inner = rule
    if any(_broken(inner, each) for each in elements):
        texts = ", ".join(text for text, _ in _rules(inner))
        yield _item(shape, whole, path, f"{words} satisfy constraint: [{texts}]")


def _item(shape: Shape, value: Any, path: str, rule: str) -> str:
    quoted = f" '{_shown(value)}'" if _is_shown(shape) else ""
    return f"Value{quoted} at '{path}' failed to satisfy constraint: {rule}"


def _is_shown(shape: Shape, above: tuple[str, ...] = ()) -> bool:
    """What the model calls sensitive is not shown, nor is what it is in."""
    if shape.name in above:
        return True
    inner = [getattr(shape, each) for each in {"list": ("member",), "map": ("key", "value")}.get(shape.type_name, ())]
    if shape.type_name == "structure":
        inner = list(shape.members.values())
    return not shape.metadata.get("sensitive") and all(_is_shown(each, (*above, shape.name)) for each in inner)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}={_shown(each)}' for key, each in value.items())}}}"
    return str(value)


def _broken(shape: Shape, value: Any) -> list[str]:
    return [text for text, holds in _rules(shape) if not holds(value)]


def _rules(shape: Shape) -> list[tuple[str, Callable[[Any], bool]]]:
    facts = shape.metadata
    number = shape.type_name in ("integer", "long", "float", "double")
    noun, size = ("value", lambda value: value) if number else ("length", len)
    rules: list[tuple[str, Callable[[Any], bool]]] = []
    if "max" in facts:
        rules.append(
            (f"Member must have {noun} less than or equal to {facts['max']}", lambda v: size(v) <= facts["max"])
        )
    if "min" in facts:
        rules.append(
            (f"Member must have {noun} greater than or equal to {facts['min']}", lambda v: size(v) >= facts["min"])
        )
    if "pattern" in facts:
        compiled = model.pattern(facts["pattern"])
        rules.append((_pattern_rule(facts["pattern"]), lambda v: compiled.fullmatch(v) is not None))
    if "enum" in facts:
        rules.append(
            (f"Member must satisfy enum value set: [{', '.join(facts['enum'])}]", lambda v: v in facts["enum"])
        )
    return rules


def _pattern_rule(pattern: str) -> str:
    return f"Member must satisfy regular expression pattern: {pattern}"
