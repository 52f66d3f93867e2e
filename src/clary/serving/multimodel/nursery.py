"""The first process: it has imported what models need and forks their processes on the keeper's word.

It has one thread and does nothing between two forks, so that what it forks is always whole.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .exchange import LARGEST_PACKET, packet
from .host import host

_TOLD = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


class Nursery:
    """Forks, and tells how what it forked has ended."""

    def __init__(self, orders: socket.socket, reports: socket.socket) -> None:
        self._orders = orders
        self._reports = reports
        self._children: set[int] = set()
        self._ready, self._wake = socket.socketpair()
        for side in (self._ready, self._wake):
            side.setblocking(False)
        for number in _TOLD:
            signal.signal(number, _nothing)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)

    def run(self, keeper: int, front: int) -> int:
        """Serve the keeper until the front or the keeper has ended; give the status to exit with."""
        self._children |= {keeper, front}
        events = select.poll()
        for source in (self._orders, self._ready):
            events.register(source, select.POLLIN)
        while True:
            ready = {number for number, _ in events.poll()}
            if self._orders.fileno() in ready:
                self._obey()
            if self._ready.fileno() in ready:
                self._pass_on(front)
                ended = self._reap()
                if front in ended or keeper in ended:
                    self._end_all()
                    return os.waitstatus_to_exitcode(ended[front]) if front in ended else 1

    def fork(self, work: Callable[[], int]) -> int:
        """Fork a process that does the work, exits with its result, and is undisturbed by our signals; give its pid."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _TOLD)
        try:
            pid = os.fork()
            if pid == 0:
                self._become(work)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _TOLD)
        return pid

    def _become(self, work: Callable[[], int]) -> None:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for side in (self._orders, self._reports, self._ready, self._wake):
                side.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _TOLD)
            status = work()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _obey(self) -> None:
        data, files, _, _ = socket.recv_fds(self._orders, LARGEST_PACKET, 2)
        if not data:
            return  # the keeper is ending; its end is reported to us as well
        order: dict[str, Any] = json.loads(data)
        if "kill" in order:
            if order["kill"] in self._children:  # else it has ended, and the number may be another's
                os.kill(order["kill"], signal.SIGKILL)
            return
        listener, line = (socket.socket(fileno=file) for file in files)
        with listener, line:
            try:
                pid = self.fork(lambda: _host_alone(order["name"], order["url"], listener, line))
            except OSError as error:
                self._reports.send(packet({"order": order["order"], "error": str(error)}))
                return
        self._children.add(pid)
        self._reports.send(packet({"order": order["order"], "pid": pid}))

    def _pass_on(self, front: int) -> None:
        """Empty the wake-up socket, and let the front know that it shall end: it finishes what it has begun."""
        with suppress(BlockingIOError):
            for number in self._ready.recv(4096):
                if number in (signal.SIGTERM, signal.SIGINT):
                    os.kill(front, number)

    def _reap(self) -> dict[int, int]:
        """Take leave of who has ended, and of what it started; give statuses by pid."""
        ended: dict[int, int] = {}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ended
            if pid == 0:
                return ended
            ended[pid] = status
            if pid in self._children:  # the others are orphans that the first process of a container inherits
                self._children.discard(pid)
                _kill_group(pid)
                with suppress(ConnectionError):  # no keeper, no report
                    self._reports.send(packet({"pid": pid, "status": status}))

    def _end_all(self) -> None:
        signal.set_wakeup_fd(-1)
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
            _kill_group(pid)


def _host_alone(name: str, url: str, listener: socket.socket, line: socket.socket) -> int:
    os.setpgid(0, 0)  # what a script starts can be ended with it
    return host(name, url, listener, line)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _nothing(number: int, frame: object) -> None:
    """Be told through the wake-up socket. Not SIG_IGN, which programs that a script starts would inherit."""
