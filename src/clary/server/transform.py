"""The agent of one transform job, as a process: `python -m clary.server transform SUPERVISOR FOLDER`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from clary.jobfolder import JobFolder
from clary.logs.folder import LogFolder
from clary.server.parts import objects
from clary.settings import Settings
from clary.telemetry import logger
from clary.transform.agent import Agent, Surroundings

WATCH = 0.5
"""Seconds between looks at who our parent is."""


async def transform(settings: Settings, supervisor: int, path: Path) -> None:
    """Work at the job until it is done, unless another agent does, or the supervisor (a pid) ends."""
    folder = JobFolder(path)
    with folder.held() as held:
        if not held:
            logger("agent").info("another agent works here", job=path.name)
            return
        around = Surroundings(objects(settings), LogFolder(settings.logs), lambda action, url: None)
        working = asyncio.create_task(Agent(folder, around).work())
        orphaned = asyncio.create_task(_orphaned(supervisor))
        await asyncio.wait((working, orphaned), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            os._exit(1)  # nothing of ours is worth an orderly end: the next Clary starts another agent
        working.result()


async def _orphaned(supervisor: int) -> None:
    """Return when neither the control plane nor the supervisor is there, for then the object store is not either."""
    parents = (os.getppid(), supervisor)
    while os.getppid() in parents:  # noqa: ASYNC110 - the kernel tells nobody
        await asyncio.sleep(WATCH)
