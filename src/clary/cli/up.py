"""`clary up`: settings from flags, then everything else is `clary.server`'s."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clary.cli.connection import data_flag, program
from clary.settings import TABLE, TABLES, flag, load, variable

if TYPE_CHECKING:
    from clary.server.supervisor import Running


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add one option for each setting. Values stay text: `settings.load` converts and checks every source alike."""
    for name, setting in reversed([(n, s) for n, s in TABLE.items() if n not in TABLES]):
        words: dict[str, Any] = {"metavar": setting.metadata["metavar"] or None}
        if setting.type == "bool":
            words = {"is_flag": True, "flag_value": "true", "type": str}
        command = click.option(flag(name), name, help=_help(name, setting), default=None, **words)(command)
    return command


def _help(name: str, setting: Field[Any]) -> str:
    default = "" if setting.default in (MISSING, "", ()) else f"default {setting.default}; "
    return f"{setting.metadata['help']} [{default}{variable(name)}]"


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with settings [default config.toml in the data folder; CLARY_CONFIG].",
)
@setting_options
def up(config: Path | None, **flags: str | None) -> None:
    """Start Clary and serve until it is stopped.

    Every setting is a flag, an environment variable and a key of the TOML file; the first of these that is given
    wins. Ctrl-C and SIGTERM stop it cleanly.
    """
    settings = load(flags, file=config)
    from clary.server.supervisor import up as serve

    code = serve(settings, lambda running: click.echo(banner(running)))
    raise click.exceptions.Exit(code)


def banner(running: Running) -> str:
    """Say where Clary is and what to type next."""
    folder, clary = data_flag(running.data), program()
    return f"""
  Clary {metadata.version("clary")}

    URL      {running.url}
    Engine   {running.engine}
    Data     {running.data}
    Account  {running.account_id} in {running.region}

  Next, in another terminal:

    eval "$({clary} env{folder})"
    aws sagemaker list-endpoints
    {clary} demo{folder}

  Ctrl-C stops it.
"""
