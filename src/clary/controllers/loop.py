"""The engine room of every controller: one worker at most for each key, side by side across keys, and never dead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from clary.errors import Transient
from clary.telemetry import logger

RESYNC = 30.0
"""Seconds between looks at everything: what makes a lost notification harmless."""
FIRST_PASS = 10.0
"""Longest wait for the first look at everything to end."""
LONGEST_LOOK = 60.0
"""Seconds after which a look counts as failed: an engine that hangs must not hold a key for ever."""
RETRIES = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds after an unexpected error, by the number of errors in a row; the last one stays."""


class Loop:
    """Calls `reconcile(key)` for every key that was notified, and for all `keys()` at start and every 30 s.

    `reconcile` returns when it wants to be called again (seconds since the epoch), or None. Whatever it raises is
    logged and it is called again: a key that is in trouble never stops the others.
    """

    def __init__(
        self,
        reconcile: Callable[[str], Awaitable[float | None]],
        keys: Callable[[], Awaitable[Iterable[str]]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._reconcile = reconcile
        self._keys = keys
        self._clock = clock
        self._group: asyncio.TaskGroup | None = None
        self._dirty: set[str] = set()
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._log = logger("reconcile")

    def notify(self, key: str) -> None:
        """Have the key looked at: now, or once more after the look that is under way. Many calls are one."""
        self._dirty.add(key)
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if self._group is not None and key not in self._workers:
            self._workers[key] = self._group.create_task(self._work(key), name=f"reconcile {key}")

    async def run(self, after_first_pass: Callable[[], None] = lambda: None) -> None:
        """Work until cancelled. `after_first_pass` is called once, when every key was reconciled (or 10 s later)."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await self._resync()
                for key in tuple(self._dirty):  # notified before the start
                    self.notify(key)
                if self._workers:
                    await asyncio.wait(self._workers.values(), timeout=FIRST_PASS)
                after_first_pass()
                while True:
                    await asyncio.sleep(RESYNC)
                    await self._resync()
            finally:
                self._group = None
                for timer in self._timers.values():
                    timer.cancel()
                self._timers.clear()

    async def _resync(self) -> None:
        errors = 0
        while True:
            try:
                keys = await self._keys()
                break
            except Transient as trouble:
                self._log.warning("cannot list what there is now", reason=trouble.message)
                await asyncio.sleep(max(trouble.retry_after, _delay(errors)))
                errors += 1
            except Exception:
                self._log.exception("cannot list what there is; trying again")
                await asyncio.sleep(_delay(errors))
                errors += 1
        for key in keys:
            self.notify(key)

    async def _work(self, key: str) -> None:
        errors = 0
        wake_at: float | None = None
        try:
            while key in self._dirty:
                self._dirty.discard(key)
                try:
                    async with asyncio.timeout(LONGEST_LOOK):
                        wake_at = await self._reconcile(key)
                    errors = 0
                except Transient as trouble:  # an engine that is away, say: what it has is not known, and not gone
                    self._log.warning("cannot reconcile now", key=key, errors=errors + 1, reason=trouble.message)
                    await asyncio.sleep(max(trouble.retry_after, _delay(errors)))
                    errors += 1
                    self._dirty.add(key)
                except Exception:
                    self._log.exception("reconciling failed; trying again", key=key, errors=errors + 1)
                    await asyncio.sleep(_delay(errors))
                    errors += 1
                    self._dirty.add(key)
        finally:
            del self._workers[key]
        if wake_at is not None and self._group is not None:
            delay = max(0.0, wake_at - self._clock())
            self._timers[key] = asyncio.get_running_loop().call_later(delay, self.notify, key)


def _delay(errors: int) -> float:
    return RETRIES[min(errors, len(RETRIES) - 1)]
