"""The options of a command: from the model to a parser, and from the command line to the words of each option.

As in the aws CLI the global options may stand anywhere. They are taken out first, then the name of the operation, and
the operation's own parser gets the rest; names may be shortened while they are unambiguous.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NoReturn

from clary.cli.aws.failures import SyntaxFailure, UsageError
from clary.cli.aws.output import FORMATS
from clary.cli.aws.shapes import Operation, Shape

SKELETONS = ("input", "output", "yaml-input")
PAGING = ("starting-token", "page-size", "max-items")
INPUT = ("cli-input-json", "cli-input-yaml", "generate-cli-skeleton")

_INTEGER = Shape({"shape": "Integer"}, {"Integer": {"type": "integer"}})
_STRING = Shape({"shape": "String"}, {"String": {"type": "string"}})


@dataclass(frozen=True)
class Global:
    """An option that every command has."""

    name: str
    help: str
    facts: dict[str, Any] = field(default_factory=dict)
    """How argparse reads it."""

    @property
    def takes_value(self) -> bool:
        return "action" not in self.facts


_ON = {"action": "store_true"}

GLOBALS = (
    Global("debug", "Turn on debug logging.", _ON),
    Global("endpoint-url", "Send the request to this URL."),
    Global("no-verify-ssl", "Do not verify TLS certificates.", _ON),
    Global("no-paginate", "Make one call, for the first page of results.", _ON),
    Global("output", "How to print the answer.", {"choices": FORMATS}),
    Global("query", "A JMESPath expression; its result is printed."),
    Global("profile", "The profile of the AWS config and credentials files to use."),
    Global("region", "The region to sign for."),
    Global("color", "Colour in tables.", {"choices": ("on", "off", "auto"), "default": "auto"}),
    Global("no-sign-request", "Do not sign the request, and look for no credentials.", _ON),
    Global("ca-bundle", "The file of the CA certificates to trust."),
    Global("cli-read-timeout", "Seconds to wait for an answer [60]; 0 waits for ever.", {"type": int}),
    Global("cli-connect-timeout", "Seconds to wait for a connection [60]; 0 waits for ever.", {"type": int}),
    Global(
        "cli-binary-format",
        "How blobs are written on the command line [base64].",
        {"choices": ("base64", "raw-in-base64-out")},
    ),
    Global("no-cli-pager", "Accepted: Clary starts a pager for help pages alone.", _ON),
    Global("no-cli-auto-prompt", "Accepted: Clary never prompts.", _ON),
)


@dataclass(frozen=True)
class Option:
    """An option of one operation. Of a boolean's two, `negates` marks the --no- one."""

    name: str
    shape: Shape
    member: str = ""
    """The member of the request that it sets; empty where it says something to the command itself."""
    required: bool = False
    hidden: bool = False
    negates: bool = False

    @property
    def flag(self) -> str:
        return f"--{self.name}"


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises what it has to say."""

    def __init__(self) -> None:
        super().__init__(add_help=False, usage="", conflict_handler="resolve")

    def error(self, message: str) -> NoReturn:
        raise SyntaxFailure(message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # argparse lists all choices, and `sagemaker` has four hundred operations.
        if action.choices is None or value in action.choices:
            return
        message = f"Found invalid choice '{value}'"
        close = get_close_matches(value, [str(choice) for choice in action.choices], cutoff=0.8)
        if close:
            message += "\n\nmaybe you meant:\n\n" + "\n".join(f"  * {choice}" for choice in close)
        raise argparse.ArgumentError(action, message)


def options_of(operation: Operation) -> list[Option]:
    """Give the options of an operation in the model's order, then those that steer the command."""
    members = operation.input.members if operation.input else {}
    required = set(operation.input.required) if operation.input else set()
    paging = _paging_members(operation)
    found: list[Option] = []
    for member, shape in members.items():
        name = operation.names[member]
        is_required = member in required and not shape.traits.get("idempotencyToken", False)
        found.append(Option(name, shape, member, is_required, hidden=member in paging))
        if shape.type == "boolean":
            found.append(Option(f"no-{name}", shape, member, hidden=member in paging, negates=True))
    return found + [Option(name, shape) for name, shape in steering(operation)]


def steering(operation: Operation) -> Iterable[tuple[str, Shape]]:
    """Give the options that steer the command: pages, whole documents, skeletons."""
    pages = operation.paginator
    if pages is not None:
        limit = pages.get("limit_key")
        kind = operation.input.members[limit] if limit and operation.input else _INTEGER
        yield "starting-token", _STRING
        if limit:
            yield "page-size", kind
        yield "max-items", kind
    if operation.payload is None:
        for name in INPUT:
            yield name, _STRING


def parse_globals(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Give the global options and all the rest. Raises UsageError."""
    parser = Parser()
    for option in GLOBALS:
        parser.add_argument(f"--{option.name}", **option.facts)
    return parser.parse_known_args(arguments)


def parse_choice(kind: str, arguments: Sequence[str], choices: Sequence[str]) -> tuple[str, list[str]]:
    """Take the name of an operation or a waiter from the arguments. Raises UsageError."""
    parser = Parser()
    parser.add_argument(kind, choices=[*choices, "help"])
    namespace, rest = parser.parse_known_args(arguments)
    return getattr(namespace, kind), rest


def parse_options(operation: Operation, options: Sequence[Option], arguments: Sequence[str]) -> dict[str, Any]:
    """Give the words of each option that was given, by its name; `outfile` and `help` by theirs. Raises UsageError."""
    forgiving = operation.payload is None and _forgives(arguments)
    parser = Parser()
    for option in options:
        if option.name == "generate-cli-skeleton":
            parser.add_argument(option.flag, dest=option.name, nargs="?", const="input", choices=SKELETONS)
        elif option.shape.type == "boolean":
            dest = option.name.removeprefix("no-") if option.negates else option.name
            parser.add_argument(option.flag, dest=dest, action="store_const", const=not option.negates)
        elif option.shape.type == "list":
            required = option.required and not forgiving
            parser.add_argument(option.flag, dest=option.name, nargs="*", required=required)
        else:
            required = option.required and not forgiving
            parser.add_argument(option.flag, dest=option.name, required=required, type=_type(option))
    if operation.payload is not None:
        parser.add_argument("outfile")
    parser.add_argument("help", nargs="?")
    namespace, rest = parser.parse_known_args(arguments)
    found = {name: value for name, value in vars(namespace).items() if value is not None}
    stray = found.pop("help", None)
    unknown = [*rest, stray] if stray is not None else rest
    if unknown:
        raise UsageError(f"Unknown options: {', '.join(unknown)}")
    return found


def _forgives(arguments: Sequence[str]) -> bool:
    """Tell whether a whole document or the wish for a skeleton takes the place of the required options.

    A skeleton of the output does not: it also checks the input.
    """
    if "--generate-cli-skeleton" in arguments:
        at = list(arguments).index("--generate-cli-skeleton")
        return "output" not in arguments[at + 1 : at + 2]
    return "--cli-input-json" in arguments or "--cli-input-yaml" in arguments


def _type(option: Option) -> Any:
    if option.name in ("page-size", "max-items") and not option.member:
        return int if option.shape.type in ("integer", "long") else str
    return {"long": int, "float": float, "double": float}.get(option.shape.type, str)


def _paging_members(operation: Operation) -> set[str]:
    pages = operation.paginator
    if pages is None:
        return set()
    tokens = pages["input_token"]
    return {*([tokens] if isinstance(tokens, str) else tokens), *filter(None, [pages.get("limit_key")])}
