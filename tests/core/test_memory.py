"""What a status remembers of failures."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from clary.core.deployment import Attempts
from clary.core.failure import LONGEST, Failure
from clary.core.memory import attempts_of, with_attempts

FAILURE = Failure("exit", "exited with 3", 1.5, 2.25, "counted", ("Traceback", "ValueError: no"))
TIMES = st.floats(0, 1e10)
FAILURES = st.builds(
    Failure, st.text(max_size=9), st.text(max_size=30), TIMES, TIMES,
    st.sampled_from(("final", "counted", "transient")), st.lists(st.text(max_size=30), max_size=5).map(tuple),
)  # fmt: skip


@given(
    st.dictionaries(
        st.text(max_size=9), st.builds(Attempts, st.integers(1, 9), TIMES, FAILURES, st.none() | TIMES), max_size=4
    ),
    st.dictionaries(st.text(max_size=9), st.tuples(st.integers(1, 9), TIMES), max_size=4),
)
def test_failures_and_launches_survive_json(
    attempts: dict[str, Attempts], launches: dict[str, tuple[int, float]]
) -> None:
    for id, (times, since) in launches.items():
        attempts[id] = replace(attempts.get(id, Attempts()), begun=times, begun_at=since)
    status = with_attempts({"EndpointStatus": "Creating"}, attempts)
    assert attempts_of(json.loads(json.dumps(status))) == attempts
    assert json.loads(json.dumps(status)) == status, "or it would be written again and again"


def test_where_nothing_has_failed_nothing_is_remembered() -> None:
    before = with_attempts({"a": 1}, {"c": Attempts(1, 1.0, FAILURE)})
    assert with_attempts(before, {"c": Attempts(ready_since=3.0)}) == {"a": 1}
    assert attempts_of({"a": 1}) == {}


def test_of_a_log_its_end_is_remembered_as_far_as_a_reason_has_room_for_it() -> None:
    long = Failure("exit", "x" * 5000, 1.0, 1.0, "counted", ("early", "y" * 5000, "z" * 1000, "last"))
    (remembered,) = attempts_of(with_attempts({}, {"c": Attempts(1, 1.0, long)})).values()
    assert remembered.last is not None
    assert len(remembered.last.detail) <= LONGEST
    assert [len(line) for line in remembered.last.log] == [LONGEST - 1, 1000, 4]
