"""Instances that fail again and again are left alone for a while, and come back."""

from __future__ import annotations

from clary.core.ejection import ANSWERS, FIRST, INTERVAL, LONGEST, MEMORY, THRESHOLD, Outliers
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


def instances(*ids: str, direct: tuple[str, ...] = ()) -> list[EndpointRoute]:
    targets = tuple(Target(id, ()) for id in ids)
    return [EndpointRoute("demo", "InService", (VariantRoute("v", 1, targets, direct),))]


def answer(outliers: Outliers, times: int, **seconds: float) -> None:
    for _ in range(times):
        for id, took in seconds.items():
            outliers.answered(id, took)


def test_an_instance_that_is_always_much_slower_than_its_siblings_is_out_and_comes_back() -> None:
    outliers, routes, now = Outliers(), instances("a", "b", "c"), 100.0
    answer(outliers, ANSWERS - 1, a=0.001, b=0.4, c=0.002)
    outliers.review(now, routes)
    assert outliers.out == frozenset()  # so few answers prove nothing
    for times in range(10):
        now += INTERVAL
        answer(outliers, ANSWERS, a=0.001, b=0.4, c=0.002)
        outliers.review(now, routes)
        assert outliers.out == {"b"}
        now += min(FIRST * 2**times, LONGEST)
        answer(outliers, ANSWERS, b=0.4)  # late answers to what it was sent before bring it back no sooner
        assert outliers.out == {"b"}
        outliers.review(now, routes)
        assert outliers.out == frozenset()
    answer(outliers, ANSWERS, a=0.001, b=0.001, c=0.002)
    outliers.review(now + INTERVAL, routes)
    assert outliers.out == frozenset()


def test_one_fast_answer_shows_that_an_instance_is_not_slow() -> None:
    outliers = Outliers()
    answer(outliers, ANSWERS - 1, a=0.001, b=5.0)
    answer(outliers, 1, a=0.001, b=0.004)
    outliers.review(100.0, instances("a", "b"))
    assert outliers.out == frozenset()


def test_a_small_difference_is_not_worth_it() -> None:
    outliers = Outliers()
    answer(outliers, ANSWERS, a=0.0001, b=0.01, c=1.0, d=4.9)
    outliers.review(100.0, instances("a", "b"))
    outliers.review(200.0, instances("c", "d"))
    assert outliers.out == frozenset()


def test_the_last_instance_is_never_too_slow() -> None:
    outliers, alone, routes = Outliers(), Outliers(), instances("a", "b")
    answer(outliers, ANSWERS, a=0.001, b=1.0)
    outliers.review(100.0, routes)
    answer(outliers, ANSWERS, a=100.0)
    outliers.review(100.0 + INTERVAL, routes)
    assert outliers.out == {"b"}
    answer(alone, ANSWERS, b=1.0)
    alone.review(100.0, routes)  # nobody to compare it with
    assert alone.out == frozenset()


def test_failing_fast_makes_no_instance_a_measure_for_others() -> None:
    outliers = Outliers()
    for _ in range(ANSWERS):
        outliers.answered("a", None)
        outliers.answered("b", 0.4)
    outliers.review(100.0, instances("a", "b"))
    assert outliers.out == frozenset()


def test_instances_of_which_callers_choose_a_container_do_different_work() -> None:
    outliers = Outliers()
    answer(outliers, ANSWERS, a=0.001, b=1.0)
    outliers.review(100.0, instances("a", "b", direct=("one", "two")))
    assert outliers.out == frozenset()


def test_times_of_instances_that_are_gone_are_forgotten() -> None:
    outliers = Outliers()
    answer(outliers, 1, a=0.001, gone=1.0)
    outliers.review(100.0, instances("a", "b"))
    assert outliers._times.keys() == {"a"}
