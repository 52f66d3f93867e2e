"""Three containers on one instance of the Docker engine: Serial, Direct, and a failure in each of their places."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.conftest import ROLE, Clary, model_archive, running_on_docker, wait_until
from tests.containers import BIND_LABEL, build, needs_docker

pytestmark = [pytest.mark.acceptance, needs_docker]

STEPS = ("prepare", "model", "present")
WINDOW = 60
"""Seconds: the least that ContainerStartupHealthCheckTimeoutInSeconds can be."""

SERVER = """\
#!/usr/bin/env python3
import http.server, json, os, pathlib, sys, urllib.request

STEP, TROUBLE = os.environ["STEP"], os.environ.get("TROUBLE")

def prepare(body):
    return "application/json", json.dumps([[float(word) for word in line.split(",")] for line in body.splitlines()])

def model(body):
    weight = float(pathlib.Path("/opt/ml/model/name.txt").read_text())
    return "application/json", json.dumps([weight * sum(row) for row in json.loads(body)])

def present(body):
    return "text/plain", ", ".join("%.1f" % value for value in json.loads(body))

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(503 if TROUBLE == "ping" else 200, "text/plain", "")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if body == "neighbours":
            return self.answer(200, "application/json", json.dumps(neighbours()))
        if self.headers["X-Amzn-SageMaker-Custom-Attributes"] == "break " + STEP:
            return self.answer(500, "text/plain", STEP + " is broken")
        said = globals()[STEP](body)
        print(STEP, "made", said[1], flush=True)
        self.answer(200, *said)

    def answer(self, status, kind, text):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass

class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *whom):
        pass  # on a loaded machine a ping may leave before its answer; the log has nothing of it

def neighbours():
    return [urllib.request.urlopen("http://%s:8080/ping" % name, timeout=5).status for name in STEPS]

STEPS = ("prepare", "model", "present")
print(STEP, "begins", flush=True)
if TROUBLE == "exit":
    sys.exit(STEP + " lacks its weights")
Server(("0.0.0.0", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def image() -> str:
    return build("clary/test-step:1", {"server.py": SERVER}, f"LABEL {BIND_LABEL}=true", 'ENTRYPOINT ["/server.py"]')


@pytest.fixture(scope="module")
def clary() -> Iterator[Clary]:
    with running_on_docker() as started:
        yield started


def create(clary: Clary, name: str, image: str, mode: str = "Serial", **trouble: str) -> None:
    """Create a pipeline; `trouble`: what is wrong, by the step that it befalls."""
    sagemaker = clary.client("sagemaker")
    url = clary.upload("pipeline/model.tar.gz", model_archive("2"))
    containers: list[dict[str, Any]] = [
        {"ContainerHostname": step, "Image": image, "Environment": {"STEP": step, "TROUBLE": trouble.get(step, "")}}
        for step in STEPS
    ]
    containers[1]["ModelDataUrl"] = url
    sagemaker.create_model(
        ModelName=name, Containers=containers, ExecutionRoleArn=ROLE, InferenceExecutionConfig={"Mode": mode}
    )
    variant = {
        "VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.clary.local", "InitialInstanceCount": 1,
        "ContainerStartupHealthCheckTimeoutInSeconds": WINDOW,
    }  # fmt: skip
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)


def invoke(clary: Clary, name: str, body: bytes, **more: Any) -> tuple[str, str]:
    answer = clary.client("sagemaker-runtime").invoke_endpoint(EndpointName=name, Body=body, **more)
    return answer["ContentType"], answer["Body"].read().decode()


def refused(clary: Clary, name: str, body: bytes, **more: Any) -> dict[str, str]:
    """Invoke what has to fail in the model; give the error."""
    with pytest.raises(ClientError) as caught:
        invoke(clary, name, body, **more)
    error = caught.value.response["Error"]
    assert (error["Code"], caught.value.response["OriginalStatusCode"]) == ("ModelError", 500)
    return dict(error)


def failed(clary: Clary, name: str) -> str:
    """Wait until an endpoint has failed, for its window and what the attempts take; say why it has."""
    sagemaker = clary.client("sagemaker")

    def over() -> bool:
        return bool(sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] != "Creating")

    wait_until(over, f"{name} leaves Creating", clary.output, WINDOW + 300)
    return str(clary.wait(name, "Failed")["FailureReason"])


def lines_by_stream(clary: Clary, name: str) -> dict[str, list[str]]:
    """Read the logs of an endpoint, by the container that the name of the stream ends with."""
    logs, group = clary.client("logs"), f"/aws/sagemaker/Endpoints/{name}"
    found = {}
    for stream in logs.describe_log_streams(logGroupName=group)["logStreams"]:
        variant, instance, container = stream["logStreamName"].split("/")
        assert variant == "AllTraffic"
        assert instance.startswith("i-")
        page = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)
        found[container] = [event["message"] for event in page["events"]]
    return found


def container_latency(clary: Clary, endpoint: str, container: str) -> float:
    """Give how many values of ContainerLatency CloudWatch has of one container."""
    names = {"EndpointName": endpoint, "VariantName": "AllTraffic", "ContainerName": container}
    now = dt.datetime.now(dt.UTC)
    answer = clary.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName="ContainerLatency",
        Dimensions=[{"Name": name, "Value": value} for name, value in names.items()],
        StartTime=now - dt.timedelta(minutes=10),
        EndTime=now + dt.timedelta(minutes=1),
        Period=3600,
        Statistics=["SampleCount", "Minimum"],
        Unit="Microseconds",
    )
    assert all(point["Minimum"] > 0 for point in answer["Datapoints"])
    return float(sum(point["SampleCount"] for point in answer["Datapoints"]))


def test_a_serial_pipeline_answers_and_each_container_has_its_log_and_latency(clary: Clary, image: str) -> None:
    create(clary, "serial", image)
    images = clary.wait("serial")["ProductionVariants"][0]["DeployedImages"]
    assert [each["SpecifiedImage"] for each in images] == [image] * 3
    assert all(each["ResolvedImage"].startswith("clary/test-step@sha256:") for each in images)
    assert len(clary.containers("serial")) == 3
    assert invoke(clary, "serial", b"1,2\n3,4", ContentType="text/csv") == ("text/plain", "6.0, 14.0")
    wanted = {
        "prepare": ["prepare begins", "prepare made [[1.0, 2.0], [3.0, 4.0]]"],
        "model": ["model begins", "model made [6.0, 14.0]"],
        "present": ["present begins", "present made 6.0, 14.0"],
    }
    wait_until(
        lambda: lines_by_stream(clary, "serial") == wanted,
        "each container's lines are in its stream",
        lambda: f"{lines_by_stream(clary, 'serial')}\n{clary.output()}",
    )
    wait_until(
        lambda: [container_latency(clary, "serial", step) for step in STEPS] == [1, 1, 1],
        "the latency of each container is counted",
        clary.output,
    )
    for step in STEPS:
        error = refused(clary, "serial", b"1,2", CustomAttributes=f"break {step}")
        assert f'Received server error (500) from {step} with message "{step} is broken"' in error["Message"]
    clary.delete("serial")
    assert not clary.containers("serial")


def test_direct_mode_asks_one_container_which_reaches_its_neighbours_by_name(clary: Clary, image: str) -> None:
    create(clary, "direct", image, "Direct")
    clary.wait("direct")
    asked = {"prepare": b"1,2", "model": b"[[1,2]]", "present": b"[6]"}
    answers = [invoke(clary, "direct", body, TargetContainerHostname=step)[1] for step, body in asked.items()]
    assert answers == ["[[1.0, 2.0]]", "[6.0]", "6.0"]
    for step in STEPS:
        assert invoke(clary, "direct", b"neighbours", TargetContainerHostname=step)[1] == "[200, 200, 200]"
        more = {"TargetContainerHostname": step, "CustomAttributes": f"break {step}"}
        assert f"Received server error (500) from {step} with" in refused(clary, "direct", b"", **more)["Message"]
    clary.delete("direct")
    assert not clary.containers("direct")


def test_a_failed_start_in_any_place_names_the_container_and_leaves_nothing(clary: Clary, image: str) -> None:
    cases = {f"{trouble}-{step}": (trouble, step) for trouble in ("exit", "ping") for step in STEPS}
    for name, (trouble, step) in cases.items():
        create(clary, name, image, **{step: trouble})
    for name, (trouble, step) in cases.items():
        reason = failed(clary, name)
        assert reason.startswith(f"The {step} container for production variant AllTraffic did not pass the ping")
        if trouble == "exit":
            assert "exited with 1 (3 starts)" in reason
            assert f"{step} lacks its weights" in reason
        else:
            assert f"ping answered 503, for {WINDOW} s" in reason
            assert f"Last lines of the log:\n{step} begins" in reason
        clary.delete(name)
        assert not clary.containers(name)
