"""Which instances to leave alone for a while: those that fail request after request without having died.

Pings take their time to notice an instance that hangs; callers notice at once. Time is an argument, in seconds on any
clock that does not go back.
"""

from __future__ import annotations

from dataclasses import dataclass

THRESHOLD = 3
"""Failures in a row after which an instance is out."""
FIRST = 2.0
"""Seconds for which it stays out the first time; each further time is twice as long."""
LONGEST = 60.0
MEMORY = 300.0
"""Seconds without a failure after which an instance is as good as new."""


@dataclass(slots=True)
class _Record:
    failures: int = 0
    ejections: int = 0
    out_until: float = 0.0
    failed_at: float = 0.0


class Outliers:
    """Counts failures in a row: connections refused or reset, answers that never came."""

    def __init__(self) -> None:
        self.out: frozenset[str] = frozenset()
        """The ids of the instances that should get no requests, as long as there are others."""
        self._records: dict[str, _Record] = {}

    def failed(self, id: str, now: float) -> None:
        """Count a failure. An instance that fails right after it came back is out again at once."""
        record = self._records.setdefault(id, _Record())
        record.failures += 1
        record.failed_at = now
        if record.failures >= THRESHOLD and id not in self.out:
            record.out_until = now + min(FIRST * 2**record.ejections, LONGEST)
            record.ejections += 1
            self.out |= {id}

    def answered(self, id: str) -> None:
        """Forget the failures of an instance: it has answered, were it with an error."""
        if self._records.pop(id, None) is not None:
            self.out -= {id}

    def review(self, now: float) -> None:
        """Let those back whose time is over, and forget those that have not failed for long."""
        for id in [id for id in self.out if self._records[id].out_until <= now]:
            self.out -= {id}
        for id in [id for id, record in self._records.items() if now - record.failed_at > MEMORY]:
            del self._records[id]
            self.out -= {id}
