"""Batch transform whose containers are containers, of a pipeline and with a role that may not do everything."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Clary, model_archive, running_on_docker, wait_until
from tests.acceptance.test_transform import SERVE, log, outputs, request, run, wait
from tests.acceptance.test_transform_kill import agent, journal
from tests.containers import BIND_LABEL, build, docker, needs_docker

pytestmark = [pytest.mark.acceptance, needs_docker]


@pytest.fixture(scope="module")
def image() -> str:
    server = SERVE.replace('("127.0.0.1", int(', '("0.0.0.0", int(')
    return build("clary/test-batch:1", {"server.py": server}, f"LABEL {BIND_LABEL}=true", 'ENTRYPOINT ["/server.py"]')


@pytest.fixture(scope="module")
def clary() -> Iterator[Clary]:
    with running_on_docker() as started:
        started.client("s3").create_bucket(Bucket="out")
        yield started


def model(clary: Clary, name: str, image: str, role: str, number: int = 1, **environment: str) -> dict[str, Any]:
    url = clary.upload(f"{name}/model.tar.gz", model_archive(name), "archives")
    containers = [{"Image": image, "ModelDataUrl": url, "Environment": environment}] * number
    clary.client("sagemaker").create_model(ModelName=name, Containers=containers, ExecutionRoleArn=role)
    return {"ModelName": name}


def role(clary: Clary, name: str, tmp_path: Path, *statements: tuple[str, str]) -> str:
    policy = tmp_path / f"{name}.json"
    allowed = [{"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in statements]
    policy.write_text(json.dumps({"Version": "2012-10-17", "Statement": allowed}))
    made = clary.clary("roles", "create", name, "--policy", str(policy))
    assert made.returncode == 0, made.stderr
    return f"arn:aws:iam::000000000000:role/{name}"


def test_a_pipeline_on_two_instances_survives_kills(clary: Clary, image: str, tmp_path: Path) -> None:
    may = (("s3:*", "arn:aws:s3:::models"), ("s3:GetObject", "*"), ("s3:*", "arn:aws:s3:::out/*"))
    for number in range(30):  # enough to be still at work when it is looked at
        clary.upload(f"docked/{number:02}.csv", b"1,%d\n" % number * 5)
    arn = role(clary, "batch", tmp_path, *may)
    named = model(clary, "docked", image, arn, 2, PAUSE="0.1")
    given = request("docked", "s3://models/docked/", BatchStrategy="SingleRecord", **named)
    given["TransformResources"]["InstanceCount"] = 2
    clary.client("sagemaker").create_transform_job(**given)
    wait_until(lambda: journal(clary) > 1 and len(clary.containers("docked")) == 4, "it works", clary.output)
    os.kill(agent(clary), signal.SIGKILL)
    clary.kill_control()
    docker("kill", clary.containers("docked")[0])
    described = wait(clary, "docked")
    assert described["TransformJobStatus"] == "Completed", described
    assert outputs(clary, "docked") == {f"{number:02}.csv.out": b"4,%d\n" % (4 * number) * 5 for number in range(30)}
    assert any("request of" in line for line in log(clary, "docked"))
    wait_until(lambda: not clary.containers("docked"), "the containers are gone", clary.output)


def test_a_job_may_what_its_models_role_may(clary: Clary, image: str, tmp_path: Path) -> None:
    clary.upload("secret/in.csv", b"1\n")
    reads = (("s3:*", "arn:aws:s3:::models"), ("s3:GetObject", "*"))
    named = model(clary, "reader", image, role(clary, "reader", tmp_path, *reads))
    described = run(clary, request("reader", "s3://models/secret/", **named))
    assert described["TransformJobStatus"] == "Failed"
    assert "s3://out/reader/in.csv.out: the store refuses access to it" in described["FailureReason"]
    assert outputs(clary, "reader") == {}
    may = (("s3:GetObject", "arn:aws:s3:::archives/*"), ("s3:*", "arn:aws:s3:::out/*"))
    named = model(clary, "own", image, role(clary, "own", tmp_path, *may))
    described = run(clary, request("own", "s3://models/secret/", **named))
    assert "s3://models/secret/: the store refuses access to it" in described["FailureReason"]
