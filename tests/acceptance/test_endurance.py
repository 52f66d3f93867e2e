"""Invocations while control plane, instances and gateway workers are killed and come back: none fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.acceptance

PROGRAM = Path(__file__).parents[2] / "bench" / "endurance.py"


def test_no_invocation_fails_while_processes_are_killed() -> None:
    command = [sys.executable, str(PROGRAM), "--requests", "3000", "--kills", "2", "--pause", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("failures   0") == 2
    assert done.stdout.count("instance 2") == 2
    assert "gateway 2" in done.stdout
