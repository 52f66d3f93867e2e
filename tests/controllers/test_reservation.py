"""What is set aside on shared instances, and what of it is used."""

from __future__ import annotations

import pytest

from clary.controllers.reservation import numbers
from clary.core.containers import Usage
from clary.core.occupancy import Occupant, Occupied
from clary.core.placement import Compute

GIB = 1024**3
NODE = Occupied(
    "i-1",
    "v",
    "ml.g5.xlarge",
    Compute(4.0, 16 * GIB, 1.0),
    (
        Occupant("llm", Compute(2.0, 8 * GIB, 1.0), "ready", "c-1"),
        Occupant("small", Compute(0.0, 2 * GIB), "ready", "c-2"),
        Occupant("small", Compute(0.0, 2 * GIB), "starting", "c-3"),
    ),
)


def told(*measured: tuple[str, float, float | None]) -> dict[tuple[str, str], list[float]]:
    """Give the numbers by name and the last dimension, where containers have used so many GiB and cores."""
    usage = {id: (Usage(0.0, int(memory * GIB), 16 * GIB, 0.0), cores) for id, memory, cores in measured}
    found: dict[tuple[str, str], list[float]] = {}
    for of, value in numbers("e", NODE, usage):
        found.setdefault((of.name, of.dimensions[-1][1]), []).append(value)
    return found


def test_what_is_set_aside_is_told_of_the_instance_used_or_not() -> None:
    assert told() == {
        ("CPUReservation", "v"): [50.0],
        ("MemoryReservation", "v"): [75.0],
        ("GPUReservation", "v"): [100.0],
    }


def test_what_copies_use_is_told_of_what_they_have() -> None:
    found = told(("c-1", 4.0, 1.0), ("c-2", 1.0, None))
    assert found["MemoryUtilization", "v"] == [pytest.approx(100 * 5 / 16)]
    assert found["CPUUtilizationNormalized", "llm"] == [50.0]
    assert found["MemoryUtilizationNormalized", "llm"] == [50.0]
    assert found["MemoryUtilizationNormalized", "small"] == [50.0]
    assert ("CPUUtilizationNormalized", "small") not in found, "CPU time needs two looks"


def test_a_copy_for_which_no_cpu_is_set_aside_may_use_all_of_the_instance() -> None:
    assert told(("c-2", 1.0, 1.0))["CPUUtilizationNormalized", "small"] == [25.0]
