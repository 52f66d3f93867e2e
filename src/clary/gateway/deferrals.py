"""Asynchronous requests on their way to the control plane, many at once: one transaction acknowledges all of them.

Each has an id of its own, so that a batch whose answer was lost is sent again as it was, and nothing is kept twice.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import aiohttp

from clary.core.asynchronous import AsyncRequest
from clary.errors import AwsError
from clary.gateway.absence import PATIENCE, unavailable
from clary.telemetry import logger

PATH = "/_clary/async"
"""Where batches go, on the control plane's socket."""
MOST = 256
"""Requests of one batch."""
MOST_BYTES = 8 * 1024 * 1024
"""Bodies of one batch."""
MOST_WAITING = 64 * 1024 * 1024
"""Bodies that wait for a control plane that is away or slow; who comes then is told at once."""
_TIMEOUT = aiohttp.ClientTimeout(total=30)


class _Waiting(NamedTuple):
    request: AsyncRequest
    body: bytes
    told: asyncio.Future[None]
    until: float
    """When its sender has waited long enough, by the loop's clock."""


class Deferrals:
    """Hands requests over. What comes while a batch is under way makes the next one."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._waiting: deque[_Waiting] = deque()
        self._size = 0
        """Bytes of the bodies that wait."""
        self._arrived = asyncio.Event()

    async def add(self, request: AsyncRequest, body: bytes) -> None:
        """Return once the request is kept. Raises AwsError (ServiceUnavailable) where it is not, or may not be."""
        loop = asyncio.get_running_loop()
        if self._size + len(body) > MOST_WAITING:
            raise unavailable("is behind; the request was not kept")
        told: asyncio.Future[None] = loop.create_future()
        self._waiting.append(_Waiting(request, body, told, loop.time() + PATIENCE))
        self._size += len(body)
        self._arrived.set()
        await told

    async def follow(self) -> None:
        """Hand over what comes, for ever."""
        connector = aiohttp.UnixConnector(str(self._socket))
        async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as session:
            while True:
                self._arrived.clear()
                while self._waiting:
                    await self._hand_over(session, self._take())
                await self._arrived.wait()

    def _take(self) -> list[_Waiting]:
        batch, size = [self._waiting.popleft()], 0
        while self._waiting and len(batch) < MOST and size < MOST_BYTES:
            batch.append(self._waiting.popleft())
            size += len(batch[-1].body)
        self._size -= sum(len(each.body) for each in batch)
        return batch

    async def _hand_over(self, session: aiohttp.ClientSession, batch: list[_Waiting]) -> None:
        # What is said where this is cancelled, or fails.
        refusals: Sequence[AwsError | None] = [unavailable("went away; the request may be kept")] * len(batch)
        try:
            refusals = await self._send(session, batch)
        except AwsError as error:
            refusals = [error] * len(batch)
        finally:
            for (_, _, told, _), refusal in zip(batch, refusals, strict=True):
                if told.done():  # whoever waited has gone
                    continue
                if refusal is None:
                    told.set_result(None)
                else:
                    told.set_exception(refusal)

    async def _send(self, session: aiohttp.ClientSession, batch: list[_Waiting]) -> list[AwsError | None]:
        """Send a batch, over and over while the control plane is being restarted; give what is said of each request."""
        loop = asyncio.get_running_loop()
        troubled = False
        document = [[asdict(request), b64encode(body).decode() if body else ""] for request, body, _, _ in batch]
        data = json.dumps(document, separators=(",", ":")).encode()
        while True:
            try:
                async with session.post(f"http://control{PATH}", data=data) as answer:
                    if answer.status == 200:
                        taken = await answer.json()
                        return [None if kept else _full(each) for each, kept in zip(batch, taken, strict=True)]
                    trouble = f"{answer.status} {await answer.text()}"
            except (aiohttp.ClientError, OSError, TimeoutError) as error:  # ids make it safe to send it again
                trouble = repr(error)
            if not troubled:
                logger("gateway").warning("asynchronous requests are not handed over yet", reason=trouble)
            troubled = True
            if loop.time() > batch[0].until:  # the oldest of them
                raise unavailable("is not answering; the request may be kept")
            await asyncio.sleep(0.05)


def _full(waiting: _Waiting) -> AwsError:
    return AwsError(
        f"The queue of endpoint {waiting.request.endpoint} is full. Try again when some of its requests have been "
        "processed, or add instances.",
        code="ServiceUnavailable",
        status=503,
    )
