"""Model processes as the keeper sees them: it asks the nursery for them, and learns from it how they ended."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import time
from typing import Any

from .exchange import LARGEST_PACKET, packet, packet_pair


class Process:
    """A running model process. `ended` is its wait status once it has ended; `started` is seconds since the epoch."""

    def __init__(self, pid: int, line: socket.socket, processes: Processes) -> None:
        self.pid = pid
        self.started = time.time()
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._line = line
        self._processes = processes

    async def said(self) -> dict[str, Any] | None:
        """Wait for what it says of its load; None: it ended without a word."""
        data = await asyncio.get_running_loop().sock_recv(self._line, LARGEST_PACKET)
        return json.loads(data) if data else None

    def dismiss(self) -> None:
        """Let it answer what waits for it, and leave. Not while somebody waits for what it says."""
        self._line.close()

    async def kill(self) -> None:
        """End it and wait for its end."""
        self._processes.kill(self.pid)
        await self.end()

    async def end(self) -> int:
        """Wait for its end; give its wait status."""
        return await asyncio.shield(self.ended)  # others wait for it too


class Processes:
    """All processes that the nursery made for the keeper."""

    def __init__(self, orders: socket.socket, reports: socket.socket) -> None:
        reports.setblocking(False)
        self._orders = orders
        self._reports = reports
        self._asked: dict[int, asyncio.Future[Process]] = {}
        self._lines: dict[int, socket.socket] = {}
        self._running: dict[int, Process] = {}
        self._numbers = itertools.count()

    async def start(self, name: str, url: str, listener: socket.socket) -> Process:
        """Have a process forked that answers `listener`. Raises OSError where the machine cannot."""
        line, its = packet_pair()
        line.setblocking(False)
        number = next(self._numbers)
        self._asked[number] = asyncio.get_running_loop().create_future()
        self._lines[number] = line
        with its:
            order = packet({"order": number, "name": name, "url": url})
            socket.send_fds(self._orders, [order], [listener.fileno(), its.fileno()])
        asked = self._asked[number]
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(self._unwanted)  # it comes all the same
            raise

    def kill(self, pid: int) -> None:
        self._orders.send(packet({"kill": pid}))

    def _unwanted(self, asked: asyncio.Future[Process]) -> None:
        if asked.exception() is None:
            self.kill(asked.result().pid)

    async def listen(self) -> None:
        """Hear the nursery until it ends."""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._reports, LARGEST_PACKET):
            report = json.loads(data)
            if "order" in report:
                self._born(report)
            elif (process := self._running.pop(report["pid"], None)) is not None:
                process.ended.set_result(report["status"])

    def _born(self, report: dict[str, Any]) -> None:
        asked, line = self._asked.pop(report["order"]), self._lines.pop(report["order"])
        if "error" in report:
            line.close()
            asked.set_exception(OSError(report["error"]))
            return
        process = self._running[report["pid"]] = Process(report["pid"], line, self)
        asked.set_result(process)
