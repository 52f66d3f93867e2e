"""GET /ping, again and again, for every container that runs. Results live in memory; changes are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from clary.core.containers import Container
from clary.core.deployment import Answer, Ping
from clary.core.judgement import UNHEALTHY_AFTER

TIMEOUT = 2.0
"""Seconds that an answer may take (AWS's documentation)."""
FIRST_PAUSE, LONGEST_PAUSE, PAUSE_GROWTH = 0.02, 0.3, 1.05
"""Seconds between pings of a container that starts: it should be in service as soon as it can. A twentieth of the time
that it has taken is what a pause may add, and never more than the longest."""
READY_PAUSE = 5.0
"""Seconds between pings of a container that was ready (observed at AWS)."""

Ask = Callable[[str, int], Awaitable[tuple[Answer, int]]]
"""Ping a host and port once: what it came to, and the status (0 without one)."""


class HttpPing:
    """Asks over HTTP/1.1, each time on a new connection: a server that accepts no more is not healthy."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, host: str, port: int) -> tuple[Answer, int]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, limit=0),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT),
                auto_decompress=False,
            )
        try:
            async with self._session.get(f"http://{host}:{port}/ping", allow_redirects=False) as answer:
                return ("ok" if answer.status == 200 else "status"), answer.status
        except TimeoutError:
            return "timeout", 0
        except aiohttp.ClientConnectorError:
            return "refused", 0
        except (aiohttp.ClientError, OSError):
            return "closed", 0

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


@dataclass(slots=True)
class _Watch:
    run: tuple[str, int, float]
    was_ready: bool
    task: asyncio.Task[None] | None = None
    ping: Ping | None = None


class Prober:
    """Pings what it was told to watch. `changed` is called with the container's id when the result is news."""

    def __init__(self, changed: Callable[[str], None], ask: Ask | None = None) -> None:
        self._changed = changed
        self._http = HttpPing()
        self._ask = ask or self._http
        self._watches: dict[str, _Watch] = {}

    def watch(self, container: Container, *, was_ready: bool) -> Ping | None:
        """Ping this container from now on, and give the newest result. `was_ready`: at the calm pace at once."""
        run = (container.host, container.port, container.started_at)
        watch = self._watches.get(container.id)
        if watch is None or watch.run != run:  # a restart under the same id starts with a clean slate
            self.forget(container.id)
            watch = self._watches[container.id] = _Watch(run, was_ready)
            watch.task = asyncio.create_task(self._probe(container.id, watch), name=f"ping {container.id}")
        return watch.ping

    def forget(self, id: str) -> None:
        """End the pings of a container. Unknown ids are fine."""
        watch = self._watches.pop(id, None)
        if watch is not None and watch.task is not None:
            watch.task.cancel()

    async def close(self) -> None:
        """End all pings and close what they used."""
        tasks = [watch.task for watch in self._watches.values() if watch.task is not None]
        for id in tuple(self._watches):
            self.forget(id)
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.close()

    async def _probe(self, id: str, watch: _Watch) -> None:
        host, port, _ = watch.run
        calm = watch.was_ready
        pause = FIRST_PAUSE
        late = 0
        while True:
            answer, status = await self._ask(host, port)
            before = watch.ping
            late = late + 1 if answer == "timeout" else 0
            if before is not None and before.answer == "status" and 0 < late < UNHEALTHY_AFTER:
                # What it does answer says more than an answer or two that a busy machine held up.
                answer, status = before.answer, before.status
            failures = 0 if answer == "ok" else 1 + (before.failures if before is not None else 0)
            watch.ping = Ping(answer, status, failures)
            is_news = before is None or (before.answer, before.status) != (answer, status)
            if is_news or failures == UNHEALTHY_AFTER:
                self._changed(id)
            calm = calm or answer == "ok"
            await asyncio.sleep(READY_PAUSE if calm else pause)
            pause = min(LONGEST_PAUSE, pause * PAUSE_GROWTH)
