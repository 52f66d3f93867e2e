"""The agent of one transform job, as a process: `python -m clary.server transform SUPERVISOR FOLDER`."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path
from typing import Any

from clary import credentials
from clary.core.sessions import Session, Sessions
from clary.jobfolder import JobFolder
from clary.logs.folder import LogFolder
from clary.objects import Objects
from clary.server.parts import objects, url
from clary.settings import DAY, Settings
from clary.telemetry import logger
from clary.transform.agent import Agent

WATCH = 0.5
"""Seconds between looks at who our parent is."""
GC_THRESHOLDS = (100_000, 50, 100)
"""When cycles are looked for: seldom, since what waits to be sent is tens of thousands of objects without any."""
LONGEST = 28 * DAY
"""Seconds for which an agent has its role's credentials; one that takes longer is followed by another."""


async def transform(settings: Settings, supervisor: int, path: Path) -> None:
    """Work at the job until it is done, unless another agent does, or the supervisor (a pid) ends."""
    folder = JobFolder(path)
    with folder.held() as held:
        if not held:
            logger("agent").info("nothing to do: another agent works here, or the job is over", job=path.name)
            return
        job = folder.job()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        working = asyncio.create_task(
            Agent(folder, _objects_of(settings, job["role"]), LogFolder(settings.logs)).work()
        )
        orphaned = asyncio.create_task(_orphaned(supervisor))
        await asyncio.wait((working, orphaned), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            os._exit(1)  # nothing of ours is worth an orderly end: the next Clary starts another agent
        working.result()


def _objects_of(settings: Settings, role: Any) -> Objects:
    """Give the objects as the model's role sees them; without a role that was made here, as Clary does."""
    if role is None or settings.auth == "off":
        return objects(settings)
    # The front door is what asks a role's policies, for one's own S3 too.
    until = time.time() + LONGEST
    session = Session(credentials.new_id("ASIA"), role["id"], role["name"], "SageMaker", until)
    token, secret = Sessions(credentials.session_key(settings.data)).grant(session)
    source = (url(settings), session.access_key_id, secret, settings.region, settings.file_roots)
    found = Objects(*source, own=True)
    found.session_token = token
    return found


async def _orphaned(supervisor: int) -> None:
    """Return when neither the control plane nor the supervisor is there, for then the object store is not either."""
    parents = (os.getppid(), supervisor)
    while os.getppid() in parents:  # noqa: ASYNC110 - the kernel tells nobody
        await asyncio.sleep(WATCH)
