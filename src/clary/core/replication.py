"""On which instances of a variant a model is loaded: spread over all, and on several where it is asked for much.

A model has its instances in an order of its own (rendezvous hashing): it comes back to where its files are, and when an
instance comes or goes, only the models move that have to.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from hashlib import sha256

WINDOW = 10.0
"""Seconds over which use is counted."""
ENOUGH = 50
"""Uses of a variant in that time below which nothing is concluded of them."""


def place(model: str, instances: Sequence[str], avoid: Collection[str] = ()) -> str:
    """Choose the instance that is to load a model which none of them has; one of `avoid` only if there is no other."""
    able = [each for each in instances if each not in avoid] or instances
    return max(able, key=lambda instance: _score(model, instance))


def another(model: str, instances: Sequence[str], holding: Collection[str]) -> str | None:
    """Choose the instance that is to load a further copy; None where all of them have it."""
    able = [each for each in instances if each not in holding]
    return max(able, key=lambda instance: _score(model, instance), default=None)


def _score(model: str, instance: str) -> bytes:
    return sha256(f"{model}\n{instance}".encode()).digest()


class Demand:
    """How much the models of one variant are asked for. Times in seconds."""

    def __init__(self) -> None:
        self._since = 0.0
        self._now: Counter[str] = Counter()
        self._before: Counter[str] = Counter()

    def count(self, model: str, uses: int, at: float) -> None:
        """Count uses of a model."""
        if at - self._since >= WINDOW:
            self._before = self._now if at - self._since < 2 * WINDOW else Counter()
            self._now, self._since = Counter(), at
        self._now[model] += uses

    def copies(self, model: str, instances: int) -> int:
        """Say on how many of so many instances a model should be: as many as its share of all use fills."""
        total = self._now.total() + self._before.total()
        if total < ENOUGH:
            return 1
        share = (self._now[model] + self._before[model]) / total
        return max(1, min(instances, math.ceil(share * instances)))
