"""A few of the cycles of cycles.py; run that for as many as you like."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.acceptance import cycles
from tests.containers import needs_docker
from tests.dockerd import missing

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip"))), reason="namespaces: root, unshare and ip"
    ),
]


def leave_nothing(engine: str, number: int) -> None:
    command = [sys.executable, "-m", cycles.__name__, "--engine", engine, "--cycles", str(number)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
    assert done.returncode == 0, done.stdout


@needs_docker
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_containers_come_and_go_through_kills_of_everything_and_leave_nothing() -> None:
    leave_nothing("docker", 12)


def test_processes_come_and_go_through_kills_of_everything_and_leave_nothing() -> None:
    leave_nothing("process", 12)
