"""The commands `clary sagemaker` and `clary sagemaker-runtime`: from arguments to an exit code."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
from click.shell_completion import CompletionItem

from clary.cli.aws import check, documents, place, profile, shapes, values
from clary.cli.aws.failures import GENERAL, INTERRUPTED, CommandFailure, SyntaxFailure, UsageError
from clary.cli.aws.options import PAGING, Option, options_of, parse_choice, parse_globals, parse_options
from clary.cli.aws.output import Printer, compile_query
from clary.cli.aws.shapes import Operation

USAGE = """\
usage: clary {service} <operation> [parameters]
To see help text, you can run:

  clary {service} help
  clary {service} <operation> help
"""


class Service(click.Command):
    """A command that takes all its arguments as they are: its options are the aws CLI's, and so is their parser."""

    def __init__(self, service: str, summary: str) -> None:
        super().__init__(service, help=summary, add_help_option=False)
        self.service = service

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.args = list(args)
        return []

    def invoke(self, ctx: click.Context) -> int:
        return main(self.service, ctx.args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from clary.cli.aws.completion import complete

        return [CompletionItem(word) for word in complete(self.service, ctx.args, incomplete)]


sagemaker = Service("sagemaker", "Call an operation of the hosting API, as `aws sagemaker` does.")
sagemaker_runtime = Service("sagemaker-runtime", "Invoke an endpoint, as `aws sagemaker-runtime` does.")


def main(service: str, arguments: Sequence[str]) -> int:
    """Run one command and give its exit code; what went wrong is on stderr."""
    try:
        _run(service, arguments)
        sys.stdout.flush()
    except SyntaxFailure as error:
        print(f"\n{USAGE.format(service=service)}\nclary: error: {error}", file=sys.stderr)
        return error.exit_code
    except CommandFailure as error:
        print(f"\n{error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print()
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read this has enough; python must not find that out again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:  # an answer that botocore has no reading for, for one: no reason to show a traceback
        if "--debug" in arguments:
            raise
        print(f"\n{error}", file=sys.stderr)
        return GENERAL
    return 0


def _run(service: str, arguments: Sequence[str]) -> None:
    asks_for_help = "--help" in arguments
    options, rest = parse_globals([word for word in arguments if word != "--help"])
    if asks_for_help:
        # As for every other command of clary; the aws CLI knows the word alone.
        rest = [*rest[: 2 if rest[:1] == ["wait"] else 1], "help"]
    query = compile_query(options.query) if options.query is not None else None
    waiters = shapes.waiters(service)
    name, rest = parse_choice("operation", rest, [*shapes.index(service), *(["wait"] if waiters else [])])
    waiter = None
    if name == "wait":
        kind, rest = parse_choice("subcommand", rest, list(waiters))
        if kind != "help":
            waiter = waiters[kind]
            name = shapes.option_name(waiter["operation"])
    if name in ("help", "wait") or rest == ["help"]:
        from clary.cli.aws import help as pages

        pages.show(service, name, waiter)
        return
    Command(shapes.operation(service, name), options, query).run(rest, waiter and waiter["name"])


class Command:
    """One call of one operation, as the command line asks for it."""

    def __init__(self, operation: Operation, options: Namespace, query: Any) -> None:
        self._operation = operation
        self._options = options
        self._profile = profile.current(options.profile)
        self._binary_format = options.cli_binary_format or self._profile.binary_format
        self._printer = Printer(options.output or self._profile.output, query, options.color)

    def run(self, arguments: Sequence[str], waiter: str | None) -> None:
        """Parse, call and print. Raises CommandFailure and its kinds."""
        options = options_of(self._operation)
        given = parse_options(self._operation, options, arguments)
        request = self._request(options, given)
        paging = self._paging(options, given, request)
        wanted = given.get("generate-cli-skeleton")
        if wanted is not None:
            self._print_skeleton(wanted, request)
            return
        is_plain = self._profile.validates and check.require_valid(self._operation, request)
        where = place.find(self._operation, self._options, self._profile)
        if paging is None and waiter is None and is_plain and self._call_directly(request, where):
            return
        self._call(request, paging, waiter, where, given.get("outfile"))

    def _request(self, options: Sequence[Option], given: Mapping[str, Any]) -> dict[str, Any]:
        """Give the request: what the options say, then what a whole document adds, then a token for its repetitions."""
        request: dict[str, Any] = {}
        for option in options:
            if not option.member or option.negates or option.name not in given:
                continue
            value = given[option.name]
            reader = values.Reader(option.flag, option.shape, self._binary_format)
            request[option.member] = value if option.shape.type == "boolean" else reader.read(value)
        document = documents.read(given)
        shape = self._operation.input
        if document is not None:
            if shape is not None and self._binary_format != values.RAW_BINARY:
                document = values.decode_blobs(document, shape)
            request |= {name: value for name, value in document.items() if name not in request}
        # Here and not on the way: however often and in whichever way it is sent, it is one request.
        members = shape.members if shape is not None else {}
        tokens = (name for name, member in members.items() if member.traits.get("idempotencyToken"))
        return request | {name: str(uuid4()) for name in tokens if name not in request}

    def _paging(
        self, options: Sequence[Option], given: Mapping[str, Any], request: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Give the paginator's configuration; None where one call is to be made."""
        if self._operation.paginator is None:
            return None
        chosen = {name: given[name] for name in PAGING if name in given}
        # Whoever gives the service's own tokens pages by hand.
        by_hand = any(option.hidden and option.member in request for option in options)
        if self._options.no_paginate or by_hand:
            if chosen:
                names = ", ".join(f"--{name}" for name in chosen)
                raise UsageError(f"Cannot specify --no-paginate along with pagination arguments: {names}")
            return None
        keys = {"starting-token": "StartingToken", "page-size": "PageSize", "max-items": "MaxItems"}
        if chosen.get("max-items") is not None and int(chosen["max-items"]) <= 0:
            print("warning: Non-positive values for --max-items may result in undefined behavior.", file=sys.stderr)
        return {keys[name]: value for name, value in chosen.items()}

    def _print_skeleton(self, wanted: str, request: dict[str, Any]) -> None:
        from clary.cli.aws import skeleton

        if wanted == "yaml-input":
            documented = shapes.operation(self._operation.service, self._operation.cli_name, documented=True)
            print(skeleton.yaml_input(documented), end="")
        elif wanted == "input":
            print(json.dumps(skeleton.sample_input(self._operation), indent=4))
        else:
            check.require_valid(self._operation, request)
            self._printer.show(self._operation.name, skeleton.sample_output(self._operation))

    def _call_directly(self, request: dict[str, Any], where: place.Place) -> bool:
        from clary.cli.aws import direct

        if not direct.serves(self._operation, where, self._options, self._profile):
            return False
        answer = direct.call(self._operation, request, where, self._options, self._profile.timestamp_format)
        if answer is None:
            return False
        self._printer.show(self._operation.name, answer)
        return True

    def _call(
        self,
        request: dict[str, Any],
        paging: dict[str, Any] | None,
        waiter: str | None,
        where: place.Place,
        outfile: str | None,
    ) -> None:
        from clary.cli.aws.client import Client

        client = Client(self._operation, where, self._options, self._profile.timestamp_format)
        if waiter is not None:
            client.wait(waiter, request)
        elif paging is not None:
            with client.pages(request, paging) as pages:
                self._printer.show(self._operation.name, pages)
        else:
            answer = client.call(request)
            if outfile is not None and self._operation.payload is not None:
                self._save(client.body(answer, self._operation.payload[0]), outfile)
            self._printer.show(self._operation.name, answer)

    def _save(self, chunks: Any, outfile: str) -> None:
        """Write a body as it comes. On standard output it is alone: the rest of the answer goes to stderr."""
        if outfile == "-":
            self._printer = Printer(self._printer.form, self._printer.query, self._printer.color, sys.stderr)
            for chunk in chunks:
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
            return
        try:
            with Path(outfile).open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    file.flush()
        except OSError as error:
            raise CommandFailure(str(error)) from error
