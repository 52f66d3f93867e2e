"""What one multi-model container holds, as the bookkeeping has it."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.core.shelf import LARGEST_SHARE, REFUSAL, Shelf


def shelf(disk: int = 1000, **loaded: float) -> Shelf:
    """Give one with models of 100 bytes loaded, each last used at a time."""
    made = Shelf(count(1).__next__, disk)
    for name, at in loaded.items():
        load(made, name, at)
    return made


def load(made: Shelf, name: str, at: float = 0.0, size: int = 100) -> None:
    made.is_loading(name)
    made.has_placed(name, size)
    made.has_loaded(name, at, published=True)


def test_the_least_recently_used_goes_first() -> None:
    made = shelf(a=3, b=1, c=2)
    assert made.victim() == "b"
    made.use("b", made["b"].number, 4)
    assert made.victim() == "c"


def test_a_use_that_is_told_late_does_not_make_it_older() -> None:
    made = shelf(a=3, b=2)
    made.use("a", made["a"].number, 1)
    assert made.victim() == "b"


def test_a_use_of_an_earlier_load_is_not_one_of_this() -> None:
    made = shelf(a=1, b=2)
    earlier = made["a"].number
    made.retire("a", [])
    made.has_gone("a")
    made.is_loading("a")
    made.has_loaded("a", 1, published=True)
    made.use("a", earlier, 9)
    assert made.victim() == "a"


def test_what_somebody_waits_for_does_not_go() -> None:
    made = shelf(a=1, b=2)
    made.wait("a")
    assert made.victim() == "b"
    made.wait("b")
    assert made.victim() is None
    made.leave("a")
    assert made.victim() == "a"


def test_a_model_is_in_hands_until_every_gateway_has_said_that_it_knows_of_its_leaving() -> None:
    made = shelf(a=1)
    made.retire("a", ["g", "h"])
    number = made["a"].number
    assert made["a"].in_hands
    made.give_back("a", number, "g", 0, aware=True)
    made.give_back("a", number + 1, "h", 0, aware=True)  # of another load
    assert made["a"].in_hands
    made.lose("h")
    assert not made["a"].in_hands


def test_a_grant_is_a_hand_until_it_is_given_back() -> None:
    made = shelf(a=1)
    number = made.grant("a", "g", 2.0)
    made.grant("a", "g", 2.0)
    made.retire("a", [])
    made.give_back("a", number, "g", 1, aware=False)
    assert made["a"].in_hands
    made.give_back("a", number, "g", 1, aware=False)
    assert not made["a"].in_hands


def test_two_loads_of_a_model_are_never_mistaken_for_each_other() -> None:
    made = shelf(a=1)
    first = made["a"].number
    assert made.get("a", first) is made["a"]
    made.retire("a", [])
    made.has_gone("a")
    assert made.get("a", first) is None
    made.is_loading("a")
    made.has_loaded("a", 2, published=True)
    assert made["a"].number != first
    assert made.get("a", first) is None


def test_what_there_is_nothing_to_say_of_is_forgotten() -> None:
    made = shelf(a=1)
    made.wait("nobody")
    made.leave("nobody")
    made.retire("a", [])
    made.has_gone("a")
    made.has_placed("a", 0)
    assert made._models == {}


class TestMemory:
    def test_what_was_refused_is_too_much_for_a_while(self) -> None:
        made = shelf(a=1, b=2)
        made.has_placed("c", 100)
        assert not made.is_too_much("c", 10.0)
        made.was_refused("c", 10.0)
        assert made.is_too_much("c", 10.0)
        assert not made.is_too_much("c", 10.0 + REFUSAL)

    def test_one_less_is_not_and_neither_is_a_smaller_one(self) -> None:
        made = shelf(a=1, b=2)
        made.has_placed("c", 100)
        made.has_placed("d", 99)
        made.was_refused("c", 10.0)
        assert not made.is_too_much("d", 10.0)
        made.retire("a", [])
        assert not made.is_too_much("c", 10.0)

    def test_one_that_would_not_fit_alone_says_nothing_of_others(self) -> None:
        made = shelf(a=1)
        made.has_placed("huge", 1)
        made.was_refused("huge", 10.0)
        made.is_outsize()
        assert not made.is_too_much("huge", 10.0)

    @pytest.mark.parametrize(("number", "gone"), [(1, 1), (3, 1), (8, int(8 * LARGEST_SHARE))])
    def test_a_container_that_is_nearly_full_loses_a_few_at_a_time(self, number: int, gone: int) -> None:
        made = shelf(**{f"m{at}": float(at) for at in range(number)})
        assert made.beyond_memory(70, 100) == ()
        assert list(made.beyond_memory(71, 100)) == [f"m{at}" for at in range(gone)]


class TestDisk:
    def test_files_of_what_is_loaded_stay(self) -> None:
        made = shelf(disk=250, a=1, b=2, c=3)
        assert made.beyond_disk("c") == []

    def test_the_least_recently_used_of_the_others_go_until_the_rest_fits(self) -> None:
        made = shelf(disk=250, a=2, b=1, c=3)
        for name in ("a", "b"):
            made.retire(name, [])
            made.has_gone(name)
        assert made.beyond_disk("c") == ["b"]
        assert made.beyond_disk("b") == ["a"]

    def test_within_the_limit_nothing_goes_unless_the_disk_itself_is_full(self) -> None:
        made = shelf(a=1, b=2)
        made.retire("a", [])
        made.has_gone("a")
        assert list(made.beyond_disk("b")) == []
        assert made.beyond_disk("b", full=True) == ["a"]

    @given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 300)), max_size=30), st.integers(0, 900))
    def test_what_stays_fits_or_cannot_go(self, placed: list[tuple[str, int]], limit: int) -> None:
        made = Shelf(count(1).__next__, limit)
        sizes: dict[str, int] = {}
        for name, size in placed:
            made.has_placed(name, size)
            sizes[name] = size
        gone = set(made.beyond_disk("a"))
        left = sum(size for name, size in sizes.items() if name not in gone)
        assert left <= limit or {name for name, size in sizes.items() if size} - gone <= {"a"}
