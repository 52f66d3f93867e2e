"""The gateway's copy of the route table: from the file at start, then from the control plane as it changes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp

from clary.core.routing import RouteTable
from clary.telemetry import logger

RECONNECT = 0.2
"""Seconds between attempts to reach a control plane that is away."""

# What a table that another version wrote may raise.
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)


class RouteFeed:
    """Holds the newest table that is known."""

    def __init__(self, file: Path, control_socket: Path) -> None:
        self.table = RouteTable(0, {})
        self._file = file
        self._socket = control_socket
        self._log = logger("routes")

    def load(self) -> None:
        """Take the table that the control plane left on disk: a gateway may start while it is away."""
        try:
            self.table = RouteTable.from_json(json.loads(self._file.read_bytes()))
        except FileNotFoundError:
            self._log.debug("no route table on disk yet")
        except _UNREADABLE as error:
            self._log.warning("the route table on disk is unreadable; waiting for the control plane", error=str(error))

    async def follow(self) -> None:
        """Swap in every table that the control plane sends, for ever; keep the last one while it is away."""
        connected = False
        while True:
            try:
                async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self._socket))) as session:
                    timeout = aiohttp.ClientTimeout(total=None)
                    async with session.get("http://control/_clary/routes", timeout=timeout) as answer:
                        answer.raise_for_status()
                        connected = True
                        await self._read(answer.content)
            except (aiohttp.ClientError, OSError, *_UNREADABLE) as error:
                if connected:
                    self._log.warning("control plane is away; serving from the last routes", error=str(error))
                connected = False
            await asyncio.sleep(RECONNECT)

    async def _read(self, content: aiohttp.StreamReader) -> None:
        rest = b""
        async for chunk in content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            if lines:  # only the newest counts
                self.table = RouteTable.from_json(json.loads(lines[-1]))
                self._log.debug("routes", revision=self.table.revision, endpoints=len(self.table.endpoints))
