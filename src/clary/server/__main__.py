"""What the supervisor starts: `python -m clary.server ROLE`, with its settings in the environment.

A gateway may be told the descriptor of its listening socket besides: `python -m clary.server gateway 7`; the agent of
a transform job is told the supervisor's pid and its folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from clary import telemetry
from clary.errors import Fatal, SettingsError
from clary.settings import Settings, inherited
from clary.supervision import HOPELESS
from clary.telemetry import logger


def main() -> None:
    """Be what the first argument says. Tells the supervisor by the exit code when a restart would change nothing."""
    role = sys.argv[1]
    settings = inherited(os.environ)
    telemetry.set_up(settings.log_level, role)
    try:
        uvloop.run(_served(role, settings, sys.argv[2:]))
    except (SettingsError, Fatal) as error:
        logger(role).error("this cannot work", reason=str(error))
        sys.exit(HOPELESS)


async def _served(role: str, settings: Settings, arguments: Sequence[str]) -> None:
    # Imported here: a gateway process carries neither the store nor an engine.
    if role == "control":
        from clary.server.control import control

        await control(settings)
    elif role == "transform":
        from clary.server.transform import transform

        await transform(settings, int(arguments[0]), Path(arguments[1]))
    else:
        from clary.server.gateway import gateway

        await gateway(settings, int(arguments[0]) if arguments else None)


if __name__ == "__main__":
    main()
