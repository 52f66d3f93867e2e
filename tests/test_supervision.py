"""Children are restarted and the reason is logged; orphans are collected and their end written down."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from clary import telemetry
from clary.supervision import HOPELESS, RESTART_DELAYS, Program, Supervisor, describe_exit


def program(name: str, code: str, **options: Any) -> Program:
    return Program(name, (sys.executable, "-c", textwrap.dedent(code)), dict(os.environ), **options)


@contextlib.asynccontextmanager
async def supervised(tmp_path: Path, *programs: Program) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(programs, tmp_path / "exits")
    stop = asyncio.Event()
    task = asyncio.create_task(supervisor.run(stop))
    try:
        yield supervisor
    finally:
        stop.set()
        await task


async def until(true: Callable[[], bool], seconds: float = 60) -> None:
    for _ in range(int(seconds / 0.02)):
        if true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("not in time")


async def test_a_child_that_dies_is_started_again_and_the_reason_is_logged(tmp_path: Path) -> None:
    log = io.StringIO()
    telemetry.set_up("info", "supervisor", log)
    mark = tmp_path / "lives"
    code = f"open({str(mark)!r}, 'a').write('x'); import sys, time; time.sleep(0.05); sys.exit(3)"
    async with supervised(tmp_path, program("fragile", code)):
        await until(lambda: mark.exists() and len(mark.read_text()) >= 2)
    assert '"reason": "exited with 3"' in log.getvalue()


async def test_a_connection_that_a_child_did_not_accept_waits_for_its_successor(tmp_path: Path) -> None:
    died = tmp_path / "died"
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()) as client:
        code = f"""
            import os, pathlib, signal, socket
            if not pathlib.Path({str(died)!r}).exists():
                pathlib.Path({str(died)!r}).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            with socket.socket(fileno={door.fileno()}) as door:
                door.accept()[0].sendall(b"here")
                signal.pause()
        """
        client.setblocking(False)
        async with supervised(tmp_path, program("door", code, descriptors=(door.fileno(),))), asyncio.timeout(60):
            assert await asyncio.get_running_loop().sock_recv(client, 4) == b"here"
    assert died.exists()


async def test_a_child_that_ignores_sigterm_is_killed_after_its_time(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    code = f"""
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open({str(ready)!r}, 'w')
        time.sleep(600)
    """
    async with supervised(tmp_path, program("deaf", code, stop_timeout=0.2)) as supervisor:
        await until(ready.exists)
        pid = supervisor.pids["deaf"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_end_of_an_orphan_is_written_down_under_its_pid(tmp_path: Path) -> None:
    # In a process of its own: a subreaper collects every orphan there is, this test run's included.
    script = f"""
        import asyncio, os, sys, pathlib
        from clary.supervision import Program, Supervisor, adopt_orphans
        root = pathlib.Path({str(tmp_path)!r})
        grandchild = "import os, sys, time; time.sleep(0.3); sys.exit(7)"
        child = f'''import subprocess, sys, time
        p = subprocess.Popen([sys.executable, "-c", {{grandchild!r}}], start_new_session=True)
        open({str(tmp_path / "pid")!r}, "w").write(str(p.pid))
        import os; os.kill(os.getpid(), 9)'''
        child = "\\n".join(line.strip() for line in child.splitlines())
        async def main():
            assert adopt_orphans()
            stop = asyncio.Event()
            program = Program("control", (sys.executable, "-c", child), dict(os.environ))
            task = asyncio.create_task(Supervisor([program], root / "exits").run(stop))
            while not (root / "pid").exists():
                await asyncio.sleep(0.02)
            pid = (root / "pid").read_text()
            while not (root / "exits" / pid).exists():
                await asyncio.sleep(0.02)
            print(os.waitstatus_to_exitcode(int((root / "exits" / pid).read_text())))
            stop.set()
            await task
        asyncio.run(asyncio.wait_for(main(), 240))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1:] == ["7"], done.stderr


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exited with 0"), (3, "exited with 3"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")],
)
def test_an_end_is_told_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words


async def test_a_child_that_cannot_be_started_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    telemetry.set_up("info", "supervisor", log)
    start, refusals = Supervisor._start, iter([OSError(11, "Resource temporarily unavailable")])

    async def scarce(self: Supervisor, program: Program) -> asyncio.subprocess.Process:
        for refusal in refusals:
            raise refusal
        return await start(self, program)

    monkeypatch.setattr(Supervisor, "_start", scarce)
    mark = tmp_path / "lives"
    async with supervised(tmp_path, program("late", f"open({str(mark)!r}, 'w'); import time; time.sleep(600)")):
        await until(mark.exists)
    assert "cannot be started: [Errno 11] Resource temporarily unavailable" in log.getvalue()


async def test_a_child_that_no_restart_helps_ends_everything(tmp_path: Path) -> None:
    telemetry.set_up("info", "supervisor", io.StringIO())
    steady = program("steady", "import time; time.sleep(600)")
    supervisor = Supervisor([steady, program("hopeless", f"raise SystemExit({HOPELESS})")], tmp_path / "exits")
    stop = asyncio.Event()
    await asyncio.wait_for(supervisor.run(stop), 60)
    assert supervisor.gave_up and stop.is_set()


async def test_in_a_hurry_nobody_is_waited_for(tmp_path: Path) -> None:
    telemetry.set_up("info", "supervisor", io.StringIO())
    ready = tmp_path / "ready"
    code = f"""
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open({str(ready)!r}, 'w')
        time.sleep(600)
    """
    supervisor = Supervisor([program("deaf", code, stop_timeout=600)], tmp_path / "exits")
    stop = asyncio.Event()
    running = asyncio.create_task(supervisor.run(stop))
    await until(ready.exists)
    stop.set()
    supervisor.hurry()
    await asyncio.wait_for(running, 60)


async def test_exits_of_an_earlier_life_are_forgotten_and_old_ones_later(tmp_path: Path) -> None:
    exits = tmp_path / "exits"
    exits.mkdir()
    (exits / "4711").write_text("0")
    async with supervised(tmp_path) as supervisor:
        await until(lambda: not (exits / "4711").exists())
        for name in ("old", "new"):
            (exits / name).write_text("0")
        os.utime(exits / "old", (0, 0))
        supervisor._forget_exits(older_than=3600)
        assert [file.name for file in exits.iterdir()] == ["new"]


def test_a_control_plane_is_back_before_the_gateways_stop_waiting_for_it() -> None:
    assert max(RESTART_DELAYS) <= 5
