"""The group: commands load when called, and every expected failure is one line with its exit code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module

import click
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from click.testing import Result

from clary.cli.main import COMMANDS, explain
from clary.errors import ClaryError, SettingsError

Run = Callable[..., Result]


def test_help_lists_the_commands_and_loads_none_of_their_libraries() -> None:
    script = """
import sys
from clary.cli.main import main
try:
    main(["--help"])
except SystemExit:
    heavy = {"botocore", "rich", "aiohttp", "sqlalchemy", "uvloop", "clary.server"} & set(sys.modules)
    sys.exit(f"loaded {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert "Exit codes:" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_in_the_list_is_the_command_s_own(name: str) -> None:
    command = getattr(import_module(COMMANDS[name].module), name.replace("-", "_"))
    assert command.help is not None
    assert command.help.split("\n")[0] == COMMANDS[name].summary


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(run: Run, name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    # The aws CLI's commands have its kind of page.
    assert result.stdout.startswith((f"Usage: main {name}", f"NAME\n    {name}\n"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["sagmaker"], "Did you mean 'sagemaker'?"),
        (["--frobnicate"], "No such option"),
        (["logs"], "Missing argument 'ENDPOINT'"),
        (["up", "--port", "eighty"], "--port"),
        (["up", "--account-id", "12"], "--account-id: must be twelve digits"),
        (["deploy", "no-such-file.tar.gz", "--image", "i", "--name", "n"], "no-such-file.tar.gz"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(run: Run, arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("clary: ") and said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["keys"]], ids=str)
def test_a_group_alone_shows_its_help(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")


def test_errors_of_aws_name_operation_message_and_code() -> None:
    error = ClientError({"Error": {"Code": "ValidationException", "Message": "no such image"}}, "CreateModel")
    assert explain(error) == ("CreateModel: no such image (ValidationException)", 1)
    assert explain(EndpointConnectionError(endpoint_url="http://x")) == (
        'Could not connect to the endpoint URL: "http://x"',
        1,
    )


def test_our_errors_and_interruption_have_their_codes() -> None:
    assert explain(SettingsError("bad")) == ("bad", 2)
    assert explain(ClaryError("bad")) == ("bad", 1)
    assert explain(click.Abort()) == ("interrupted", 130)


def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        explain(ZeroDivisionError())
