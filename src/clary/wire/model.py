"""The one door to botocore's service models: services, operations, patterns, paginators.

The models are data that AWS publishes, and they are Clary's schema. Only those inside the botocore package are read:
a model under `~/.aws/models` would change what the server accepts by what lies in somebody's home.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import regex
from botocore.exceptions import UnknownServiceError
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel

_loader = Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)

_ADDITIONS: dict[str, dict[str, Any]] = tomllib.loads(
    resources.files("clary.wire").joinpath("additions.toml").read_text()
)

# Java writes a character beyond U+FFFF as its two halves; here it is one character.
_SURROGATE_PAIR = regex.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
# \p{L} and its kind; \p{Alnum}, \p{Print} and the other POSIX names mean ASCII in Java.
_UNICODE_CATEGORY = regex.compile(r"\\[pP]\{?[LMZSNPC][a-z]?\}?(?![a-zA-Z])")


@dataclass(frozen=True, slots=True)
class Paginator:
    """How an operation pages: the members that carry tokens, the page size and the results."""

    input_tokens: tuple[str, ...]
    output_tokens: tuple[str, ...]
    limit_key: str | None
    result_keys: tuple[str, ...]


@cache
def service(name: str) -> ServiceModel:
    """Give the newest model of a service under botocore's name for it; raise LookupError where there is none."""
    try:
        description = _loader.load_service_model(name, "service-2")
    except UnknownServiceError:
        raise LookupError(f"botocore has no service {name!r}") from None
    return ServiceModel({**description, "shapes": _with_additions(name, description["shapes"])}, name)


def _with_additions(name: str, shapes: dict[str, Any]) -> dict[str, Any]:
    """Copy what is changed: the loader hands everybody the same description, the command line's clients included."""
    additions = _ADDITIONS.get(name, {})
    changed = dict(shapes)
    for shape, values in additions.get("enum", {}).items():
        changed[shape] = {**changed[shape], "enum": changed[shape]["enum"] + values}
    for shape, text in additions.get("pattern", {}).items():
        changed[shape] = {**changed[shape], "pattern": text}
    return changed


def operation(service_name: str, name: str) -> OperationModel:
    """Give one operation; raise LookupError where the service has none of that name."""
    found = service(service_name)
    if name not in found.operation_names:
        raise LookupError(f"{service_name} has no operation {name!r}")
    return found.operation_model(name)


@cache
def paginator(service_name: str, operation_name: str) -> Paginator | None:
    """Give the paging facts of an operation; None where it does not page."""
    facts = _loader.load_service_model(service_name, "paginators-1")["pagination"].get(operation_name)
    if facts is None:
        return None
    return Paginator(
        input_tokens=_names(facts["input_token"]),
        output_tokens=_names(facts["output_token"]),
        limit_key=facts.get("limit_key"),
        result_keys=_names(facts["result_key"]),
    )


@cache
def pattern(text: str) -> regex.Pattern[str]:
    r"""Compile a model's pattern, which is a Java regex; use `fullmatch`.

    In Java `\d`, `\w`, `\s` and the POSIX names are ASCII, categories are Unicode, and `.` stops at every line
    terminator. `regex` has one switch for the first two, so the presence of a category decides it.
    """
    flags = regex.WORD | (regex.UNICODE if _UNICODE_CATEGORY.search(text) else regex.ASCII)
    return regex.compile(_SURROGATE_PAIR.sub(_one_character, text), flags)


def _one_character(pair: regex.Match[str]) -> str:
    high, low = (int(half, 16) for half in pair.groups())
    return f"\\U{0x10000 + ((high & 0x3FF) << 10) + (low & 0x3FF):08X}"


def _names(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
