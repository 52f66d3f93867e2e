"""How many requests an instance gets at once, and who waits for a place.

A model that holds a GPU answers two requests slower together than one after the other; what it cannot work at waits
here, where it can be counted, and where it is forgotten when its client leaves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from clary.errors import AwsError


class Admission:
    """Places on instances, in this process: `limit` requests of each at work, `queue` more in line."""

    def __init__(self, limit: int, queue: int) -> None:
        self._limit = limit
        self._queue = queue
        self._busy: dict[str, int] = {}
        self._lines: dict[str, deque[Callable[[], None]]] = {}

    def take(self, instance: str) -> bool:
        """Take a place; tell whether one was free."""
        busy = self._busy.get(instance, 0)
        if busy >= self._limit:
            return False
        self._busy[instance] = busy + 1
        return True

    def wait(self, instance: str, go: Callable[[], None]) -> None:
        """Stand in line until `go` is called, with a place taken.

        Raises AwsError ServiceUnavailable (503) where the line is full: the runtime's model has no throttling error,
        and every SDK tries this one again after a pause.
        """
        line = self._lines.get(instance, deque())
        if len(line) >= self._queue:
            raise AwsError(
                f"The instances are busy: on the one chosen {self._busy[instance]} requests are being answered and "
                f"{len(line)} wait. Try again later, or add instances.",
                code="ServiceUnavailable",
                status=503,
            )
        line.append(go)
        self._lines[instance] = line

    def withdraw(self, instance: str, go: Callable[[], None]) -> None:
        """Leave the line."""
        line = self._lines[instance]
        line.remove(go)
        if not line:
            del self._lines[instance]

    def leave(self, instance: str) -> None:
        """Give a place back; the first in line gets it."""
        line = self._lines.get(instance)
        if line:
            go = line.popleft()
            if not line:
                del self._lines[instance]
            go()
            return
        busy = self._busy[instance] - 1
        if busy:
            self._busy[instance] = busy
        else:
            del self._busy[instance]
