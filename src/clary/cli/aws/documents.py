"""Whole requests: --cli-input-json and --cli-input-yaml."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from clary.cli.aws import values
from clary.cli.aws.failures import ParamError, UsageError


def read(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give the request that one of the two options holds or names; None where neither is given.

    Raises UsageError where both are, and ParamError for what cannot be read or is no request.
    """
    names = [name for name in _READERS if name in given]
    if not names:
        return None
    if len(names) > 1:
        raise UsageError("Only one --cli-input- parameter may be specified.")
    name = names[0]
    try:
        document = _READERS[name](values.read_file(given[name]))
    except values.Unreadable as error:
        raise ParamError(f"--{name}", str(error)) from error
    except ValueError as error:
        raise ParamError(name, str(error)) from error
    if not isinstance(document, dict):
        raise ParamError(f"--{name}", f"Invalid type: expecting map, received {type(document)}")
    return document


def _from_json(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"Invalid JSON: {error}\nJSON received: {text!s}") from error


def _from_yaml(text: str | bytes) -> Any:
    import yaml

    try:
        return yaml.load(text, Loader=_yaml_loader())  # noqa: S506  # it is a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(f"Invalid YAML: {error}") from error


@lru_cache
def _yaml_loader() -> Any:
    """Make a loader of YAML 1.2's core schema, in which `off`, `1:30` and `2024-01-01` are strings, as they are not in
    PyYAML's 1.1. A key that comes twice is an error, as in the aws CLI.
    """
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
        yaml_implicit_resolvers: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            found: dict[Any, Any] = super().construct_mapping(node, deep)
            if len(found) < len(node.value):
                raise yaml.constructor.ConstructorError(
                    "while constructing a mapping", node.start_mark, "found a key twice", node.start_mark
                )
            return found

    for kind, (pattern, initials, make) in _YAML_SCALARS.items():
        tag = f"tag:yaml.org,2002:{kind}"
        Loader.add_implicit_resolver(tag, re.compile(pattern), initials)
        Loader.add_constructor(tag, lambda _, node, make=make: make(node.value))
    return Loader


_YAML_SCALARS: dict[str, tuple[str, list[str], Callable[[str], Any]]] = {
    "bool": (r"^(?:true|True|TRUE|false|False|FALSE)$", [*"tTfF"], lambda text: text.lower() == "true"),
    "int": (r"^[-+]?[0-9]+$", [*"-+0123456789"], int),
    "float": (r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", [*"-+0123456789."], float),
    "null": (r"^(?:~|null|Null|NULL|)$", [*"~nN", ""], lambda _: None),
}
_READERS: dict[str, Callable[[str | bytes], Any]] = {"cli-input-json": _from_json, "cli-input-yaml": _from_yaml}
