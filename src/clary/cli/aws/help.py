"""The help pages, made from the service model: of a service, of an operation, of a waiter."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import click

from clary.cli.aws import shapes
from clary.cli.aws.options import GLOBALS, SKELETONS, Option, options_of
from clary.cli.aws.prose import render
from clary.cli.aws.shapes import Operation, Shape
from clary.cli.aws.syntax import json_syntax, shorthand

WIDEST, MARGIN, STEP = 100, 4, 4

STEERING = {
    "starting-token": "Where to go on: the NextToken that an earlier, shortened answer printed.",
    "page-size": "How many items to ask for in one call; it does not change what is printed.",
    "max-items": "How many items to print. Where there are more, a NextToken for --starting-token is printed too.",
    "cli-input-json": "The whole request as JSON, or file://path of it. Options that are given besides win.",
    "cli-input-yaml": "The whole request as YAML, or file://path of it. Options that are given besides win.",
    "generate-cli-skeleton": f"Send nothing; print a sample ({', '.join(SKELETONS)}). For output, check the request.",
}


def show(service: str, name: str, waiter: Mapping[str, Any] | None) -> None:
    """Print a page, through the pager on a terminal. `name` is an operation, or `help` or `wait` for their lists."""
    if waiter is not None:
        page = waiter_page(service, waiter)
    elif name == "wait":
        page = waiters_page(service)
    elif name == "help":
        page = service_page(service)
    else:
        page = operation_page(shapes.operation(service, name, documented=True))
    click.echo_via_pager(page)


def service_page(service: str) -> str:
    """Give the page of a service: what Clary does of it first, then what it leaves to AWS."""
    # Imported for this page alone: the table of operations brings the whole control plane with it.
    from clary.api.coverage import implemented

    there = {name for of, name in implemented() if of == service}
    operations = shapes.index(service)
    ours = [cli for cli, name in operations.items() if name in there]
    others = [cli for cli, name in operations.items() if name not in there]
    if shapes.waiters(service):
        ours.append("wait")
    return _page(
        ("NAME", _indented(service)),
        ("SYNOPSIS", _indented(f"clary {service} <operation> [parameters]\nclary {service} <operation> help")),
        ("OPERATIONS", _columns(sorted(ours))),
        ("GLOBAL OPTIONS", _global_options()),
        ("OPERATIONS THAT CLARY DOES NOT HAVE (it answers UnknownOperationException)", _columns(sorted(others))),
    )


def waiters_page(service: str) -> str:
    """Give the page of `wait`."""
    return _page(
        ("NAME", _indented("wait")),
        ("SYNOPSIS", _indented(f"clary {service} wait <waiter> [parameters]")),
        ("WAITERS", _columns(sorted(shapes.waiters(service)))),
    )


def waiter_page(service: str, waiter: Mapping[str, Any]) -> str:
    """Give the page of one waiter."""
    cli_name = shapes.option_name(waiter["name"])
    operation = shapes.operation(service, shapes.option_name(waiter["operation"]), documented=True)
    success = next(acceptor for acceptor in waiter["acceptors"] if acceptor["state"] == "success")
    what = f"{success['argument']} is" if "argument" in success else "it answers"
    text = (
        f"Wait until {what} {success['expected']}, asking with {operation.cli_name} every {waiter['delay']} seconds. "
        f"Leaves with 255 after {waiter['maxAttempts']} attempts that did not succeed."
    )
    return _page(
        ("NAME", _indented(cli_name)),
        ("DESCRIPTION", render(text, _width(), MARGIN)),
        ("SYNOPSIS", _synopsis(f"clary {service} wait {cli_name}", operation)),
        ("OPTIONS", _options(operation)),
        ("GLOBAL OPTIONS", _global_options()),
    )


def operation_page(operation: Operation) -> str:
    """Give the page of one operation."""
    output = [_member(name, shape, MARGIN, ()) for name, shape in _members(operation.output)]
    pages = operation.paginator
    paging = "It gets page after page; --no-paginate gets the first." if pages else ""
    return _page(
        ("NAME", _indented(operation.cli_name)),
        ("DESCRIPTION", render(f"{operation.documentation}<p>{paging}</p>", _width(), MARGIN)),
        ("SYNOPSIS", _synopsis(f"clary {operation.service} {operation.cli_name}", operation)),
        ("OPTIONS", _options(operation)),
        ("GLOBAL OPTIONS", _global_options()),
        ("OUTPUT", "\n\n".join(output) or _indented("None")),
    )


def _page(*sections: tuple[str, str]) -> str:
    return "\n\n".join(f"{title}\n{text}" for title, text in sections if text.strip()) + "\n"


def _synopsis(command: str, operation: Operation) -> str:
    lines = []
    for option in _shown(operation):
        both = f"{option.flag} | --no-{option.name}" if _is_flag(option) else f"{option.flag} <value>"
        lines.append(both if option.required and not _is_flag(option) else f"[{both}]")
    if operation.payload is not None:
        lines.append("<outfile>")
    lines += [f"[--{option.name} <value>]" if option.takes_value else f"[--{option.name}]" for option in GLOBALS]
    return _indented("\n".join([command, *(f"  {line}" for line in lines)]))


def _options(operation: Operation) -> str:
    parts = [_option(option) for option in _shown(operation)]
    if operation.payload is not None:
        text = "Where the body goes: a file, or - for standard output; the rest of the answer then goes to stderr."
        parts.append(f"{_indented('outfile (string)')}\n{render(text, _width(), MARGIN + STEP)}")
    return "\n\n".join(parts)


def _option(option: Option) -> str:
    shape, inner = option.shape, MARGIN + STEP
    name = f"{option.flag} | --no-{option.name}" if _is_flag(option) else option.flag
    head = f"{name} ({shape.type})" + (" [required]" if option.required else "")
    parts = [_indented(head) + "\n" + render(STEERING.get(option.name, shape.documentation), _width(), inner)]
    above = (shape.name,)
    parts += [_member(member, found, inner, above) for member, found in _members(shape)]
    if shape.enum:
        parts.append(_values(shape, inner))
    if shape.takes_shorthand:
        parts.append(_block("Shorthand syntax:", shorthand(shape), inner))
    if shape.type == "list" and shape.member.is_scalar:
        parts.append(_block("Syntax:", f"{shape.member.type} {shape.member.type} ...", inner))
        if shape.member.enum:
            parts.append(_values(shape.member, inner))
    if not shape.is_scalar:
        parts.append(_block("JSON syntax:", json_syntax(shape), inner))
    return "\n\n".join(parts)


def _member(name: str, shape: Shape, indent: int, above: tuple[str, ...]) -> str:
    """Give the documentation of a member and of all that is in it."""
    head = f"{' ' * indent}{name} -> ({shape.type})"
    text = render(shape.documentation, _width(), indent + STEP)
    parts = [f"{head}\n{text}" if text else head]
    if shape.enum:
        parts.append(_values(shape, indent + STEP))
    if shape.name not in above:
        parts += [_member(inner, found, indent + STEP, (*above, shape.name)) for inner, found in _members(shape)]
    return "\n\n".join(parts)


def _members(shape: Shape | None) -> Iterable[tuple[str, Shape]]:
    """Give what is in a shape, by what to call it."""
    if shape is None:
        return []
    if shape.type == "list":
        return [] if shape.member.is_scalar else [("(each)", shape.member)]
    if shape.type == "map":
        return [("key", shape.key), ("value", shape.value)]
    return shape.members.items()


def _shown(operation: Operation) -> list[Option]:
    return [option for option in options_of(operation) if not option.hidden and not option.negates]


def _is_flag(option: Option) -> bool:
    return option.shape.type == "boolean"


def _values(shape: Shape, indent: int) -> str:
    return render(f"Possible values: {', '.join(shape.enum)}.", _width(), indent)


def _global_options() -> str:
    parts = []
    for option in GLOBALS:
        choices = option.facts.get("choices", ())
        value = f" {'|'.join(choices)}" if choices else " <value>" if option.takes_value else ""
        parts.append(f"{_indented(f'--{option.name}{value}')}\n{render(option.help, _width(), MARGIN + STEP)}")
    return "\n\n".join(parts)


def _block(title: str, text: str, indent: int) -> str:
    margin = " " * indent
    return f"{margin}{title}\n\n{textwrap.indent(text, margin + ' ' * STEP)}"


def _columns(names: list[str]) -> str:
    if not names:
        return ""
    size = max(map(len, names)) + 2
    count = max(1, (_width() - MARGIN) // size)
    rows = [names[at : at + count] for at in range(0, len(names), count)]
    return _indented("\n".join("".join(name.ljust(size) for name in row).rstrip() for row in rows))


def _indented(text: str) -> str:
    return textwrap.indent(text, " " * MARGIN)


def _width() -> int:
    return min(shutil.get_terminal_size().columns, WIDEST)
