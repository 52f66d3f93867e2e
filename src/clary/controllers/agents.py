"""The processes that do the work of transform jobs: one for each job, started, watched, ended.

An agent outlives the control plane that started it; the next one finds it by the lock that it holds in its job's
folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clary.errors import Fatal
from clary.jobfolder import JobFolder
from clary.telemetry import logger

DELAYS = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds before the next start, by the number of deaths in a row; the last one stays."""
MOST_DEATHS = 12
"""Deaths in a row, of agents that brought no object to its end, after which a job is given up."""
DEATH = 10.0
"""Seconds in which an agent should be gone that was killed."""


@dataclass(frozen=True, slots=True)
class Means:
    """What agents are started with."""

    folders: Path
    """Where each job has its folder while it is under way."""
    command: Sequence[str]
    """But for the last argument, which is the job's folder."""
    environment: Mapping[str, str] = field(repr=False)
    role: Callable[[str], Mapping[str, str] | None] = lambda arn: None
    """Gives the `id` and the `name` of a role, for an agent to act as; None: nobody's permissions matter."""
    abandon: Callable[[Iterable[str], float], None] = lambda urls, since: None
    """Forgets unfinished uploads of these objects that were begun since then: those of agents that were killed."""


class Hopeless(Fatal):
    """Agents of a job die and get nothing done."""


@dataclass(slots=True)
class _Agent:
    descriptor: int = -1
    """Of the process that runs; -1 where none does."""
    pid: int = 0
    deaths: int = 0
    due: float = 0.0
    """When the next one may be started, in the loop's time."""
    journal: int = 0
    """Bytes that it had when this one was seen first."""


class Agents:
    """All agents. `changed` is told the key of a job whose agent ended."""

    def __init__(self, means: Means, changed: Callable[[str], None]) -> None:
        self._means = means
        self._changed = changed
        self._agents: dict[str, _Agent] = {}

    async def ensure(self, key: str, folder: JobFolder) -> float | None:
        """Have one agent work at a job; give in how many seconds to ask again where it is too early for the next one.

        Raises Hopeless.
        """
        agent = self._agents.setdefault(key, _Agent())
        if agent.descriptor >= 0:
            return None
        pid = folder.agent()
        if pid is None:
            if agent.deaths >= MOST_DEATHS:
                raise Hopeless(f"{agent.deaths} agents died one after the other, and the last one had got nothing done")
            if (wait := agent.due - asyncio.get_running_loop().time()) > 0:
                return wait
            pid = await self._start(folder)
        agent.pid, agent.journal = pid, _size(folder.journal)
        self._watch(key, folder)
        return None

    async def end(self, key: str, folder: JobFolder) -> None:
        """Kill the agent of a job, if there is one: what it has not finished leaves no trace."""
        agent = self._agents.get(key)
        if agent is not None and agent.descriptor >= 0:  # it may not have come so far as to hold the lock
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(agent.descriptor, signal.SIGKILL)
        deadline = asyncio.get_running_loop().time() + DEATH
        agent = self._agents.get(key)
        if agent is not None and agent.descriptor >= 0:  # it may have been started in this moment, and hold no lock yet
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(agent.descriptor, signal.SIGKILL)
        while (pid := folder.agent()) is not None and asyncio.get_running_loop().time() < deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.02)
        self._forget(key)

    async def end_all(self, folders: Sequence[tuple[str, JobFolder]]) -> None:
        """Kill all of them: the jobs go on when there is a control plane again."""
        await asyncio.gather(*(self.end(key, folder) for key, folder in folders))

    def close(self) -> None:
        """Let go of everything but the agents: they work on."""
        for key in list(self._agents):
            self._forget(key)

    async def _start(self, folder: JobFolder) -> int:
        process = await asyncio.create_subprocess_exec(
            *self._means.command,
            str(folder.path),
            env=dict(self._means.environment),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        logger("agents").info("agent started", job=folder.path.name, pid=process.pid)
        return process.pid

    def _watch(self, key: str, folder: JobFolder) -> None:
        agent = self._agents[key]
        try:
            agent.descriptor = os.pidfd_open(agent.pid)
        except ProcessLookupError:
            self._died(key, folder)
            return
        asyncio.get_running_loop().add_reader(agent.descriptor, self._died, key, folder)

    def _died(self, key: str, folder: JobFolder) -> None:
        agent = self._agents[key]
        self._unwatch(agent)
        agent.deaths = agent.deaths + 1 if _size(folder.journal) == agent.journal else 0
        agent.due = asyncio.get_running_loop().time() + DELAYS[min(agent.deaths, len(DELAYS) - 1)]
        self._changed(key)

    def _forget(self, key: str) -> None:
        if (agent := self._agents.pop(key, None)) is not None:
            self._unwatch(agent)

    def _unwatch(self, agent: _Agent) -> None:
        if agent.descriptor >= 0:
            asyncio.get_running_loop().remove_reader(agent.descriptor)
            os.close(agent.descriptor)
            agent.descriptor = -1


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
