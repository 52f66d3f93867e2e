"""What a FailureReason says of a log."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clary.core.failure import Failure, Scene, failure_reason, folded, without_log

TRACE = ("Traceback (most recent call last):", '  File "serve", line 9, in <module>', "ValueError: no weights")
SCENE = Scene("iris", "AllTraffic", "primary", 1, "iris:1", None, starts=3, elapsed=4.0)


def failure(log: tuple[str, ...]) -> Failure:
    return Failure("exit", "exited with 1", 1.0, 2.0, "counted", log)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), ()),
        (("a",), ("a",)),
        (("a", "b"), ("a", "b")),
        (("a", "a", "a"), ("a",)),
        (TRACE * 3, TRACE),
        ((TRACE * 3)[1:], TRACE),
        (("begin", *TRACE) * 3, ("begin", *TRACE)),
        (("x", "a", "b", "c", "d", "x"), ("x", "a", "b", "c", "d", "x")),
        (("once", *TRACE * 2), ("once", *TRACE * 2)),
        (
            ("10:00:01 at 0x7fa1 of 12", "no", "10:00:02 at 0x6fb2 of 13", "no"),
            ("10:00:02 at 0x6fb2 of 13", "no"),
        ),
    ],
)
def test_what_is_written_over_and_over_is_said_once(lines: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert folded(lines) == expected


def test_a_reason_has_one_traceback_of_three_equal_starts() -> None:
    reason = failure_reason(failure(TRACE * 3), SCENE)
    assert "exited with 1 (3 starts)" in reason
    assert reason.count("ValueError: no weights") == 1
    assert "\nLast lines of the log, the same at each start:\n" + "\n".join(TRACE) in reason


def test_of_a_single_start_every_line_is_shown() -> None:
    reason = failure_reason(failure(("tick",) * 4), replace(SCENE, starts=1))
    assert "Last lines of the log:\ntick\ntick\ntick\ntick\n" in reason


@pytest.mark.parametrize(("step", "told"), [("image", False), ("download", False), ("exit", True), ("ping", True)])
def test_an_empty_log_is_told_of_where_there_could_be_one(step: str, told: bool) -> None:
    ended = Failure(step, "something", 1.0, 2.0, "final")
    assert ("The log is empty." in failure_reason(ended, SCENE)) is told


def test_it_is_never_longer_than_the_service_allows() -> None:
    for width in (1, 100, 400, 3000):
        assert len(failure_reason(failure(("x" * width, "y" * width) * 3), SCENE)) <= 1024


@pytest.mark.parametrize("starts", [1, 3])
def test_its_log_can_be_left_out_where_that_is_shown_anyway(starts: int) -> None:
    reason = failure_reason(failure(TRACE * starts), replace(SCENE, starts=starts))
    reason = reason.removesuffix("\nNext: clary doctor iris")  # as the command that shows it drops it
    assert without_log(reason, ("more", *TRACE)).endswith("Image: iris:1. Elapsed: 4.0 s.")
    assert without_log(reason, TRACE[1:]) == reason
    assert without_log("ping answered 500", ()) == "ping answered 500"
