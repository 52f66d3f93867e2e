from __future__ import annotations

from clary.serving.scoreboard import Scoreboard


def test_a_replacement_takes_the_free_slot_and_starts_as_loading() -> None:
    board = Scoreboard(3)
    slots = [board.take(set(range(index))) for index in range(3)]
    for slot in slots:
        slot.idle()
    replacement = board.take({0, 2})
    assert replacement.index == 1
    assert not replacement.loaded


def test_only_other_workers_count() -> None:
    board = Scoreboard(2)
    one, two = board.take(set()), board.take({0})
    one.idle()
    assert not one.others_idle()
    assert two.others_idle()
    one.busy()
    assert one.loaded
    assert not two.others_idle()
