"""The tests of on_podman.py, in a network of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.containers import needs_docker
from tests.namespaces import apart
from tests.podman import missing

TESTS = Path(__file__).with_name("on_podman.py")


@needs_docker
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_the_engine_on_podman() -> None:
    command = apart(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(TESTS))
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout and "skipped" not in done.stdout, done.stdout
