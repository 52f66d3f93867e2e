"""Processes as Linux shows them: who one is, what is left of its group, how it ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
LAUNCHER = Path(__file__).with_name("launcher.py")
FORWARDER = Path(__file__).with_name("forwarder.py")
_HIGH = 16
"""Descriptors for a child are first moved up here, out of the way of the numbers that they get there."""


class Stat(NamedTuple):
    """Of /proc/<pid>/stat what matters here. `start` in clock ticks since the machine started."""

    state: str
    parent: int
    group: int
    session: int
    start: int


def stat(pid: int) -> Stat | None:
    """Look at a process; None where there is none."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold anything, brackets too
    return Stat(fields[0], int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def birth(pid: int) -> str:
    """Name a process for all time: pids and start times repeat, not together with the id of the machine's boot."""
    found = stat(pid)
    return f"{_boot()}/{found.start}" if found else ""


def alive(pid: int, born: str) -> bool:
    """Tell whether this very process runs; one that has ended and was not collected yet does not."""
    found = stat(pid)
    return found is not None and found.state not in "ZX" and f"{_boot()}/{found.start}" == born


def members(pid: int, born: str) -> set[int]:
    """Give the running processes of the session that `pid` leads or led.

    While one of them lives, the kernel gives the number to no other process; a process that has it and another birth
    tells that all of them are gone.
    """
    boot, _, _ = born.partition("/")
    leader = stat(pid)
    if boot != _boot() or (leader is not None and f"{boot}/{leader.start}" != born):
        return set()
    return {number for number, found in _all() if pid in (found.group, found.session) and found.state not in "ZX"}


def send(number: signal.Signals, pids: set[int]) -> None:
    """Signal processes; those that are gone meanwhile are fine."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def reap(pid: int) -> int | None:
    """Collect a child that has ended and give its wait status; None where it runs, or is not our child."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return status if found else None


def spawn_launcher(plan: int, report: int, log: int) -> int:
    """Start the launcher in a session of its own, with nothing of our environment; give its pid."""
    return _spawn(LAUNCHER, (plan, report), (), log)


def spawn_forwarder(descriptors: tuple[int, int, int], inside_port: int) -> int:
    """Start a forwarder (listening socket, target's pidfd, talk socket) in a session of its own; give its pid."""
    return _spawn(FORWARDER, descriptors, (str(inside_port),), None)


def _spawn(program: Path, descriptors: tuple[int, ...], arguments: tuple[str, ...], log: int | None) -> int:
    """Run a program of ours, which finds the descriptors from 3 on and their numbers before its other arguments."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    with contextlib.ExitStack() as stack:

        def moved(number: int) -> int:
            high = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _HIGH)
            stack.callback(os.close, high)
            return high

        output = moved(log if log is not None else stack.enter_context(Path(os.devnull).open("wb")).fileno())
        numbers = range(3, 3 + len(descriptors))
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", str(program), *map(str, numbers), *arguments],
            kept,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
                *(
                    (os.POSIX_SPAWN_DUP2, moved(given), number)
                    for given, number in zip(descriptors, numbers, strict=True)
                ),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD),
        )


def _boot() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def _all() -> Iterator[tuple[int, Stat]]:
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (found := stat(int(entry.name))) is not None:
            yield int(entry.name), found
