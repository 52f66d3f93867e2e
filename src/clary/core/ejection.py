"""Which instances to leave alone for a while: those that fail request after request without having died, and those
that are much slower than their siblings.

Pings take their time to notice an instance that hangs; callers notice at once. Time is an argument, in seconds on any
clock that does not go back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from clary.core.routing import EndpointRoute

THRESHOLD = 3
"""Failures in a row after which an instance is out."""
FIRST = 2.0
"""Seconds for which it stays out the first time; each further time is twice as long."""
LONGEST = 60.0
MEMORY = 300.0
"""Seconds without a failure, or without having been too slow, after which an instance is as good as new."""

ANSWERS = 10
"""Successes that an instance is judged by, the last ones."""
TOO_SLOW = 5.0
"""Times as long as its siblings take, in all of them, makes an instance slow."""
WORTH_WHILE = 0.02
"""Seconds; who is slower by less does no harm."""
INTERVAL = 1.0
"""Seconds between comparisons."""


@dataclass(slots=True)
class _Record:
    failures: int = 0
    ejections: int = 0
    out_until: float = 0.0
    """0 while the instance is in."""
    last: float = 0.0

    def eject(self, now: float) -> None:
        self.last = now
        self.out_until = now + min(FIRST * 2**self.ejections, LONGEST)
        self.ejections += 1


class Outliers:
    """Counts failures in a row (connections refused or reset, answers that never came), and compares times."""

    def __init__(self) -> None:
        self.out: frozenset[str] = frozenset()
        """The ids of the instances that should get no requests, as long as there are others."""
        self.failing: dict[str, _Record] = {}
        """Those that failed lately, by id."""
        self._slow: dict[str, _Record] = {}
        self._times: dict[str, deque[float]] = {}
        self._compared = 0.0

    def failed(self, id: str, now: float) -> None:
        """Count a failure. An instance that fails right after it came back is out again at once."""
        record = self.failing.setdefault(id, _Record())
        record.failures += 1
        record.last = now
        if record.failures >= THRESHOLD and not record.out_until:
            record.eject(now)
            self._renew()

    def answered(self, id: str, seconds: float | None = None) -> None:
        """Forget the failures of an instance: it has answered, were it with an error.

        `seconds`: how long it took to begin an answer that says how fast it is, which errors do not.
        """
        if self.failing and self.failing.pop(id, None) is not None:
            self._renew()
        if seconds is not None:
            times = self._times.get(id)
            if times is None:
                times = self._times[id] = deque(maxlen=ANSWERS)
            times.append(seconds)

    def review(self, now: float, routes: Iterable[EndpointRoute] = ()) -> None:
        """Let those back whose time is over, forget what is long past, and find the slow ones of the routes."""
        if self.failing or self._slow:
            self._let_back(now)
        if self._times and now - self._compared >= INTERVAL:
            self._compared = now
            self._compare(list(_siblings(routes)), now)

    def _let_back(self, now: float) -> None:
        for records in (self.failing, self._slow):
            for id, record in list(records.items()):
                if record.out_until and record.out_until <= now:
                    record.out_until = 0.0
                    self._times.pop(id, None)  # it is judged by what it does from now on
                if now - record.last > MEMORY:
                    del records[id]
        self._renew()

    def _compare(self, groups: list[tuple[str, ...]], now: float) -> None:
        """Put out the slowest of each group if it is too slow: one at a time, so there are always others.

        It is too slow if its fastest answer was: one that is slow now and then, or warms up, or gets the odd large
        request, is not.
        """
        known = {id for group in groups for id in group}
        self._times = {id: times for id, times in self._times.items() if id in known}
        for group in groups:
            judged = {id: times for id in group if (times := self._times.get(id)) and id not in self.out}
            judged = {id: times for id, times in judged.items() if len(times) == ANSWERS}
            if len(judged) < 2:
                continue
            best, slowest = max((min(times), id) for id, times in judged.items())
            del judged[slowest]
            usual = median(map(median, judged.values()))
            if best > max(TOO_SLOW * usual, usual + WORTH_WHILE):
                self._slow.setdefault(slowest, _Record()).eject(now)
                self._renew()

    def _renew(self) -> None:
        records = (*self.failing.items(), *self._slow.items())
        self.out = frozenset(id for id, record in records if record.out_until)


def _siblings(routes: Iterable[EndpointRoute]) -> Iterator[tuple[str, ...]]:
    """Give the instances that do the same work: of a variant whose callers do not choose between its containers."""
    for route in routes:
        for variant in (*route.variants, *route.shadows):
            if len(variant.targets) > 1 and not variant.direct:
                yield tuple(target.id for target in variant.targets)
