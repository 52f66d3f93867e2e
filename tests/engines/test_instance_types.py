"""What instance types have, as AWS publishes it."""

from dataclasses import replace

import pytest

from clary.core.containers import LOCAL, Capacity, ContainerSpec, Share
from clary.engines.instance_types import GIB, Limits, bounds, capacity, limits


@pytest.mark.parametrize(
    ("name", "cpus", "gib"),
    [
        ("ml.m5.large", 2, 8),
        ("ml.m5.4xlarge", 16, 64),
        ("ml.c5.xlarge", 4, 8),
        ("ml.r5.2xlarge", 8, 64),
        ("ml.t2.medium", 2, 4),
        ("ml.g4dn.xlarge", 4, 16),
        ("ml.g5.2xlarge", 8, 32),
        ("ml.p3.2xlarge", 8, 61),
        ("ml.p4d.24xlarge", 96, 1152),
        ("ml.c6g.medium", 1, 2),
        ("ml.inf2.xlarge", 4, 16),
    ],
)
def test_it_is_what_aws_says(name: str, cpus: int, gib: int) -> None:
    found = limits(name)
    assert found is not None
    assert (found.cpus, found.memory) == (cpus, gib * GIB)


@pytest.mark.parametrize("name", [LOCAL, "ml.z99.large", "", "m5.large"])
def test_others_are_the_whole_machine(name: str) -> None:
    assert limits(name) is None


@pytest.mark.parametrize(
    ("name", "gpus"),
    [("ml.m5.large", 0), ("ml.g4dn.xlarge", 1), ("ml.g5.12xlarge", 4), ("ml.p3.16xlarge", 8), ("ml.p4d.24xlarge", 8)],
)
def test_gpus_are_counted(name: str, gpus: int) -> None:
    found = limits(name)
    assert found is not None
    assert found.gpus == gpus


def test_a_share_of_an_instance_is_what_a_container_may_use() -> None:
    whole = ContainerSpec("c", "ep", "v", "i-1", "image", instance_type="ml.g5.12xlarge")
    part = replace(whole, share=Share(2.0, GIB, (1, 3)))
    assert bounds(whole) == limits("ml.g5.12xlarge")
    assert bounds(part) == Limits(2.0, GIB, 2, (1, 3))
    assert bounds(replace(whole, instance_type=LOCAL)) is None


def test_an_instance_has_what_its_type_has_and_else_what_the_machine_has() -> None:
    machine = Capacity(2.0, 8 * GIB, ("a note",))
    assert capacity(machine, "ml.g5.12xlarge") == Capacity(48.0, 192 * GIB, ("a note",), 4)
    assert capacity(machine, LOCAL) == machine
