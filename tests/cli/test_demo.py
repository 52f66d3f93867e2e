"""demo: the steps it takes, what it starts and stops, and what it leaves."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from clary.cli import demo, training
from tests.cli.conftest import ABSENT, FakeClary

Run = Callable[..., Result]
SERVES = (200, {"EndpointName": "demo-iris", "EndpointConfigName": "c", "EndpointStatus": "InService"})


@pytest.fixture(autouse=True)
def trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training has its own tests: here the model is two files."""

    def train(python: Path, out: Path) -> dict[str, object]:
        (out / "code").mkdir(parents=True, exist_ok=True)
        (out / "model.joblib").write_text("model")
        (out / "code" / "inference.py").write_text("code")
        return {"accuracy": 0.978, "held_out": 45}

    monkeypatch.setattr(training, "training_python", lambda *_: Path(sys.executable))
    monkeypatch.setattr(training, "train", train)


def test_it_goes_all_the_way_and_deletes_its_endpoint(clary: FakeClary, run: Run) -> None:
    clary.operations["DescribeEndpoint"] = [ABSENT, SERVES, ABSENT]
    result = run("demo", "--data", clary.data)
    assert result.exit_code == 0, result.stderr
    assert [name for name in clary.names() if name != "DescribeEndpoint"] == [
        "CreateModel",
        "CreateEndpointConfig",
        "CreateEndpoint",
        "InvokeEndpoint",
        "DeleteEndpoint",
        "DeleteEndpointConfig",
        "DeleteModel",
    ]
    assert dict(clary.calls)["InvokeEndpoint"] == {"instances": [demo.MEASUREMENT]}
    out = result.stdout
    assert f"Using the Clary at {clary.url}" in out and "Stop Clary" not in out
    assert f"Request  {json.dumps({'instances': [demo.MEASUREMENT]})}" in out
    assert 'Answer   {"predictions": ["versicolor"]}' in out
    assert f"All that stays is in {clary.data}" in out


def test_every_step_is_timed_and_has_its_aws_command(clary: FakeClary, run: Run) -> None:
    clary.operations["DescribeEndpoint"] = [ABSENT, SERVES, ABSENT]
    out = run("demo", "--data", clary.data).stdout
    done = [line for line in out.splitlines() if line.startswith("✓")]
    assert [line[2:30].strip() for line in done] == [
        "Prepare scikit-learn",
        "Train on the iris data",
        "Pack",
        "Upload",
        "Create",
        "Wait until it serves",
        "Invoke",
        "Delete the endpoint",
    ]
    assert all(" s  " in line for line in done)
    commands = [line.removeprefix("$ ").split(" --")[0] for line in out.splitlines() if line.startswith("$ aws")]
    assert [command for command in commands if "aws s3" not in command] == [
        "aws sagemaker create-model",
        "aws sagemaker create-endpoint-config",
        "aws sagemaker create-endpoint",
        "aws sagemaker wait endpoint-in-service",
        "aws sagemaker-runtime invoke-endpoint",
        "aws sagemaker delete-endpoint",
    ]


def test_the_endpoint_of_an_interrupted_demo_is_replaced(clary: FakeClary, run: Run) -> None:
    clary.operations["DescribeEndpoint"] = [SERVES, ABSENT, SERVES, ABSENT]
    assert run("demo", "--data", clary.data).exit_code == 0
    assert clary.names().count("DeleteEndpoint") == 2


def test_a_running_clary_is_used_and_else_a_folder_of_its_own(
    clary: FakeClary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert demo.choose_folder(None) == Path("~/.clary-demo").expanduser()
    assert demo.choose_folder(tmp_path) == tmp_path
    monkeypatch.setenv("CLARY_DATA", str(tmp_path / "other"))
    assert demo.choose_folder(None) == tmp_path / "other"
    monkeypatch.delenv("CLARY_DATA")
    Path("~").expanduser().mkdir()
    Path("~/.clary").expanduser().symlink_to(clary.data)
    assert demo.choose_folder(None) == Path("~/.clary").expanduser()


def test_a_clary_that_cannot_start_is_told_with_its_last_words(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "up_command", lambda _: [sys.executable, "-c", "import sys; sys.exit('clary: no room')"])
    result = run("demo", "--data", data)
    assert result.exit_code == 1
    assert "Clary ended with 1 at its start: clary: no room (all in " in result.stderr
    assert "✗ Start Clary" in result.stdout


STUB = """
import json, os, signal, sys
run, pid, ended = sys.argv[1:]
open(pid, "w").write(str(os.getpid()))
signal.signal(signal.SIGTERM, lambda *_: (open(ended, "w").close(), sys.exit()))
os.rename(run + ".hidden", run)
record = json.load(open(run))
json.dump({**record, "pid": os.getpid()}, open(run, "w"))
signal.pause()
"""


def test_a_clary_that_it_started_is_stopped_also_when_a_step_fails(
    clary: FakeClary, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record = clary.data / "run" / "clary.json"
    record.rename(f"{record}.hidden")  # the stub brings it back: that is its start
    stub = [sys.executable, "-c", STUB, str(record), str(tmp_path / "pid"), str(tmp_path / "ended")]
    monkeypatch.setattr(demo, "up_command", lambda _: stub)
    failed = (200, {**SERVES[1], "EndpointStatus": "Failed", "FailureReason": "ping answered 500"})
    clary.operations["DescribeEndpoint"] = [ABSENT, failed]
    result = run("demo", "--data", clary.data)
    assert result.exit_code == 1
    assert "ping answered 500" in result.stderr
    assert "✓ Start Clary" in result.stdout and "✓ Stop Clary" in result.stdout
    assert (tmp_path / "ended").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
