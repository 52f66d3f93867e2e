"""What models take and may take: measured, estimated, refused, given back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clary.serving.multimodel.memory import FIRST_GUESS, MIB, Budget, for_models, group_limits, own, size_of

from .conftest import Many

BIG = """
def model_fn(model_dir):
    return bytearray(b"x") * (45 * 1024 * 1024)
def predict_fn(data, model):
    return len(model)
"""

GROWING = """
import time
def model_fn(model_dir):
    kept = []
    for _ in range(600):
        kept.append(bytearray(b"x") * (4 * 1024 * 1024))
        time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def small(launch_many: Callable[..., Many]) -> Many:
    """A server with room for two small models, or one big."""
    return launch_many(CLARY_SERVING_MODEL_MEMORY_MB="64")


class TestBudgetOfAServer:
    def test_what_does_not_fit_beside_others_is_a_507_until_they_have_gone(self, small: Many) -> None:
        small.add("first", BIG)
        small.write("second", BIG)
        status, said = small.load("second")
        assert (status, said["code"], said["type"]) == (507, 507, "InternalServerException")
        assert small.names() == ["first"]
        assert small.invoke("first") == (200, 45 * MIB)
        assert small.invoke("second")[0] == 404
        assert small.unload("first")[0] == 200
        assert small.load("second")[0] == 200
        assert small.unload("second")[0] == 200

    def test_one_that_was_here_before_is_refused_without_being_loaded(self, small: Many, tmp_path: Path) -> None:
        loads = tmp_path / "loads"
        small.add("third", f"open({str(loads)!r}, 'a').write('.')\n{BIG}")
        assert small.unload("third")[0] == 200
        small.add("first", BIG)
        assert small.load("third")[0] == 507
        assert loads.read_text() == "."
        assert small.unload("first")[0] == 200

    def test_one_that_grows_too_large_is_ended_while_it_loads(self, small: Many) -> None:
        small.write("growing", GROWING)
        status, said = small.load("growing")
        assert (status, small.names()) == (507, [])
        assert "takes more memory than there is" in said["message"]

    def test_a_number_that_is_none_ends_the_server(self, python: Path, pythonpath: Path) -> None:
        variables = {"PYTHONPATH": str(pythonpath), "SAGEMAKER_MULTI_MODEL": "true"}
        done = subprocess.run(
            [python, "-m", "clary_serving", "serve"],
            env={**variables, "CLARY_SERVING_MODEL_MEMORY_MB": "much"}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 1
        assert "are whole numbers: invalid literal" in done.stderr


class TestBudget:
    def test_a_model_is_expected_to_take_its_files_and_a_process(self) -> None:
        budget = Budget(30 * MIB)
        assert budget.admit("a", "a", 10 * MIB)
        assert budget.held("a") == 10 * MIB + FIRST_GUESS
        assert not budget.admit("b", "b", 10 * MIB)
        assert budget.admit("c", "c", MIB)

    def test_or_what_it_took_the_last_time(self) -> None:
        budget = Budget(30 * MIB)
        budget.hold("a", "a", 20 * MIB)
        budget.release("a")
        assert budget.admit("b", "b", MIB)
        budget.hold("b", "b", 15 * MIB)
        assert not budget.admit("a", "a", 0)
        budget.hold("b", "b", 9 * MIB)
        assert budget.admit("a", "a", 0)

    def test_one_that_is_being_loaded_keeps_what_was_set_aside_for_it(self) -> None:
        budget = Budget(30 * MIB)
        budget.hold("a", "a", 8 * MIB)
        assert budget.admit("b", "b", 12 * MIB)
        budget.grow("b", "b", MIB)
        assert budget.held("b") == 20 * MIB
        budget.grow("b", "b", 23 * MIB)
        assert budget.over
        budget.release("b")
        assert not budget.admit("b", "b", 0)

    def test_each_process_of_a_model_is_expected_to_take_as_much(self) -> None:
        budget = Budget(60 * MIB, processes=2)
        assert budget.admit("a", "a", 10 * MIB)
        assert budget.held("a") == 2 * (10 * MIB + FIRST_GUESS)

    def test_alone_every_model_is_tried(self) -> None:
        budget = Budget(30 * MIB)
        assert budget.admit("a", "a", 100 * MIB)
        assert not budget.over
        budget.hold("a", "a", 31 * MIB)
        assert budget.over


class TestMeasuring:
    def test_what_a_process_has_for_itself(self) -> None:
        script = """
import os, time
shared = bytearray(b"x") * (40 * 1024 * 1024)
if os.fork() == 0:
    mine = bytearray(b"x") * (10 * 1024 * 1024)
    print(os.getpid(), flush=True)
    time.sleep(60)
os.wait()
"""
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            assert 10 * MIB <= own(child) < 20 * MIB
            os.kill(child, 9)
        assert own(child) == 0

    def test_the_files_of_a_model(self, tmp_path: Path) -> None:
        (tmp_path / "code").mkdir()
        (tmp_path / "code" / "a").write_bytes(b"12345")
        (tmp_path / "b").write_bytes(b"123")
        assert size_of(tmp_path) == 8


class TestLimits:
    def groups(self, tmp_path: Path, text: str, **files: str) -> list[int]:
        (tmp_path / "groups").write_text(text)
        for name, value in files.items():
            path = tmp_path / "fs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(value)
        return group_limits(tmp_path / "groups", tmp_path / "fs")

    def test_of_the_group_and_those_around_it(self, tmp_path: Path) -> None:
        files = {"a/b/memory.max": "max\n", "a/memory.max": "2000\n", "memory.max": "9000"}
        assert self.groups(tmp_path, "0::/a/b\n", **files) == [2000, 9000]

    def test_of_version_1(self, tmp_path: Path) -> None:
        files = {"memory/a/memory.limit_in_bytes": "3000"}
        assert self.groups(tmp_path, "5:cpu,cpuacct:/x\n4:memory:/a\n0::/\n", **files) == [3000]

    def test_no_groups_no_limit(self, tmp_path: Path) -> None:
        assert group_limits(tmp_path / "nothing", tmp_path) == []

    def test_the_platforms_word_counts_where_it_is_less(self) -> None:
        less = for_models({"CLARY_SERVING_MEMORY_MB": "2000"}, helpers=0)
        assert 1000 * MIB < less < 1800 * MIB
        assert for_models({"CLARY_SERVING_MEMORY_MB": "2000"}, helpers=4) == pytest.approx(less - 64 * MIB, abs=8 * MIB)
        assert for_models({"CLARY_SERVING_MEMORY_MB": "1"}, helpers=0) == 0

    def test_and_the_users_is_taken_as_it_is(self) -> None:
        assert for_models({"CLARY_SERVING_MODEL_MEMORY_MB": "123"}, helpers=4) == 123 * MIB
