"""Instances that fail again and again are left alone for a while, and come back."""

from __future__ import annotations

from clary.core.ejection import FIRST, LONGEST, MEMORY, THRESHOLD, Outliers
from clary.core.routing import EndpointRoute, Target, VariantRoute, pick


def fail(outliers: Outliers, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        outliers.failed("i", now)


def test_failures_in_a_row_eject() -> None:
    outliers = Outliers()
    fail(outliers, THRESHOLD - 1)
    assert outliers.out == frozenset()
    fail(outliers, 1)
    assert outliers.out == {"i"}


def test_an_answer_in_between_starts_the_count_again() -> None:
    outliers = Outliers()
    for _ in range(10):
        fail(outliers, THRESHOLD - 1)
        outliers.answered("i")
    assert outliers.out == frozenset()


def test_who_comes_back_and_fails_is_out_at_once_and_for_longer() -> None:
    outliers, now = Outliers(), 0.0
    fail(outliers, THRESHOLD)
    for times in range(10):
        length = min(FIRST * 2**times, LONGEST)
        outliers.review(now + length - 0.01)
        assert outliers.out == {"i"}
        now += length
        outliers.review(now)
        assert outliers.out == frozenset()
        fail(outliers, 1, now)
        assert outliers.out == {"i"}


def test_an_answer_brings_it_back_as_good_as_new() -> None:
    outliers = Outliers()
    fail(outliers, THRESHOLD)
    outliers.answered("i")
    assert outliers.out == frozenset()
    fail(outliers, THRESHOLD - 1)
    assert outliers.out == frozenset()


def test_old_failures_are_forgotten() -> None:
    outliers = Outliers()
    fail(outliers, THRESHOLD)
    outliers.review(MEMORY + 1)
    fail(outliers, THRESHOLD - 1, MEMORY + 1)
    assert outliers.out == frozenset()


def test_one_that_is_out_is_picked_only_where_there_is_no_other() -> None:
    two = EndpointRoute("demo", "InService", (VariantRoute("v", 1, (Target("a", ()), Target("b", ()))),))
    for step in range(100):
        found = pick(two, None, step / 100, {"b": 1000}, {"a"})
        assert found is not None and found[1].id == "b"
        assert pick(two, None, step / 100, {}, {"a", "b"}) is not None
