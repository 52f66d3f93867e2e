"""Statistics that add up."""

from __future__ import annotations

from clary.core.metrics import Statistics


def test_the_outermost_percentiles_are_minimum_and_maximum() -> None:
    found = Statistics()
    found.extend([1.0, 1000.5, 1009.9, 1010.0])  # the last three in one bucket
    assert (found.percentile(0), found.percentile(100)) == (1.0, 1010.0)
