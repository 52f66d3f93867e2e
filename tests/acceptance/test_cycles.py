"""A few of the cycles of cycles.py; run that for as many as you like."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import namespaces
from tests.acceptance import cycles
from tests.containers import needs_docker
from tests.dockerd import missing

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(namespaces.missing() is not None, reason=str(namespaces.missing())),
]


def leave_nothing(engine: str, number: int) -> None:
    command = [sys.executable, "-m", cycles.__name__, "--engine", engine, "--cycles", str(number)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=2400)
    assert done.returncode == 0, done.stdout


@needs_docker
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_containers_come_and_go_through_kills_of_everything_and_leave_nothing() -> None:
    leave_nothing("docker", 12)


def test_processes_come_and_go_through_kills_of_everything_and_leave_nothing() -> None:
    leave_nothing("process", 12)
