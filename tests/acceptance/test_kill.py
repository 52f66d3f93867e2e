"""`kill -9` of any process, at any moment: nothing acknowledged is lost, no model is restarted, no invocation fails."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from botocore.config import Config

from tests.acceptance.conftest import IMAGE, Clary, model_processes, wait_until

pytestmark = pytest.mark.acceptance


class Traffic:
    """Invokes without pause and without retries, and keeps every failure."""

    def __init__(self, clary: Clary, name: str, **members: str) -> None:
        self.failures: list[BaseException] = []
        self.answers = 0
        self.pids: set[int] = set()
        self._stop = threading.Event()
        self._clary, self._asked = clary, {"EndpointName": name, **members}
        self._runtime = clary.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                answer = self._runtime.invoke_endpoint(**self._asked, Body=b"x")
                self.pids.add(json.loads(answer["Body"].read())["pid"])
                self.answers += 1
            except Exception as error:
                self.failures.append(error)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_control_killed_while_serving(own_clary: Clary) -> None:
    own_clary.create("steady", count=2)
    own_clary.wait("steady")
    sagemaker = own_clary.client("sagemaker")
    with Traffic(own_clary, "steady") as traffic:
        for number in range(3):
            sagemaker.create_model(ModelName=f"before-kill-{number}", PrimaryContainer={"Image": IMAGE})
            own_clary.kill_control()
            assert sagemaker.describe_endpoint(EndpointName="steady")["EndpointStatus"] == "InService"
        time.sleep(8)  # long enough for the new control plane to have pinged and reconciled
        wait_until(lambda: traffic.answers > 100 or bool(traffic.failures), "there is traffic", own_clary.output)
    assert traffic.failures == []
    assert len(traffic.pids) == 2, "the models were restarted"
    listed = {model["ModelName"] for model in sagemaker.list_models(NameContains="before-kill")["Models"]}
    assert listed == {"before-kill-0", "before-kill-1", "before-kill-2"}


def test_control_killed_during_create(own_clary: Clary) -> None:
    for number in range(5):
        own_clary.create(f"c{number}", LOAD_SECONDS="0.5")
        time.sleep(0.15 * number)
        own_clary.kill_control()
    for number in range(5):
        own_clary.wait(f"c{number}")
        assert own_clary.invoke(f"c{number}")["name"] == f"c{number}"
    assert len(model_processes(own_clary)) == 5


def test_control_killed_during_delete(own_clary: Clary) -> None:
    for number in range(3):
        own_clary.create(f"d{number}")
    for number in range(3):
        own_clary.wait(f"d{number}")
    sagemaker = own_clary.client("sagemaker")
    for number in range(3):
        sagemaker.delete_endpoint(EndpointName=f"d{number}")
        own_clary.kill_control()
    wait_until(lambda: sagemaker.list_endpoints()["Endpoints"] == [], "all endpoints are gone", own_clary.output)
    wait_until(lambda: not model_processes(own_clary), "all models are gone", own_clary.output)


def test_everything_killed_and_started_again(own_clary: Clary) -> None:
    own_clary.create("survivor")
    own_clary.wait("survivor")
    pid = own_clary.invoke("survivor")["pid"]
    own_clary.process.send_signal(signal.SIGKILL)
    own_clary.process.wait()
    wait_until(lambda: _gone(own_clary), "the children end with their supervisor", own_clary.output)
    (own_clary.data / "run" / "clary.json").unlink()
    own_clary.start()
    assert own_clary.invoke("survivor")["pid"] == pid


def test_a_gateway_that_is_killed_is_started_again(own_clary: Clary) -> None:
    own_clary.create("front")
    own_clary.wait("front")
    killed = own_clary.child("clary.server gateway")
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: "killed by SIGKILL" in own_clary.output(), "the end is noticed", own_clary.output)
    assert '"name": "gateway-0"' in own_clary.output()
    wait_until(lambda: _answers(own_clary), "the gateway is back", own_clary.output)


def test_a_clean_stop_leaves_no_process_and_a_start_brings_the_endpoints_back(own_clary: Clary) -> None:
    own_clary.create("back")
    own_clary.wait("back")
    own_clary.process.terminate()
    assert own_clary.process.wait(300) == 0
    assert model_processes(own_clary) == []
    own_clary.start()
    wait_until(lambda: _answers(own_clary, "back"), "the model serves again", own_clary.output)


def _answers(clary: Clary, name: str = "front") -> bool:
    try:
        return bool(clary.invoke(name))
    except Exception:
        return False


def _gone(clary: Clary) -> bool:
    marker = str(clary.data).encode()
    for process in Path("/proc").glob("[0-9]*/environ"):
        try:
            if b"CLARY_DATA=" + marker in process.read_bytes():
                return False
        except OSError:
            continue
    return True
