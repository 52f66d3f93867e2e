"""`clary env`: what AWS clients need to know, for `eval`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from clary.cli.connection import Connection, data_folder, data_option, running


@click.command()
@data_option
@click.option("--shell", type=click.Choice(["sh", "fish"]), help="Whose syntax to print [default: by $SHELL].")
def env(data: Path | None, shell: str | None) -> None:
    """Print the exports that point AWS clients at the running Clary.

    \b
    sh, bash, zsh:  eval "$(clary env)"
    fish:           clary env | source
    """
    connection = running(data_folder(data))
    chosen = shell or ("fish" if Path(os.environ.get("SHELL", "")).name == "fish" else "sh")
    for line in exports(connection, chosen):
        click.echo(line)


def exports(connection: Connection, shell: str) -> list[str]:
    """Give the lines to evaluate.

    A session token left over from real AWS is removed: clients would send it with our key, and it would be refused.
    """
    variables = variables_of(connection)
    if shell == "fish":
        return ["set -e AWS_SESSION_TOKEN", *(f"set -gx {name} {_fish(value)}" for name, value in variables.items())]
    return ["unset AWS_SESSION_TOKEN", *(f"export {name}={shlex.quote(value)}" for name, value in variables.items())]


def variables_of(connection: Connection) -> dict[str, str]:
    """Give the variables. Older clients read AWS_DEFAULT_REGION, newer ones AWS_REGION."""
    keys = connection.credentials
    trust = {"AWS_CA_BUNDLE": connection.ca_bundle} if connection.ca_bundle else {}
    return {
        **trust,
        "AWS_ENDPOINT_URL": connection.url,
        "AWS_REGION": connection.region,
        "AWS_DEFAULT_REGION": connection.region,
        "AWS_ACCESS_KEY_ID": keys.access_key_id if keys else "",
        "AWS_SECRET_ACCESS_KEY": keys.secret_access_key if keys else "",
    }


def _fish(value: str) -> str:
    # Inside fish's single quotes only these two characters are special.
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
