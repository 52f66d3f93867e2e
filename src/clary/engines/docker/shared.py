"""One answer for all who ask at the same time: a hundred endpoints that look at Docker are one look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """A question that is asked once at a time. Nobody gets an answer to a question that was put before he asked."""

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._ask = ask
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[T] | None = None
        self._tasks: set[asyncio.Task[T]] = set()

    async def __call__(self) -> T:
        """Give the answer, or raise what it came to."""
        if self._next is None:
            self._next = asyncio.create_task(self._in_turn())
            self._tasks.add(self._next)
            self._next.add_done_callback(self._end)
        return await asyncio.shield(self._next)

    async def close(self) -> None:
        """End what is being asked."""
        for task in list(self._tasks):
            task.cancel()
            await asyncio.wait({task})

    async def _in_turn(self) -> T:
        async with self._turn:
            self._next = None  # who asks from here on has missed the beginning
            return await self._ask()

    def _end(self, task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen, also where everybody has gone
