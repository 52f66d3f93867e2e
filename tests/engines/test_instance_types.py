"""What instance types have, as AWS publishes it."""

import pytest

from clary.core.ports import LOCAL
from clary.engines.instance_types import GIB, limits


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
