"""A whole Clary whose models are containers, with real clients outside and inside of them."""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore
import dateutil
import jmespath
import pytest
import s3transfer
import six
import urllib3

from tests.acceptance.conftest import ROLE, Clary, model_archive, running, running_on_docker, wait_until
from tests.containers import build, docker, needs_docker

pytestmark = [pytest.mark.acceptance, needs_docker]

SERVER = """\
#!/usr/bin/env python3
import http.server, json, os, pathlib

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body == b"die":
            os._exit(3)
        name = pathlib.Path("/opt/ml/model/name.txt").read_text()
        self.answer(ask_aws() if body == b"aws" else {"got": body.decode(), "pid": os.getpid(), "name": name})

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

def ask_aws():
    import boto3, botocore
    said = {"who": boto3.client("sts").get_caller_identity()["Arn"], "method": boto3.Session().get_credentials().method}
    s3 = boto3.client("s3")
    said["size"] = len(s3.get_object(Bucket="models", Key="docker/model.tar.gz")["Body"].read())
    try:
        s3.put_object(Bucket="models", Key="docker/other", Body=b"")
    except botocore.exceptions.ClientError as error:
        said["refused"] = error.response["Error"]["Code"]
    return said

print("up and listening", flush=True)
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""
_SERVICES = ("s3", "sts")


def _site() -> bytes:
    """Pack boto3 and what it needs for the services that the model asks."""
    buffer = io.BytesIO()

    def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        parts = Path(member.name).parts
        is_service = parts[:2] == ("botocore", "data") and len(parts) > 2 and "." not in parts[2]
        return None if "__pycache__" in parts or (is_service and parts[2] not in _SERVICES) else member

    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for package in (boto3, botocore, dateutil, jmespath, s3transfer, urllib3):
            assert package.__file__ is not None
            archive.add(Path(package.__file__).parent, package.__name__, filter=wanted)
        archive.add(six.__file__, "six.py")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def image() -> str:
    add = "ADD site.tar /usr/lib/python3/dist-packages/"
    return build("clary/test-model:1", {"server.py": SERVER, "site.tar": _site()}, add, 'ENTRYPOINT ["/server.py"]')


@pytest.fixture
def clary() -> Iterator[Clary]:
    with running_on_docker() as started:
        yield started


def create(clary: Clary, name: str, image: str, role: str = ROLE, **variant: Any) -> None:
    sagemaker = clary.client("sagemaker")
    url = clary.upload("docker/model.tar.gz", model_archive(name))
    sagemaker.create_model(
        ModelName=name, PrimaryContainer={"Image": image, "ModelDataUrl": url}, ExecutionRoleArn=role
    )
    shape = {"VariantName": "A", "ModelName": name, "InstanceType": "ml.clary.local", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[{**shape, **variant}])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)


def test_the_aws_cli_takes_an_image_to_an_answer(clary: Clary, image: str, tmp_path: Path) -> None:
    def aws(*arguments: str) -> str:
        done = clary.aws(*arguments)
        assert done.returncode == 0, f"aws {' '.join(arguments)}\n{done.stdout}{done.stderr}\n{clary.output()}"
        return done.stdout

    assert "Engine   docker" in clary.banner()
    url = clary.upload("docker/model.tar.gz", model_archive("cli"))
    container = f"Image={image},ModelDataUrl={url}"
    aws("sagemaker", "create-model", "--model-name", "cli", "--primary-container", container,
        "--execution-role-arn", ROLE)  # fmt: skip
    variant = "VariantName=A,ModelName=cli,InstanceType=ml.m5.large,InitialInstanceCount=2"
    aws("sagemaker", "create-endpoint-config", "--endpoint-config-name", "cli", "--production-variants", variant)
    aws("sagemaker", "create-endpoint", "--endpoint-name", "cli", "--endpoint-config-name", "cli")
    clary.wait("cli")
    described = json.loads(aws("sagemaker", "describe-endpoint", "--endpoint-name", "cli"))
    deployed = described["ProductionVariants"][0]["DeployedImages"][0]
    assert deployed["SpecifiedImage"] == image
    assert deployed["ResolvedImage"].startswith("clary/test-model@sha256:")
    (tmp_path / "body").write_text("1,2")
    out = tmp_path / "answer.json"
    aws(
        "sagemaker-runtime", "invoke-endpoint", "--endpoint-name", "cli", "--body", f"fileb://{tmp_path}/body", str(out)
    )
    said = json.loads(out.read_text())
    assert (said["got"], said["name"], said["pid"]) == ("1,2", "cli", 1)
    wait_until(
        lambda: clary.clary("logs", "cli").stdout.count("up and listening") == 2, "both have a log", clary.output
    )
    aws("sagemaker", "delete-endpoint", "--endpoint-name", "cli")
    clary.client("sagemaker").get_waiter("endpoint_deleted").wait(
        EndpointName="cli", WaiterConfig={"Delay": 1, "MaxAttempts": 300}
    )
    assert not clary.containers("cli")


def test_boto3_inside_of_a_container_has_the_credentials_of_its_role(clary: Clary, image: str, tmp_path: Path) -> None:
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::models/*"}
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"Version": "2012-10-17", "Statement": statement}))
    role = clary.clary("roles", "create", "model", "--policy", str(policy)).stdout.strip()
    create(clary, "roles", image, role)
    clary.wait("roles")
    said = clary.invoke("roles", b"aws")
    assert said["method"] == "container-role"
    assert said["who"].startswith("arn:aws:sts::000000000000:assumed-role/model/i-")
    assert said["size"] == len(model_archive("roles"))
    assert said["refused"] == "AccessDenied"
    clary.delete("roles")


def test_containers_are_adopted_by_the_next_control_plane(clary: Clary, image: str) -> None:
    create(clary, "adopted", image)
    clary.wait("adopted")
    before = clary.containers("adopted")
    clary.kill_control()
    assert clary.invoke("adopted")["got"] == "hello"
    clary.client("sagemaker").describe_endpoint(EndpointName="adopted")
    assert clary.containers("adopted") == before
    clary.delete("adopted")


def test_a_container_that_is_removed_behind_clarys_back_is_replaced(clary: Clary, image: str) -> None:
    create(clary, "replaced", image)
    clary.wait("replaced")
    before = clary.containers("replaced")
    docker("rm", "-f", *before)
    wait_until(lambda: bool(set(clary.containers("replaced")) - set(before)), "another takes its place", clary.output)
    clary.wait("replaced")

    def answers() -> bool:
        try:
            return bool(clary.invoke("replaced")["got"] == "hello")
        except clary.client("sagemaker-runtime").exceptions.ClientError:
            return False

    wait_until(answers, "it answers again", clary.output)
    clary.delete("replaced")


def test_what_belongs_to_nothing_is_removed_at_the_next_start(clary: Clary, image: str) -> None:
    create(clary, "orphan", image)
    clary.wait("orphan")
    [container] = clary.containers("orphan")
    os.kill(clary.process.pid, signal.SIGKILL)
    clary.process.wait()
    assert clary.containers("orphan") == [container]
    clary._record.unlink()
    (clary.data / "state" / "clary.db").unlink()
    for rest in (clary.data / "state").glob("clary.db-*"):
        rest.unlink()
    clary.start()
    wait_until(lambda: not clary.containers("orphan"), "nobody's container is removed", clary.output)


def test_a_failed_start_says_what_docker_said(clary: Clary) -> None:
    image = build("clary/test-nothing:1", {}, 'CMD ["python3"]')
    create(clary, "nothing", image)
    reason = clary.wait("nothing", "Failed")["FailureReason"]
    assert reason.startswith("CannotStartContainerError. Please ensure the model container for variant A starts")
    assert 'exec: "serve": executable file not found' in reason
    clary.delete("nothing")


def test_auto_takes_docker_where_it_answers_and_processes_where_not(tmp_path: Path) -> None:
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/nobody.sock"}
    for environment, engine in (({}, "docker"), (nowhere, "process")):
        with running("--engine", "auto", environment=environment) as started:
            assert f"Engine   {engine}" in started.banner()


def test_an_asynchronous_request_is_answered_and_one_that_kills_every_container_fails(clary: Clary, image: str) -> None:
    sagemaker, runtime = clary.client("sagemaker"), clary.client("sagemaker-runtime")
    clary.upload("keep", b"", bucket="results")
    url = clary.upload("docker/model.tar.gz", model_archive("later"))
    container = {"Image": image, "ModelDataUrl": url}
    sagemaker.create_model(ModelName="later", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    shape = {"VariantName": "A", "ModelName": "later", "InstanceType": "ml.clary.local", "InitialInstanceCount": 1}
    output = {"S3OutputPath": "s3://results/out", "S3FailurePath": "s3://results/failed"}
    sagemaker.create_endpoint_config(
        EndpointConfigName="later", ProductionVariants=[shape], AsyncInferenceConfig={"OutputConfig": output}
    )
    sagemaker.create_endpoint(EndpointName="later", EndpointConfigName="later")
    clary.wait("later")
    location = clary.upload("input", b"from an object", bucket="results")
    good = runtime.invoke_endpoint_async(EndpointName="later", InputLocation=location)
    results = clary.data / "s3"
    answer = results / good["OutputLocation"].removeprefix("s3://")
    wait_until(answer.exists, "the answer is there", clary.output)
    assert json.loads(answer.read_text())["got"] == "from an object"
    bad = runtime.invoke_endpoint_async(EndpointName="later", Body=b"die")  # alone: it takes along what is beside it
    failure = results / bad["FailureLocation"].removeprefix("s3://")
    wait_until(failure.exists, "the failure is there", clary.output)
    assert "could not get a response from the later endpoint" in failure.read_text()
    after = runtime.invoke_endpoint_async(EndpointName="later", Body=b"still here")
    later = results / after["OutputLocation"].removeprefix("s3://")
    wait_until(later.exists, "the next one is answered", clary.output)
    clary.delete("later")
