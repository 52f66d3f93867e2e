"""The data log: what became of each request, in a stream beside that of its instance, in the service's form."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime

from clary.controllers.asynchronous.delivery import Times
from clary.core.asynchronous import AsyncRequest, Completed, Failed
from clary.core.failure import printable
from clary.core.resources import log_group
from clary.logs.folder import LogFolder
from clary.telemetry import logger

INTERVAL = 1.0
MOST = 10_000
"""Lines that wait to be written; a disk that takes no more costs lines, not requests."""
LONGEST = 2000
"""Characters of one."""


class DataLog:
    """The data logs of all endpoints. `now` gives seconds since the epoch."""

    def __init__(self, logs: LogFolder, now: Callable[[], float] = time.time) -> None:
        self._logs = logs
        self._now = now
        self._waiting: dict[tuple[str, str], list[tuple[int, bytes]]] = defaultdict(list)
        self._count = 0

    def ended(self, request: AsyncRequest, stream: str, end: Completed | Failed, times: Times, begun: float) -> None:
        """Write down how a request ended. `stream` is the container's; `begun`: when its last attempt began."""
        now = self._now()
        if isinstance(end, Completed):
            text = (
                f"Inference request succeeded. ModelLatency: {times.model * 1e6:.0f} us, RequestDownloadLatency: "
                f"{times.download * 1e6:.0f} us, ResponseUploadLatency: {times.upload * 1e6:.0f} us, TimeInBacklog: "
                f"{(begun - request.accepted_at) * 1e3:.0f} ms, TotalProcessingTime: "
                f"{(now - request.accepted_at) * 1e3:.0f} ms"
            )
        else:
            text = end.text
        if self._count >= MOST:
            return
        self._count += 1
        stamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
        line = f"{stamp}:[sagemaker logs] [{request.inference_id}] {printable(text[:LONGEST])}"
        self._waiting[log_group(request.endpoint), f"{stream}/data-log"].append((int(now * 1000), line.encode()))

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await asyncio.sleep(INTERVAL)
            await self.write()

    async def write(self) -> None:
        """Write what waits."""
        waiting, self._waiting, self._count = self._waiting, defaultdict(list), 0
        for (group, stream), lines in waiting.items():
            try:
                await asyncio.to_thread(self._append, group, stream, lines)
            except Exception:  # a log is no reason to end
                logger("asynchronous").exception("a data log cannot be written", group=group, stream=stream)

    def _append(self, group: str, stream: str, lines: list[tuple[int, bytes]]) -> None:
        with self._logs.writer(group, stream) as writer:
            writer.write_all(lines)
