"""Completion of `clary sagemaker ...` in a shell, through click's: operations, waiters, options and their values."""

from __future__ import annotations

from collections.abc import Sequence

from clary.cli.aws import shapes
from clary.cli.aws.failures import UsageError
from clary.cli.aws.options import GLOBALS, SKELETONS, options_of, parse_globals


def complete(service: str, words: Sequence[str], incomplete: str) -> list[str]:
    """Give what may stand in the place of the incomplete word, after the others."""
    return [word for word in _candidates(service, words) if word.startswith(incomplete)]


def _candidates(service: str, words: Sequence[str]) -> list[str]:
    last = words[-1] if words else ""
    for option in GLOBALS:
        if last == f"--{option.name}" and option.takes_value:
            return list(option.facts.get("choices", ()))
    try:
        _, rest = parse_globals(words)
    except UsageError:
        return []
    general = [f"--{option.name}" for option in GLOBALS if f"--{option.name}" not in words]
    operations = shapes.index(service)
    waiters = shapes.waiters(service)
    if not rest:
        return [*operations, *(["wait"] if waiters else []), "help", *general]
    name = rest[0]
    if name == "wait":
        if len(rest) == 1:
            return [*waiters, "help"]
        name = shapes.option_name(waiters[rest[1]]["operation"]) if rest[1] in waiters else ""
    if name not in operations:
        return []
    return _of_operation(service, name, rest, general)


def _of_operation(service: str, name: str, rest: Sequence[str], general: list[str]) -> list[str]:
    options = options_of(shapes.operation(service, name))
    for option in options:
        if rest[-1] == option.flag and option.shape.type != "boolean":
            if option.name == "generate-cli-skeleton":
                return list(SKELETONS)
            enum = option.shape.member.enum if option.shape.type == "list" else option.shape.enum
            return enum or []
    mine = [option.flag for option in options if not option.hidden and option.flag not in rest]
    return [*mine, *general, *(["help"] if rest[-1] == name else [])]
