"""The server's life: what it answers when, how it ends, what it says when it cannot start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .conftest import PATIENCE, Launch, Server

PID = """
import os, time
def model_fn(model_dir): return os.getpid()
def predict_fn(data, model): return model
"""

GATED = """
import os, time
def model_fn(model_dir):
    open(os.path.join(model_dir, "loading"), "w").close()
    while not os.path.exists(os.path.join(model_dir, "go")):
        time.sleep(0.01)
def predict_fn(data, model): return data
"""


@pytest.fixture(scope="module")
def pair(launch: Launch) -> Server:
    return launch(PID, SAGEMAKER_MODEL_SERVER_WORKERS="2")


def wait_for(server: Server, text: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while text not in server.log:
        assert time.monotonic() < deadline, server.log
        time.sleep(0.05)


def wait_until_gone(workers: list[int]) -> None:
    """Wait until processes are no more; one that was still loading is killed, and buried by another."""
    deadline = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


class TestRoutes:
    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/ping", 200),
            ("POST", "/ping", 405),
            ("GET", "/invocations", 405),
            ("GET", "/execution-parameters", 404),
            ("GET", "/models", 404),
            ("GET", "/", 404),
        ],
    )
    def test_the_contracts_paths_and_no_others(self, pair: Server, method: str, path: str, status: int) -> None:
        assert pair.request(method, path)[0] == status

    def test_connections_are_kept(self, pair: Server) -> None:
        assert pair.request("GET", "/ping")[2]["connection"] == "keep-alive"

    def test_a_quiet_server_logs_nothing(self, pair: Server) -> None:
        pair.invoke("[]")
        assert pair.log == ""


class TestWorkers:
    def test_each_has_its_own_model_and_all_serve(self, pair: Server) -> None:
        seen: set[int] = set()
        deadline = time.monotonic() + PATIENCE
        with ThreadPoolExecutor(8) as pool:
            while len(seen) < 2 and time.monotonic() < deadline:
                seen |= set(pool.map(lambda _: json.loads(pair.invoke("[]")[1]), range(16)))
        assert seen == set(pair.workers())

    def test_as_many_as_cpus_by_default(self, launch: Launch) -> None:
        server = launch(PID, SAGEMAKER_MODEL_SERVER_WORKERS="", SM_NUM_CPUS="3")
        assert len(server.workers(3)) == 3
        server.stop()

    def test_a_worker_that_is_killed_is_replaced(self, launch: Launch) -> None:
        server = launch(PID)
        (first,) = server.workers()
        os.kill(first, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while server.workers() == [first]:
            assert time.monotonic() < deadline, server.log
            time.sleep(0.05)
        assert json.loads(server.invoke("[]")[1]) == server.workers()[0] != first
        server.stop()


class TestLoading:
    def test_ping_is_not_answered_before_the_model_is_loaded(self, launch: Launch) -> None:
        server = launch(GATED, wait=False)
        self.wait_until_loading(server)
        with pytest.raises(TimeoutError):
            server.request("GET", "/ping", timeout=0.3)
        (server.model_dir / "go").touch()
        server.wait_until_loaded()
        server.stop()

    def test_sigterm_while_loading_ends_it(self, launch: Launch) -> None:
        server = launch(GATED, wait=False)
        self.wait_until_loading(server)
        workers = server.workers()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
        wait_until_gone(workers)

    def test_a_model_fn_that_raises_ends_the_server_with_its_traceback_once(self, launch: Launch) -> None:
        script = "def model_fn(model_dir):\n    raise FileNotFoundError('no weights here')\n"
        # So many that several fail while the server is already ending for the first.
        server = launch(script, wait=False, SAGEMAKER_MODEL_SERVER_WORKERS="12")
        assert server.process.wait(PATIENCE) == 3
        assert 'code/inference.py", line 2, in model_fn' in server.log
        assert server.log.count("FileNotFoundError: no weights here\n") == 2  # the traceback's and the summary's

    @pytest.mark.parametrize(
        ("script", "told"),
        [
            ("import not_installed_here", "No module named 'not_installed_here'"),
            ("def model_fn(:", "SyntaxError"),
            ("import sys; sys.exit('never mind')", "SystemExit: never mind"),
            ("import os; os._exit(9)", "A worker ended while it was loading the model."),
            ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ],
    )
    def test_every_other_failure_ends_it_too(self, launch: Launch, script: str, told: str) -> None:
        server = launch(script, wait=False)
        assert server.process.wait(PATIENCE) == 3
        assert told in server.log

    def test_a_missing_script_is_explained(self, launch: Launch) -> None:
        files = {"model/code/inference.py": b"", "model/model.joblib": b""}
        server = launch(files=files, wait=False, CLARY_SERVING_FRAMEWORK="sklearn")
        assert server.process.wait(PATIENCE) == 3
        assert "code/inference.py is not in its files" in server.log
        assert "tar -C model -czf model.tar.gz ." in server.log
        assert "Traceback" not in server.log

    def test_a_missing_model_fn_is_explained(self, launch: Launch) -> None:
        server = launch("def predict_fn(x, m): return x", wait=False, CLARY_SERVING_FRAMEWORK="sklearn")
        assert server.process.wait(PATIENCE) == 3
        assert "code/inference.py does not define model_fn(model_dir)" in server.log

    def test_a_setting_that_is_no_number_is_named(self, launch: Launch) -> None:
        server = launch(PID, wait=False, SAGEMAKER_MODEL_SERVER_WORKERS="many")
        assert server.process.wait(PATIENCE) == 1
        assert "SAGEMAKER_MODEL_SERVER_WORKERS is 'many'" in server.log

    def wait_until_loading(self, server: Server) -> None:
        deadline = time.monotonic() + PATIENCE
        while not (server.model_dir / "loading").exists():
            assert time.monotonic() < deadline, server.log
            time.sleep(0.02)


def test_it_takes_the_one_word_that_a_container_gets(python: Path, pythonpath: Path) -> None:
    command = [python, "-m", "clary_serving", "train"]
    done = subprocess.run(command, env={"PYTHONPATH": str(pythonpath)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "usage: python -m clary_serving serve" in done.stderr


class TestStopping:
    def test_sigterm_ends_master_and_workers(self, launch: Launch) -> None:
        server = launch(PID, SAGEMAKER_MODEL_SERVER_WORKERS="2")
        workers = server.workers(2)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
        wait_until_gone(workers)

    def test_an_invocation_under_way_is_finished_first(self, launch: Launch) -> None:
        server = launch(
            "import time\n"
            "def model_fn(d): return d\n"
            "def predict_fn(x, d):\n"
            "    print('begun', flush=True)\n"
            "    time.sleep(0.5)\n"
            "    return 'done'\n"
        )
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(server.invoke, "[]")
            wait_for(server, "begun")
            server.process.send_signal(signal.SIGTERM)
            assert answer.result()[:2] == (200, b'"done"')
        assert server.process.wait(PATIENCE) == 0
