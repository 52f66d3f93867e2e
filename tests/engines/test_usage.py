"""What processes use: of real ones by /proc, of groups by files as the kernel writes them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clary.engines.instance_types import GIB
from clary.engines.usage import measure

BUSY = """
import time
kept = bytearray(64 * 1024 * 1024)
while time.process_time() < 0.3:
    pass
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def busy() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_processes_are_measured_by_proc(busy: int, tmp_path: Path) -> None:
    used = measure([busy], [], "ml.clary.local", tmp_path)
    assert 0.25 <= used.cpu_seconds < 30
    assert 64 * 1024**2 < used.memory < 1024**3
    assert used.memory_limit == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < used.disk_percent <= 100


def test_a_process_that_is_gone_uses_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        time.sleep(0)
        used = measure([process.pid], [], "ml.clary.local", tmp_path)
    assert (used.cpu_seconds, used.memory) == (0, 0)


def test_groups_of_version_2_count_better(busy: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n")
    (tmp_path / "memory.current").write_text(f"{3 * GIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon {GIB}\ninactive_file {GIB}\n")
    used = measure([busy], [tmp_path], "ml.clary.local", tmp_path)
    assert (used.cpu_seconds, used.memory) == (1.5, 2 * GIB)


def test_groups_of_version_1_are_apart(busy: int, tmp_path: Path) -> None:
    cpu, memory = tmp_path / "cpu", tmp_path / "memory"
    cpu.mkdir()
    memory.mkdir()
    (cpu / "cpuacct.usage").write_text("2500000000\n")
    (memory / "memory.usage_in_bytes").write_text(f"{GIB}\n")
    (memory / "memory.stat").write_text(f"cache 5\ntotal_inactive_file {GIB // 4}\n")
    used = measure([busy], [cpu, memory], "ml.clary.local", tmp_path)
    assert (used.cpu_seconds, used.memory) == (2.5, GIB - GIB // 4)


def test_the_limit_is_the_instance_types_unless_the_machine_has_less(tmp_path: Path) -> None:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert measure([], [], "ml.t2.medium", tmp_path).memory_limit == min(4 * GIB, machine)
    assert measure([], [], "ml.p5.48xlarge", tmp_path).memory_limit == machine
