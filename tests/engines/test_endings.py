"""The words for how a container ended."""

from __future__ import annotations

import signal

import pytest

from clary.engines.endings import ending
from clary.engines.instance_types import limits

LARGE = limits("ml.m5.large")


@pytest.mark.parametrize(
    ("code", "short_of_memory", "words"),
    [
        (0, False, "exited with 0"),
        (3, False, "exited with 3"),
        (3, True, "exited with 3, a process of it having been killed for memory (limit 8 GiB)"),
        (-signal.SIGKILL, False, "killed by SIGKILL"),
        (-signal.SIGKILL, True, "killed for memory (limit 8 GiB)"),
        (-signal.SIGSEGV, True, "killed by SIGSEGV"),
        (-40, False, "killed by signal 40"),
    ],
)
def test_an_end_has_its_words(code: int, short_of_memory: bool, words: str) -> None:
    assert ending(code, short_of_memory=short_of_memory, limits=LARGE) == words


def test_without_a_limit_none_is_named() -> None:
    assert ending(-signal.SIGKILL, short_of_memory=True, limits=None) == "killed for memory"
