"""Agents that die, and agents that are ended before they have begun; with processes that stand in for them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from clary.controllers import agents as module
from clary.controllers.agents import Agents, Hopeless, Means
from clary.jobfolder import JobFolder

DIES_OF_A_FAULT = """
import pathlib, sys
from clary.jobfolder import JobFolder
from clary.transform.journal import Journal
folder = JobFolder(pathlib.Path(sys.argv[1]))
with folder.held():
    Journal(folder.journal).close()  # as an agent does that meets an exception which it does not know
"""
TAKES_ITS_TIME = "import time; time.sleep(600)"


def until_reaped(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test, and its loop until it has taken note of the end of all processes, which it does in its own time."""
    started: list[asyncio.subprocess.Process] = []
    create = asyncio.create_subprocess_exec

    async def noted(*words: Any, **options: Any) -> asyncio.subprocess.Process:
        started.append(await create(*words, **options))
        return started[-1]

    async def run() -> None:
        await test()
        for process in started:
            await process.wait()

    with mock.patch.object(asyncio, "create_subprocess_exec", noted):
        asyncio.run(run())


def given(tmp_path: Path, program: str) -> tuple[Agents, asyncio.Event, JobFolder]:
    folder = JobFolder(tmp_path / "job")
    folder.create({"key": "job", "name": "job"})
    ended = asyncio.Event()
    means = Means(tmp_path, (sys.executable, "-c", program), dict(os.environ))
    return Agents(means, lambda key: ended.set()), ended, folder


def test_a_job_whose_agents_die_of_a_fault_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_DEATHS", 2)

    async def run() -> None:
        agents, ended, folder = given(tmp_path, DIES_OF_A_FAULT)
        for _ in range(2):
            await asyncio.sleep(await agents.ensure("job", folder) or 0)
            await agents.ensure("job", folder)
            await ended.wait()
            ended.clear()
        with pytest.raises(Hopeless, match="2 agents died"):
            await agents.ensure("job", folder)

    until_reaped(run)


def test_an_agent_that_is_still_starting_is_ended_too(tmp_path: Path) -> None:
    async def run() -> None:
        agents, _, folder = given(tmp_path, TAKES_ITS_TIME)
        await agents.ensure("job", folder)
        descriptor = os.pidfd_open(agents._agents["job"].pid)
        await agents.end("job", folder)
        gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, gone.set)
        async with asyncio.timeout(60):
            await gone.wait()
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)

    until_reaped(run)


GETS_ON = """
import json, pathlib, sys
from clary.jobfolder import JobFolder
folder = JobFolder(pathlib.Path(sys.argv[1]))
with folder.held():
    with folder.journal.open("a") as journal:
        journal.write("[0, 1, 1, \\"\\"]\\n")
"""
HOLDS = """
import pathlib, sys, time
from clary.jobfolder import JobFolder
with JobFolder(pathlib.Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(600)
"""


def test_an_agent_that_got_on_with_it_is_followed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_DEATHS", 1)
    monkeypatch.setattr(module, "DELAYS", (0.0, 60.0))

    async def run() -> None:
        agents, ended, folder = given(tmp_path, GETS_ON)
        for _ in range(2):
            assert await agents.ensure("job", folder) is None
            assert await agents.ensure("job", folder) is None  # it is at work
            await ended.wait()
            ended.clear()

    until_reaped(run)


def test_one_that_did_not_is_followed_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAYS", (0.0, 60.0))

    async def run() -> None:
        agents, ended, folder = given(tmp_path, DIES_OF_A_FAULT)
        await agents.ensure("job", folder)
        await ended.wait()
        wait = await agents.ensure("job", folder)
        assert wait is not None
        assert 50 < wait <= 60

    until_reaped(run)


def test_an_agent_of_an_earlier_control_plane_is_taken_over_and_ended(tmp_path: Path) -> None:
    async def run() -> None:
        agents, ended, folder = given(tmp_path, DIES_OF_A_FAULT)
        earlier = await asyncio.create_subprocess_exec(
            sys.executable, "-c", HOLDS, str(folder.path), stdout=asyncio.subprocess.PIPE
        )
        assert earlier.stdout is not None
        await earlier.stdout.readline()
        assert await agents.ensure("job", folder) is None
        assert agents._agents["job"].pid == earlier.pid
        agents.close()  # as a control plane does that ends: the agent works on
        assert folder.agent() == earlier.pid
        successor = Agents(Means(tmp_path, (), {}), lambda key: ended.set())
        assert await successor.ensure("job", folder) is None
        await successor.end_all([("job", folder)])
        assert await earlier.wait() == -signal.SIGKILL
        assert folder.agent() is None

    until_reaped(run)
