"""How the processes of a container are ended, and what is said of one that ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

from clary.engines import cgroups, instance_types, posix
from clary.engines.endings import ending
from clary.engines.records import Record
from clary.errors import Transient

_LATE_EXIT = 2.0
"""Seconds that the supervisor may need to write down how an adopted process ended."""
_DEATH = 10.0
"""Seconds after SIGKILL in which everything should be gone."""


async def end_all(record: Record, grace: float) -> None:
    """End all processes of a container: ask first, after `grace` seconds make them.

    Raises Transient when the kernel does not do it.
    """
    if record.pid is None:
        return
    pid, groups = record.pid, [Path(group) for group in record.groups]
    asked = time.monotonic()
    told = False
    while True:
        posix.reap(pid)
        left = posix.members(pid, record.birth) | cgroups.members(groups)
        left -= {number for number in left if (found := posix.stat(number)) is None or found.state in "ZX"}
        if not left and not _lingers(pid, record.birth):
            return
        waited = time.monotonic() - asked
        if waited >= grace + _DEATH:
            raise Transient(f"{record.spec.id}: processes {sorted(left)} outlive SIGKILL", retry_after=5.0)
        if waited >= grace:
            posix.send(signal.SIGKILL, left)
        elif not told:
            posix.send(signal.SIGTERM, left)
            told = True
        await asyncio.sleep(0.02)


def _lingers(pid: int, born: str) -> bool:
    """Tell whether a process that has ended still waits to be collected by us: its last thread has yet to go."""
    found = posix.stat(pid)
    return found is not None and found.parent == os.getpid() and posix.birth(pid) == born


async def exit_status(pid: int, file: Path) -> int | None:
    """Give a wait status: of our child from the kernel, of an adopted process from what the supervisor wrote.

    None where neither tells in time.
    """
    deadline = time.monotonic() + _LATE_EXIT
    while time.monotonic() < deadline:
        if (status := posix.reap(pid)) is not None:
            return status
        with contextlib.suppress(FileNotFoundError, ValueError):
            status = int(file.read_text())
            file.unlink()
            return status
        await asyncio.sleep(0.05)
    return None


def reason(status: int | None, memory_kills: int, record: Record) -> str:
    """Say how a process ended, by its wait status; None: nobody saw it."""
    if status is None:
        return "exited while nobody watched"
    code, bounds = os.waitstatus_to_exitcode(status), instance_types.bounds(record.spec)
    return ending(code, short_of_memory=memory_kills > 0, limits=bounds)
