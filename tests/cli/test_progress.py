"""Steps: a line each when it ends; on a terminal it moves."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from clary.cli import progress
from clary.cli.progress import Steps, size


def test_a_step_is_one_line_with_its_time_and_detail() -> None:
    out = io.StringIO()
    steps = Steps(Console(file=out, width=200))
    with steps.step("Upload") as step:
        step.say("half", 0.5)
        step.say("12 [MB]")
    assert out.getvalue().startswith("✓ Upload")
    assert out.getvalue().endswith(" s  12 [MB]\n") and out.getvalue().count("\n") == 1
    assert [taken.title for taken in steps.taken] == ["Upload"] and steps.taken[0].seconds >= 0


def test_a_step_that_fails_is_marked_and_the_error_goes_on() -> None:
    out = io.StringIO()
    steps = Steps(Console(file=out, width=200))
    with pytest.raises(ValueError), steps.step("Create"):
        raise ValueError
    assert out.getvalue().startswith("✗ Create")


class Watched(io.StringIO):
    """Tells when something was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        finally:
            self.written.set()


def test_a_long_step_shows_life_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SIGN_OF_LIFE", 0.01)
    out = Watched()
    with Steps(Console(file=out, width=200)).step("Wait") as step:
        step.say("Creating", 0.25)
        while " s  Wait: 25% Creating\n" not in out.getvalue():
            assert out.written.wait(30)
            out.written.clear()


def test_on_a_terminal_the_moving_line_is_replaced_by_the_final_one() -> None:
    out = io.StringIO()
    with Steps(Console(file=out, width=200, force_terminal=True)).step("Wait") as step:
        step.say("InService")
    assert "InService" in out.getvalue().rsplit("\x1b[2K", 1)[-1]


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (5 * 1024 * 1024, "5.0 MiB")])
def test_sizes_are_for_people(count: int, text: str) -> None:
    assert size(count) == text
