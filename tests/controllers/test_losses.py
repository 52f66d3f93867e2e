"""Losses are counted, each once, also where nobody could take the number."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from clary.controllers.losses import Losses
from clary.core.metrics import Point


async def test_each_loss_is_told_once() -> None:
    told: list[tuple[tuple[tuple[str, str], ...], int, float]] = []
    trouble = True

    async def record(points: Sequence[Point]) -> None:
        if trouble:
            raise OSError
        losses.add("logs", 1)  # meanwhile
        told.extend((point.series.dimensions, point.start, point.statistics.sum) for point in points)

    losses = Losses(record, lambda: 130.0)
    await losses.tell()
    losses.add("logs", 2)
    with pytest.raises(OSError):
        await losses.tell()
    trouble = False
    await losses.tell()
    await losses.tell()
    assert told == [((("Kind", "logs"),), 120, 2.0), ((("Kind", "logs"),), 120, 1.0)]
