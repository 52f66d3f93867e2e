"""Questions to the control plane over its socket, JSON in and out, at the price of an invocation.

Some are asked while invocations are answered, and an HTTP client for all purposes would keep those waiting for longer
than the question is worth.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clary.gateway.upstream import Pool

CONNECT_TIMEOUT = 2.0
"""Seconds."""


class Questions:
    """Asks at one path."""

    def __init__(self, pool: Pool, socket: Path, path: str) -> None:
        self._pool = pool
        self._place = str(socket)
        self._head = b"POST %b HTTP/1.1\r\nHost: control\r\nContent-Length: " % path.encode()

    async def ask(self, question: Mapping[str, Any], timeout: float) -> Mapping[str, Any]:
        """Give the answer, after at most so many seconds. Raises OSError or TimeoutError where there is none."""
        body = json.dumps(question).encode()
        async with asyncio.timeout(timeout):
            connection = self._pool.take(self._place, 0)
            if connection is None:
                connection = await self._pool.connect(self._place, 0, CONNECT_TIMEOUT)
            hearer = _Hearer()
            connection.send(b"%b%d\r\n\r\n%b" % (self._head, len(body), body), hearer)
            try:
                status, answer = await hearer.answer
            except asyncio.CancelledError:
                connection.cancel()
                raise
        if status != 200:
            raise ConnectionError(f"the control plane answered {status}")
        found: Mapping[str, Any] = json.loads(answer)
        return found


class _Hearer:
    """Collects one answer (`upstream.Answer`)."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._pieces: list[bytes] = []

    def head(self, status: int, headers: list[tuple[bytes, bytes]], *, final: bool) -> None:
        self._status = status

    def body(self, data: bytes) -> None:
        self._pieces.append(data)

    def received(self) -> None:
        return

    def end(self) -> None:
        if not self.answer.done():
            self.answer.set_result((self._status, b"".join(self._pieces)))

    def broken(self, error: Exception, *, answered: bool) -> None:
        if not self.answer.done():
            lost = error if isinstance(error, OSError) else ConnectionError(str(error))
            self.answer.set_exception(lost)
