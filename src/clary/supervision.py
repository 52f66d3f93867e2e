"""Keeps a handful of child processes alive, and picks up the orphans that they leave.

Model processes must survive the control plane that started them. When it dies they become children of the supervisor
(which asks the kernel for that), so their exit statuses are not lost: each is written down under their pid for the
engine to find.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clary.telemetry import logger

RESTART_DELAYS = (0.0, 0.5, 1.0, 2.0, 5.0)
"""Seconds before the first, second, ... restart in a row. Less than the gateways wait for a control plane (10)."""
HOPELESS = os.EX_CONFIG
"""The exit code of a program that would end in the same way again: it is not restarted, and everything stops."""
EXITS_KEPT = 3600.0
"""Seconds after which nobody asks any more how an orphan ended."""
_SWEEP = 60.0
STEADY = 30.0
"""Seconds of life after which an earlier death is forgotten."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)  # Linux only


@dataclass(frozen=True, slots=True)
class Program:
    """A child to keep running."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    stop_timeout: float = 10.0
    """Seconds between SIGTERM and SIGKILL."""
    descriptors: Sequence[int] = ()
    """What is open in it under the same numbers as here."""


def adopt_orphans() -> bool:
    """Make this process the parent of its descendants' orphans; False where the system cannot."""
    return _prctl is not None and _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def _die_with_parent() -> None:
    """Have the kernel end this child when the supervisor is killed: its successor needs the port and the database.

    Not by SIGTERM, which tells a control plane to stop its models.
    """
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def describe_exit(code: int) -> str:
    """Say in words how a process ended; negative codes are signals, as `subprocess` has them."""
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


class Supervisor:
    """Starts programs, restarts them when they die, stops them in reverse order."""

    def __init__(self, programs: Sequence[Program], exits: Path) -> None:
        self._programs = programs
        self._exits = exits
        self._log = logger("supervisor")
        self._starting = 0
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = False
        self._hurried = asyncio.Event()
        self.gave_up = False
        """Whether a program said that restarting it is hopeless."""

    @property
    def pids(self) -> dict[str, int]:
        """The running programs' process ids by name."""
        return {name: process.pid for name, process in self._processes.items()}

    async def run(self, stop: asyncio.Event) -> None:
        """Keep everything running until `stop` is set, then end it all. Sets it where a program is hopeless."""
        self._forget_exits(older_than=0.0)  # of an earlier life: the kernel gives their pids to others
        tasks = [asyncio.create_task(self._keep(program, stop)) for program in self._programs]
        reaper = asyncio.create_task(self._reap_orphans())
        await stop.wait()
        self._stopping = True
        for program in reversed(self._programs):
            await self._stop(program)
        for task in (*tasks, reaper):
            task.cancel()
        await asyncio.gather(*tasks, reaper, return_exceptions=True)

    def hurry(self) -> None:
        """Stop without waiting for anybody: programs are killed. Models go on, and the next Clary takes them over."""
        self._hurried.set()

    async def _keep(self, program: Program, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        deaths = 0
        while not self._stopping:
            started = loop.time()
            reason, hopeless = await self._run_once(program)
            if self._stopping:
                return
            if hopeless:
                self._log.error("a process cannot work, the log above says why; all stop", name=program.name)
                self.gave_up = True
                stop.set()
                return
            alive = loop.time() - started
            deaths = 0 if alive > STEADY else deaths
            delay = RESTART_DELAYS[min(deaths, len(RESTART_DELAYS) - 1)]
            deaths += 1
            self._log.error(
                "a process died and is restarted",
                name=program.name,
                reason=reason,
                lived=round(alive, 1),
                delay=delay,
            )
            await asyncio.sleep(delay)

    async def _run_once(self, program: Program) -> tuple[str, bool]:
        """Run a program to its end; give how it ended, and whether it would always end so."""
        try:
            self._processes[program.name] = process = await self._start(program)
        except OSError as error:  # no memory, no more processes: that may pass
            return f"cannot be started: {error}", False
        code = await process.wait()
        return describe_exit(code), code == HOPELESS

    async def _start(self, program: Program) -> asyncio.subprocess.Process:
        self._starting += 1
        try:
            return await asyncio.create_subprocess_exec(
                *program.command,
                env=dict(program.environment),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=program.descriptors,
                preexec_fn=_die_with_parent,
            )
        finally:
            self._starting -= 1

    async def _stop(self, program: Program) -> None:
        process = self._processes.get(program.name)
        if process is None or process.returncode is not None:
            return
        process.terminate()
        ended, hurried = asyncio.create_task(process.wait()), asyncio.create_task(self._hurried.wait())
        await asyncio.wait((ended, hurried), timeout=program.stop_timeout, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not ended.done():
            waited = "asked to hurry" if self._hurried.is_set() else program.stop_timeout
            self._log.warning("a process did not stop and is killed", name=program.name, waited=waited)
            process.kill()
        await ended

    async def _reap_orphans(self) -> None:
        swept = time.monotonic()
        while True:
            await asyncio.sleep(0.1)
            try:
                self._collect_orphans()
            except OSError as error:  # a full disk: the engine then says that nobody watched
                self._log.warning("how an orphan ended cannot be written down", reason=str(error))
            if time.monotonic() - swept > _SWEEP:
                self._forget_exits(EXITS_KEPT)
                swept = time.monotonic()

    def _forget_exits(self, older_than: float) -> None:
        """Remove what is older than that many seconds; the engine may be faster."""
        if not self._exits.is_dir():
            return
        for file in self._exits.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - file.stat().st_mtime >= older_than:
                    file.unlink()

    def _collect_orphans(self) -> None:
        """Collect exits of processes that are not ours by birth; ours are asyncio's to collect."""
        while True:
            try:
                waiting = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if waiting is None or self._starting or waiting.si_pid in self.pids.values():
                return
            _, status = os.waitpid(waiting.si_pid, 0)
            self._write_exit(waiting.si_pid, status)

    def _write_exit(self, pid: int, status: int) -> None:
        self._exits.mkdir(parents=True, exist_ok=True)
        temporary = self._exits / f".{pid}"
        temporary.write_text(str(status))
        temporary.rename(self._exits / str(pid))
