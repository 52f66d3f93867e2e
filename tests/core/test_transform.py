"""What a job is told, and what a container answers of how it wants to be called."""

from __future__ import annotations

from typing import Any

import pytest

from clary.core.batching import MIB
from clary.core.transform import MOST_AT_ONCE, Pace, Work

REQUEST: dict[str, Any] = {"TransformInput": {}, "TransformOutput": {}}


@pytest.mark.parametrize(
    ("container", "pace"),
    [
        ({}, Pace(1, 6 * MIB, False)),
        (
            {"MaxConcurrentTransforms": 8, "MaxPayloadInMB": 3, "BatchStrategy": "SINGLE_RECORD"},
            Pace(8, 3 * MIB, True),
        ),
        ({"MaxConcurrentTransforms": "8", "MaxPayloadInMB": 0}, Pace(8, 0, False)),
        (
            {"MaxConcurrentTransforms": "many", "MaxPayloadInMB": None, "BatchStrategy": ["x"]},
            Pace(1, 6 * MIB, False),
        ),
        ({"MaxConcurrentTransforms": float("nan"), "MaxPayloadInMB": -1}, Pace(1, 6 * MIB, False)),
        ({"MaxConcurrentTransforms": 10**9, "MaxPayloadInMB": 10**9}, Pace(MOST_AT_ONCE, 6 * MIB, False)),
    ],
)
def test_what_a_container_answers_is_taken_where_it_can_be(container: dict[str, Any], pace: Pace) -> None:
    assert Work(REQUEST).pace(container) == pace


def test_the_request_has_the_last_word() -> None:
    asked = {**REQUEST, "MaxConcurrentTransforms": 10**9, "MaxPayloadInMB": 0, "BatchStrategy": "SingleRecord"}
    container = {"MaxConcurrentTransforms": 8, "MaxPayloadInMB": 3, "BatchStrategy": "MULTI_RECORD"}
    assert Work(asked).pace(container) == Pace(MOST_AT_ONCE, 0, True)
