"""Time that jumps: a loop in which nothing is waited for, and tests of hours take milliseconds."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

P = ParamSpec("P")
EPOCH = 1_700_000_000.0
"""When virtual time begins."""


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits for a timer: where nothing is ready, the time of the next timer has come."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise RuntimeError("deadlock: no task can go on, and no timer is set")
        self.skipped += timeout
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumps = _JumpingSelector()
        super().__init__(self._jumps)

    def time(self) -> float:
        return self._jumps.skipped


def now() -> float:
    """Give the virtual time in seconds since the epoch: the clock to hand to what is tested."""
    return EPOCH + asyncio.get_running_loop().time()


def virtual_runner() -> asyncio.Runner:
    """Make a runner in whose loop sleeping takes no time. For tests without sockets and threads."""
    return asyncio.Runner(loop_factory=_VirtualLoop)


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test in a loop in which sleeping takes no time. For tests without sockets and threads."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with virtual_runner() as runner:
            runner.run(test(*args, **kwargs))

    return run


async def until(condition: Callable[[], bool], timeout: float = 600.0) -> None:
    """Wait, in whatever time the loop has, until the condition holds. Raises TimeoutError."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - any condition at all: there is no event to wait for
            await asyncio.sleep(0.01)
