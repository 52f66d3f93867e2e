"""What models have to do with each other: nothing. Loads, crashes, slowness, module names."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from .conftest import PID, Many, until

SPOKEN = """
import helper
def model_fn(model_dir): return helper.WORD
def predict_fn(data, model): return model
"""

GATED = """
import os, time
def model_fn(model_dir):
    open(os.path.join(model_dir, "loading"), "w").close()
    while not os.path.exists(os.path.join(model_dir, "go")):
        time.sleep(0.01)
def predict_fn(data, model): return "gone through"
"""

FRAGILE = """
import os
def model_fn(model_dir): return model_dir
def predict_fn(data, model):
    if data.tolist() == [1]:
        os._exit(7)
    if data.tolist() == [2]:
        os.remove(os.path.join(model, "code", "inference.py"))
        os.kill(os.getpid(), 11)
    return os.getpid()
"""

HANGING = """
def model_fn(model_dir): return model_dir
def predict_fn(data, model): return wait(model)
"""

SLOW = """
import time
def model_fn(model_dir): return None
def predict_fn(data, model):
    print("begun", flush=True)
    time.sleep(0.4)
    return "done"
"""


class TestModules:
    def test_modules_of_the_same_name_do_not_mix(self, many: Many) -> None:
        for word in ("yes", "no"):
            many.add(word, SPOKEN, {"code/helper.py": f"WORD = {word!r}"})
        assert [many.invoke(word)[1] for word in ("yes", "no", "yes")] == ["yes", "no", "yes"]

    def test_a_model_that_comes_back_with_other_code_has_that(self, many: Many) -> None:
        many.add("one", SPOKEN, {"code/helper.py": "WORD = 'old'"})
        assert many.unload("one")[0] == 200
        many.add("one", SPOKEN, {"code/helper.py": "WORD = 'newer'"})
        assert many.invoke("one") == (200, "newer")

    def test_the_environment_names_a_models_own_folder(self, many: Many) -> None:
        for name in ("a", "b"):
            many.add(
                name,
                "import os\ndef model_fn(d): return os.environ['SM_MODEL_DIR'] == d\ndef predict_fn(x, m): return m",
            )
            assert many.invoke(name) == (200, True)

    def test_models_have_random_numbers_of_their_own(self, many: Many) -> None:
        script = "import numpy, random\ndef model_fn(d): return [numpy.random.random(), random.random()]\n"
        for name in ("a", "b"):
            many.add(name, script + "def predict_fn(x, m): return m")
        numbers = [number for name in ("a", "b") for number in many.invoke(name)[1]]
        assert len(set(numbers)) == 4


class TestLoads:
    def test_a_long_load_holds_up_no_resident(self, many: Many) -> None:
        many.add("resident", PID)
        gate = many.write("gated", GATED)
        with ThreadPoolExecutor(1) as pool:
            load = pool.submit(many.load, "gated")
            until((gate / "loading").exists)
            assert many.invoke("resident")[0] == 200
            assert many.names() == ["resident"]
            assert many.server.request("GET", "/ping")[0] == 200
            (gate / "go").touch()
            assert load.result()[0] == 200
        assert many.invoke("gated") == (200, "gone through")

    def test_an_invocation_that_comes_too_early_waits(self, many: Many) -> None:
        gate = many.write("gated", GATED)
        with ThreadPoolExecutor(2) as pool:
            load = pool.submit(many.load, "gated")
            until((gate / "loading").exists)
            answer = pool.submit(many.invoke, "gated")
            (gate / "go").touch()
            assert (load.result()[0], answer.result()) == (200, (200, "gone through"))

    def test_an_unload_ends_a_load(self, many: Many) -> None:
        gate = many.write("gated", GATED)
        with ThreadPoolExecutor(1) as pool:
            load = pool.submit(many.load, "gated")
            until((gate / "loading").exists)
            assert many.unload("gated")[0] == 200
            status, said = load.result()
        assert (status, said["message"]) == (500, "Model gated was unloaded while it was loading.")
        (gate / "go").touch()
        assert many.load("gated")[0] == 200

    def test_a_load_that_takes_long_keeps_no_other_from_its_own(self, launch_many: Callable[..., Many]) -> None:
        many = launch_many(CLARY_SERVING_MODEL_LOADS="1")
        gate = many.write("gated", GATED)
        with ThreadPoolExecutor(1) as pool:
            load = pool.submit(many.load, "gated")
            until((gate / "loading").exists)
            many.add("other", PID)
            assert not load.done()
            (gate / "go").touch()
            assert load.result()[0] == 200
        many.server.stop()

    @pytest.mark.parametrize(
        ("script", "status", "told"),
        [
            ("def model_fn(d): raise ValueError('no weights')", 500, "ValueError: no weights\nTraceback"),
            ("import not_installed_here", 500, "code/requirements.txt is not installed"),
            ("def model_fn(:", 500, "SyntaxError"),
            ("import sys; sys.exit('never mind')", 500, "never mind"),
            ("def predict_fn(x, m): return x", 500, "does not define model_fn(model_dir)"),
            ("import os; os._exit(9)", 500, "exited with 9 while it was loading"),
            ("import os; os.kill(os.getpid(), 11)", 500, "was killed by SIGSEGV"),
            ("import os; os.kill(os.getpid(), 9)", 507, "where memory is short"),
            ("def model_fn(d): raise MemoryError", 507, "MemoryError"),
            ("def model_fn(d): raise Exception('\U0001f600' * 50000)", 500, "Exception: \U0001f600"),
            ("def model_fn(d): raise Exception('\\udc80')", 500, "Exception: \udc80"),
        ],
    )
    def test_a_load_that_fails_says_why_and_leaves_nothing(
        self, many: Many, script: str, status: int, told: str
    ) -> None:
        many.write("one", script, {"code/requirements.txt": "left-out"})
        answered, said = many.load("one")
        assert (answered, said["code"]) == (status, status)
        assert told in said["message"]
        assert many.names() == []
        assert (many.invoke("one")[0], many.unload("one")[0]) == (404, 404)
        many.add("one", PID)
        assert many.invoke("one")[0] == 200


class TestCrashes:
    def test_one_that_crashes_harms_no_other_and_comes_back(self, many: Many) -> None:
        many.add("other", PID)
        many.add("fragile", FRAGILE)
        before = many.invoke("fragile")[1], many.invoke("other")[1]
        status, said = many.invoke("fragile", "[1]")
        assert (status, said["message"]) == (500, "Worker died: the process of model fragile has ended.")
        assert many.invoke("other") == (200, before[1])
        assert many.invoke("fragile")[1] != before[0]
        assert many.names() == ["fragile", "other"]
        assert "A process of model fragile exited with 7; it is started again." in many.server.log

    def test_one_that_crashes_all_the_time_is_given_time_between(self, many: Many, tmp_path: Path) -> None:
        loads = tmp_path / "loads"
        script = f"import os, threading, time\nprint(time.time(), file=open({str(loads)!r}, 'a'))\n"
        many.add("short", script + "def model_fn(d): threading.Timer(0.02, os._exit, [1]).start()")
        until(lambda: len(loads.read_text().split()) >= 3)
        times = [float(text) for text in loads.read_text().split()]
        assert all(later - earlier > 0.9 for earlier, later in pairwise(times))

    def test_one_that_cannot_come_back_is_no_longer_loaded(self, many: Many) -> None:
        many.add("fragile", FRAGILE)
        assert many.invoke("fragile", "[2]")[0] == 500
        until(lambda: many.names() == [])
        assert many.invoke("fragile")[0] == 404
        assert "Model fragile does not come back" in many.server.log

    def test_memory_that_is_short_in_an_invocation_is_a_507_of_a_model_that_stays(self, many: Many) -> None:
        script = "def model_fn(d): return 0\ndef predict_fn(x, m):\n    if x.size: raise MemoryError('at 12')\n"
        many.add("one", script)
        status, said = many.invoke("one", "[1]")
        assert (status, said.splitlines()[0]) == (507, "at 12")
        assert many.invoke("one", "[]") == (200, None)

    def test_what_a_script_raises_is_the_toolkits_500(self, many: Many) -> None:
        many.add("one", "def model_fn(d): return 0\ndef predict_fn(x, m): raise ValueError('bad flower')")
        status, said = many.invoke("one")
        assert (status, said.splitlines()[0]) == (500, "bad flower")


class TestUnloading:
    def test_it_gives_the_process_back_and_what_that_started(self, many: Many) -> None:
        script = (
            "import os, subprocess\ndef model_fn(d): return [os.getpid(), subprocess.Popen(['sleep', '300']).pid]\n"
        )
        many.add("one", script + "def predict_fn(x, m): return m")
        pids = many.invoke("one")[1]
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
        assert many.unload("one")[0] == 200
        until(lambda: not any(running(pid) for pid in pids))

    def test_what_it_is_answering_is_finished_first(self, many: Many) -> None:
        many.add("slow", SLOW)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(many.invoke, "slow")
            until(lambda: "begun" in many.server.log)
            assert many.unload("slow")[0] == 200
            assert answer.result() == (200, "done")


class TestManyAtOnce:
    def test_no_answer_from_the_wrong_model(self, many: Many) -> None:
        names = [f"m{number}" for number in range(6)]
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda name: many.add(name, SPOKEN, {"code/helper.py": f"WORD = {name!r}"}), names))
            asked = [names[number % 6] for number in range(120)]
            assert [said for _, said in pool.map(many.invoke, asked)] == asked

    def test_a_queue_before_one_model_holds_up_no_other(self, many: Many) -> None:
        gate = many.write("stuck", None)
        many.add("stuck", GATED.replace("model_fn(model_dir)", "wait(model_dir)") + HANGING)
        many.add("quick", PID)
        with ThreadPoolExecutor(90) as pool:
            answers = [pool.submit(many.invoke, "stuck") for _ in range(90)]
            until((gate / "loading").exists)
            assert many.invoke("quick")[0] == 200
            assert not any(answer.done() for answer in answers)
            (gate / "go").touch()
            assert {answer.result()[0] for answer in answers} == {200}


def test_a_model_that_hangs_takes_no_more_than_its_share_of_the_server(launch_many: Callable[..., Many]) -> None:
    many = launch_many(SM_NUM_CPUS="1")
    gate = many.write("stuck", None)
    many.add("stuck", GATED.replace("model_fn(model_dir)", "wait(model_dir)") + HANGING)
    many.add("quick", PID)
    with ThreadPoolExecutor(130) as pool:
        answers = [pool.submit(many.invoke, "stuck") for _ in range(130)]
        until(lambda: sum(answer.done() for answer in answers) == 30)
        assert many.invoke("quick")[0] == 200
        (gate / "go").touch()
        statuses = [answer.result()[0] for answer in answers]
    assert (statuses.count(200), statuses.count(503)) == (100, 30)
    many.server.stop()


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_each_model_may_have_several_processes(launch_many: Callable[..., Many]) -> None:
    many = launch_many(SAGEMAKER_MODEL_SERVER_WORKERS="2")
    many.add("one", PID)
    pids = {int(worker["id"]) for worker in many.describe("one")[1]["workers"]}
    assert len(pids) == 2
    with ThreadPoolExecutor(4) as pool:
        until(lambda: set(pool.map(lambda _: many.invoke("one")[1], range(8))) == pids)
    os.kill(min(pids), signal.SIGKILL)
    until(
        lambda: (
            len(many.describe("one")[1]["workers"]) == 2
            and json.dumps(min(pids)) not in json.dumps(many.describe("one"))
        )
    )
    assert many.unload("one")[0] == 200
    many.server.stop()
