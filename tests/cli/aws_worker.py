"""Runs command lines in one process: `aws_worker.py aws|aws_2|clary|botocore`, a JSON document a line in and out.

In:  {"arguments": [...], "environment": {...}}, the environment to lay over the process's own (null unsets).
Out: {"code": 0, "stdout": "...", "stderr": "..."}.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable
from typing import Any


def aws() -> Callable[[list[str]], int]:
    """The aws CLI; its loader, which caches the models, is shared by all the command lines."""
    import awscli.clidriver

    loader = awscli.clidriver.create_clidriver().session.get_component("data_loader")

    def run(arguments: list[str]) -> int:
        driver = awscli.clidriver.create_clidriver()
        driver.session.register_component("data_loader", loader)
        return int(driver.main(arguments) or 0)

    return run


def aws_2() -> Callable[[list[str]], int]:
    """Version 2 of it, one that reads no endpoint from the environment."""
    run = aws()

    def called(arguments: list[str]) -> int:
        place = [] if "--endpoint-url" in arguments else ["--endpoint-url", os.environ["AWS_ENDPOINT_URL"]]
        return run([*place, *arguments])

    return called


def clary() -> Callable[[list[str]], int]:
    from clary.cli.aws.command import main

    return lambda arguments: main(arguments[0], arguments[1:])


def botocore() -> Callable[[list[str]], int]:
    """Clary again, its direct way closed."""
    from clary.cli.aws import direct

    direct.serves = lambda *_: False
    return clary()


def options(arguments: list[str]) -> dict[str, Any]:
    """Every option of every operation of a service, as the aws CLI has it: its type and whether it is required."""
    import awscli.clidriver

    driver = awscli.clidriver.create_clidriver()
    commands = driver._get_command_table()[arguments[0]]._get_command_table()
    found: dict[str, Any] = {}
    for name, command in commands.items():
        table = getattr(command, "arg_table", None)
        if table is not None and hasattr(command, "_operation_model"):
            found[name] = {
                option: [
                    argument.cli_type_name,
                    bool(argument.required),
                    bool(getattr(argument, "_UNDOCUMENTED", False)),
                ]
                for option, argument in table.items()
            }
    return found


def shorthand(texts: list[str]) -> list[Any]:
    """What the aws CLI's parser makes of each text: a value, or the words of its error."""
    from awscli.shorthand import ShorthandParseError, ShorthandParser

    found: list[Any] = []
    for text in texts:
        try:
            found.append(ShorthandParser().parse(text))
        except ShorthandParseError as error:
            found.append(str(error))
    return found


def answer(run: Callable[[list[str]], int], request: dict[str, Any]) -> dict[str, Any]:
    kept = dict(os.environ)
    for name, value in request["environment"].items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    stdout, stderr = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            code = run(request["arguments"])
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        os.environ.clear()
        os.environ.update(kept)
    return {"code": code, "stdout": stdout.getvalue(), "stderr": stderr.getvalue()}


def main() -> None:
    channel = sys.stdout
    if sys.argv[1] == "options":
        json.dump(options(sys.argv[2:]), channel)
        return
    if sys.argv[1] == "shorthand":
        json.dump(shorthand(json.load(sys.stdin)), channel)
        return
    run = {"aws": aws, "aws_2": aws_2, "clary": clary, "botocore": botocore}[sys.argv[1]]()
    for line in sys.stdin:
        channel.write(json.dumps(answer(run, json.loads(line))) + "\n")
        channel.flush()


if __name__ == "__main__":
    main()
