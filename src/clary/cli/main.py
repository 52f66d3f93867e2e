"""The command `clary`: a group whose commands are imported when they are called, and the one place where an
exception becomes a line on stderr and an exit code.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn

import click

from clary.errors import ClaryError, SettingsError

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
_ENUMERATION = re.compile(
    r"(?P<words>Value '(?P<given>[^']*)' at '\S+' failed to [^\[]+enum value set: )\[(?P<values>[^\]]+)\]"
)
_FEW = 5
"""Values of an enumeration that are named where there are many."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command lives and what `clary --help` says of it, so that listing commands imports none."""

    module: str
    summary: str


COMMANDS: Mapping[str, Entry] = {
    "up": Entry("clary.cli.up", "Start Clary and serve until it is stopped."),
    "env": Entry("clary.cli.env", "Print the exports that point AWS clients at the running Clary."),
    "demo": Entry("clary.cli.demo", "Train, deploy and invoke a model, and show every step."),
    "deploy": Entry("clary.cli.deploy", "Upload a model.tar.gz and serve it as an endpoint."),
    "logs": Entry("clary.cli.logs", "Print what the containers of an endpoint or component wrote."),
    "transform": Entry("clary.cli.transform", "List transform jobs, wait for them, and show how far they are."),
    "keys": Entry("clary.cli.identities", "Make, list and delete access keys and what they may do."),
    "roles": Entry("clary.cli.identities", "Make, list and delete roles."),
    "doctor": Entry("clary.cli.doctor", "Say what this machine lacks, or why an endpoint failed."),
    "sagemaker": Entry("clary.cli.aws.command", "Call an operation of the hosting API, as `aws sagemaker` does."),
    "sagemaker-runtime": Entry("clary.cli.aws.command", "Invoke an endpoint, as `aws sagemaker-runtime` does."),
}

EPILOG = """\b
Exit codes:
  0    it worked
  1    it did not work; stderr says why in one line
  2    wrong usage or a wrong setting
  130  interrupted with Ctrl-C

`clary sagemaker` and `clary sagemaker-runtime` have the aws CLI's: 252 to 255.
"""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name].module), cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        close = get_close_matches(args[0], COMMANDS, n=1)
        if close and args[0] not in COMMANDS and not ctx.resilient_parsing:
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{close[0]}'?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run and exit. Expected failures are one line on stderr; a traceback means a defect of Clary."""
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            code = MISUSED
        except Exception as error:
            message, code = explain(error)
            click.echo(f"clary: {message}", err=True)
        sys.exit(code if isinstance(code, int) else 0)


def explain(error: Exception) -> tuple[str, int]:
    """Give the line to print and the exit code; raises the error again where it is not one that we expect."""
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else "clary"
        return f"{error.format_message()} (`{where} --help` explains)", MISUSED
    if isinstance(error, click.Abort):
        return "interrupted", INTERRUPTED
    if isinstance(error, click.ClickException):
        return error.format_message(), error.exit_code
    if isinstance(error, SettingsError):
        return str(error), MISUSED
    if isinstance(error, ClaryError):
        return str(error), FAILED
    message = _explain_aws(error)
    if message is None:
        raise error
    return message, FAILED


def _explain_aws(error: Exception) -> str | None:
    # Errors of botocore can only come from a botocore that has been imported: nothing is loaded for the others' sake.
    exceptions = sys.modules.get("botocore.exceptions")
    if exceptions is None:
        return None
    if isinstance(error, exceptions.ClientError):
        detail = error.response.get("Error", {})
        return f"{error.operation_name}: {_shortened(detail.get('Message')) or error} ({detail.get('Code', 'unknown')})"
    if isinstance(error, exceptions.BotoCoreError):
        return str(error)
    return None


def _shortened(message: str | None) -> str | None:
    """Leave of the values of a long enumeration, as that of instance types, those that are close to what was given."""

    def close(found: re.Match[str]) -> str:
        values = found["values"].split(", ")
        if len(values) <= _FEW:
            return found[0]
        near = get_close_matches(found["given"], values, n=_FEW) or values[:_FEW]
        return f"{found['words']}[{', '.join(near)}, ... {len(values) - len(near)} more]"

    return message and _ENUMERATION.sub(close, message)


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="clary", message="clary %(version)s")
def main() -> None:
    """Host machine-learning models behind the Amazon SageMaker hosting API, on machines you own."""


if __name__ == "__main__":
    main(prog_name="clary")
