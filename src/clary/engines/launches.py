"""Launches under way: one at a time for each container, however often it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from clary.core.containers import Container
from clary.errors import LaunchFailure


class Launches:
    """The launches of one engine. A launch is a coroutine that gives what is there, or else makes it."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Container]] = {}

    def ids(self) -> set[str]:
        """Give the containers that are being launched."""
        return set(self._tasks)

    async def run(self, id: str, work: Callable[[], Coroutine[Any, Any, Container]]) -> Container:
        """Do the work once whoever asked before has done it. Cancelling the caller cancels the work.

        Raises LaunchFailure(create) where it was the work that somebody cancelled.
        """
        while (running := self._tasks.get(id)) is not None:
            await asyncio.wait({running})
        task = self._tasks[id] = asyncio.ensure_future(work())
        task.add_done_callback(lambda _: self._tasks.pop(id, None))
        try:
            return await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling():
                raise
            raise LaunchFailure("create", "it was stopped before it had started") from None

    async def cancel(self, id: str) -> None:
        """Cancel a launch and wait until it has cleaned up. Unknown ids are fine."""
        if (task := self._tasks.get(id)) is not None:
            task.cancel()
            await asyncio.wait({task})

    async def close(self) -> None:
        for id in list(self._tasks):
            await self.cancel(id)
