"""Inference components with the real clients, on the process engine."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.conftest import (
    IMAGE,
    ROLE,
    Clary,
    model_archive,
    model_processes,
    running_on_docker,
    wait_until,
)
from tests.acceptance.test_kill import Traffic
from tests.containers import build, docker, needs_docker

pytestmark = pytest.mark.acceptance

DOCKER_SERVER = """#!/usr/bin/env python3
import http.server, json, socket

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"host": socket.gethostname()}).encode())

http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""
LEAST = {"MinMemoryRequiredInMb": 128, "NumberOfCpuCoresRequired": 0.25}


def host(clary: Clary, name: str, **variant: Any) -> None:
    """Create an endpoint for components, and wait for it."""
    sagemaker = clary.client("sagemaker")
    production = {"VariantName": "AllTraffic", "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1, **variant}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ExecutionRoleArn=ROLE, ProductionVariants=[production])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 300})


def specification(clary: Clary, name: str, needs: dict[str, Any] | None = None, **environment: str) -> dict[str, Any]:
    url = clary.upload(f"{name}/model.tar.gz", model_archive(name))
    container = {"Image": IMAGE, "ArtifactUrl": url, "Environment": environment}
    return {"Container": container, "ComputeResourceRequirements": needs or LEAST}


def add(clary: Clary, endpoint: str, name: str, copies: int = 1, **environment: str) -> None:
    clary.client("sagemaker").create_inference_component(
        InferenceComponentName=name,
        EndpointName=endpoint,
        VariantName="AllTraffic",
        Specification=specification(clary, name, **environment),
        RuntimeConfig={"CopyCount": copies},
    )


def wait(clary: Clary, name: str, status: str = "InService") -> dict[str, Any]:
    """Poll as the SDKs do, until it is neither Creating nor Updating."""
    sagemaker = clary.client("sagemaker")
    found: dict[str, Any] = {}

    def at_rest() -> bool:
        found.clear()
        found.update(sagemaker.describe_inference_component(InferenceComponentName=name))
        return found["InferenceComponentStatus"] not in ("Creating", "Updating")

    wait_until(at_rest, f"{name} is at rest", clary.output)
    assert found["InferenceComponentStatus"] == status, found
    return found


def gone(clary: Clary, name: str) -> bool:
    try:
        clary.client("sagemaker").describe_inference_component(InferenceComponentName=name)
    except ClientError as error:
        assert "could not find" in str(error).lower()
        return True
    return False


def invoke(clary: Clary, endpoint: str, name: str, body: bytes = b"hello") -> dict[str, Any]:
    answer = clary.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=endpoint, InferenceComponentName=name, Body=body
    )
    return dict(json.loads(answer["Body"].read()))


def counted(clary: Clary, metric: str, component: str, namespace: str = "AWS/SageMaker") -> float:
    """Give the sum of a component's metric over the last hour."""
    now = datetime.now(UTC)
    points = clary.client("cloudwatch").get_metric_statistics(
        Namespace=namespace,
        MetricName=metric,
        Dimensions=[{"Name": "InferenceComponentName", "Value": component}],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(minutes=2),
        Period=60,
        Statistics=["Sum"],
    )["Datapoints"]
    return sum(point["Sum"] for point in points)


def remove(clary: Clary, endpoint: str, *names: str) -> None:
    sagemaker = clary.client("sagemaker")
    for name in names:
        sagemaker.delete_inference_component(InferenceComponentName=name)
    for name in names:
        wait_until(lambda name=name: gone(clary, name), f"{name} is gone", clary.output)  # type: ignore[misc]
    sagemaker.delete_endpoint(EndpointName=endpoint)
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=endpoint, WaiterConfig={"Delay": 1, "MaxAttempts": 300})


def test_components_share_an_instance_and_are_invoked_by_name(clary: Clary) -> None:
    host(clary, "shared")
    for name in ("first", "second"):
        add(clary, "shared", name)
    for name in ("first", "second"):
        described = wait(clary, name)
        assert described["RuntimeConfig"]["CurrentCopyCount"] == described["RuntimeConfig"]["DesiredCopyCount"] == 1
        assert described["Specification"]["Container"]["DeployedImage"]["SpecifiedImage"] == IMAGE
        assert invoke(clary, "shared", name)["name"] == name
    runtime = clary.client("sagemaker-runtime")
    streamed = runtime.invoke_endpoint_with_response_stream(
        EndpointName="shared", InferenceComponentName="second", Body=b"hello"
    )
    parts = b"".join(event["PayloadPart"]["Bytes"] for event in streamed["Body"])
    assert json.loads(parts)["name"] == "second"
    with pytest.raises(ClientError, match="Inference Component Name header is required") as missing:
        clary.invoke("shared")
    assert missing.value.response["Error"]["Code"] == "ValidationError"
    with pytest.raises(ClientError, match="Inference Component nobody of endpoint shared of account"):
        invoke(clary, "shared", "nobody")
    with pytest.raises(ClientError, match="Received client error \\(418\\) from model with message") as failed:
        invoke(clary, "shared", "first", b"fail418")
    group = "/aws/sagemaker/InferenceComponents/first"
    assert failed.value.response["LogStreamArn"].endswith(f":log-group:{group}")
    logs = clary.client("logs")
    (stream,) = logs.describe_log_streams(logGroupName=group)["logStreams"]
    events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
    assert any("loading first" in event["message"] for event in events)
    pages = (
        clary.client("sagemaker")
        .get_paginator("list_inference_components")
        .paginate(EndpointNameEquals="shared", SortBy="Name", SortOrder="Ascending", PaginationConfig={"PageSize": 1})
    )
    listed = [each for page in pages for each in page["InferenceComponents"]]
    assert [(each["InferenceComponentName"], each["VariantName"]) for each in listed] == [
        ("first", "AllTraffic"), ("second", "AllTraffic"),
    ]  # fmt: skip
    told = clary.clary("doctor", "shared")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "Component second: InService, 1 of 1 copies" in told.stdout
    assert "ml.m5.xlarge, variant AllTraffic" in told.stdout
    assert "A first: 1 copy of 0.25 CPU, 0.125 GiB" in told.stdout
    assert "loading second" in clary.clary("logs", "second").stdout
    with pytest.raises(ClientError, match="delete its inference components first: first, second"):
        clary.client("sagemaker").delete_endpoint(EndpointName="shared")
    wait_until(lambda: counted(clary, "Invocations", "first") == 2, "invocations were counted", clary.output)
    wait_until(lambda: counted(clary, "InvocationModelErrors", "first") == 1, "so was the error", clary.output)
    wait_until(lambda: counted(clary, "InvocationsPerCopy", "second") == 2, "and the other's", clary.output)
    remove(clary, "shared", "first", "second")


def test_an_endpoint_with_models_of_its_own_takes_no_components(clary: Clary) -> None:
    clary.create("plain")
    clary.wait("plain")
    with pytest.raises(ClientError, match="Inference Components are not supported in this Endpoint"):
        add(clary, "plain", "misplaced")
    with pytest.raises(ClientError, match="Inference Component Name header is not allowed"):
        invoke(clary, "plain", "misplaced")
    clary.delete("plain")


def test_with_the_aws_cli_a_model_is_packed_scaled_to_zero_and_back(clary: Clary) -> None:
    clary.client("sagemaker").create_model(
        ModelName="packed",
        PrimaryContainer={"Image": IMAGE, "ModelDataUrl": clary.upload("packed/model.tar.gz", model_archive("packed"))},
        ExecutionRoleArn=ROLE,
    )

    def aws(*arguments: str) -> Any:
        done = clary.aws("sagemaker", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout else None

    scaling = "ManagedInstanceScaling={Status=ENABLED,MinInstanceCount=0,MaxInstanceCount=2}"
    aws(
        "create-endpoint-config", "--endpoint-config-name", "cli", "--execution-role-arn", ROLE,
        "--production-variants", f"VariantName=v,InstanceType=ml.m5.large,InitialInstanceCount=1,{scaling}",
    )  # fmt: skip
    aws("create-endpoint", "--endpoint-name", "cli", "--endpoint-config-name", "cli")
    aws("wait", "endpoint-in-service", "--endpoint-name", "cli")
    needs = "ComputeResourceRequirements={MinMemoryRequiredInMb=4096,NumberOfCpuCoresRequired=1}"
    arn = aws(
        "create-inference-component", "--inference-component-name", "packed", "--endpoint-name", "cli",
        "--specification", f"ModelName=packed,{needs}", "--runtime-config", "CopyCount=2",
        "--tags", "Key=team,Value=red",
    )["InferenceComponentArn"]  # fmt: skip
    assert wait(clary, "packed")["Specification"]["ModelName"] == "packed"
    (variant,) = aws("describe-endpoint", "--endpoint-name", "cli")["ProductionVariants"]
    assert variant["CurrentInstanceCount"] == 1, "an instance is added only where there is no room"
    assert aws("list-tags", "--resource-arn", arn)["Tags"] == [{"Key": "team", "Value": "red"}]
    assert invoke(clary, "cli", "packed")["name"] == "packed"
    aws(
        "update-inference-component-runtime-config", "--inference-component-name", "packed",
        "--desired-runtime-config", "CopyCount=0",
    )  # fmt: skip
    assert wait(clary, "packed")["RuntimeConfig"]["CurrentCopyCount"] == 0
    with pytest.raises(ClientError, match="Inference Component has no capacity to process this request"):
        invoke(clary, "cli", "packed")
    wait_until(
        lambda: counted(clary, "NoCapacityInvocationFailures", "packed") == 1, "the refusal was counted", clary.output
    )
    aws(
        "update-inference-component-runtime-config", "--inference-component-name", "packed",
        "--desired-runtime-config", "CopyCount=1",
    )  # fmt: skip
    wait(clary, "packed")
    assert invoke(clary, "cli", "packed")["name"] == "packed"
    remove(clary, "cli", "packed")


def test_a_rolling_update_fails_no_invocation_and_neither_does_one_that_is_rolled_back(own_clary: Clary) -> None:
    clary, sagemaker = own_clary, own_clary.client("sagemaker")
    host(clary, "steady")
    add(clary, "steady", "rolling", copies=2, GREETING="old")
    wait(clary, "rolling")
    policy = {"MaximumBatchSize": {"Type": "COPY_COUNT", "Value": 1}, "WaitIntervalInSeconds": 1}
    with Traffic(clary, "steady", InferenceComponentName="rolling") as traffic:
        sagemaker.update_inference_component(
            InferenceComponentName="rolling",
            Specification=specification(clary, "rolling", GREETING="new"),
            DeploymentConfig={"RollingUpdatePolicy": policy},
        )
        clary.kill_control()
        described = wait(clary, "rolling")
        assert "FailureReason" not in described
        assert {invoke(clary, "steady", "rolling")["env"] for _ in range(6)} == {"new"}
        assert described["LastDeploymentConfig"]["RollingUpdatePolicy"]["MaximumBatchSize"]["Value"] == 1
        sagemaker.update_inference_component(
            InferenceComponentName="rolling", Specification=specification(clary, "rolling", EXIT_WITH="7")
        )
        clary.kill_control()
        described = wait(clary, "rolling")
        assert "exited with 7" in described["FailureReason"]
        assert "cannot load the model: weights are missing" in described["FailureReason"]
        assert described["Specification"]["Container"]["Environment"] == {"GREETING": "new"}
        assert {invoke(clary, "steady", "rolling")["env"] for _ in range(6)} == {"new"}
    assert traffic.failures == []
    assert traffic.answers > 20
    remove(clary, "steady", "rolling")
    wait_until(lambda: not model_processes(clary), "every copy has ended", clary.output)


def test_the_control_plane_is_killed_while_components_come_serve_and_go(own_clary: Clary) -> None:
    clary = own_clary
    host(clary, "kill")
    add(clary, "kill", "slow", copies=2, LOAD_SECONDS="1")
    clary.kill_control()
    wait(clary, "slow")
    before = set(model_processes(clary))
    with Traffic(clary, "kill", InferenceComponentName="slow") as traffic:
        for _ in range(2):
            clary.kill_control()
            assert wait(clary, "slow")["RuntimeConfig"]["CurrentCopyCount"] == 2
    assert traffic.failures == []
    assert set(model_processes(clary)) == before, "what runs is adopted, not started again"
    measured = "MemoryUtilizationNormalized", "slow", "/aws/sagemaker/InferenceComponents"
    wait_until(lambda: counted(clary, *measured) > 0, "copies are measured", clary.output)
    for copies in (0, 1):
        clary.client("sagemaker").update_inference_component_runtime_config(
            InferenceComponentName="slow", DesiredRuntimeConfig={"CopyCount": copies}
        )
        clary.kill_control()
        assert wait(clary, "slow")["RuntimeConfig"] == {"DesiredCopyCount": copies, "CurrentCopyCount": copies}
    clary.client("sagemaker").delete_inference_component(InferenceComponentName="slow")
    clary.kill_control()
    wait_until(lambda: gone(clary, "slow"), "slow is gone", clary.output)
    remove(clary, "kill")
    wait_until(lambda: not model_processes(clary), "every copy has ended", clary.output)


@needs_docker
def test_on_docker_copies_are_containers_with_a_share_of_their_instance() -> None:
    with running_on_docker() as clary:
        image = build("clary/test-component:1", {"server.py": DOCKER_SERVER}, 'ENTRYPOINT ["/server.py"]')
        sagemaker = clary.client("sagemaker")
        host(clary, "boxes")
        needs = {"MinMemoryRequiredInMb": 256, "MaxMemoryRequiredInMb": 300, "NumberOfCpuCoresRequired": 0.5}
        url = clary.upload("boxes/model.tar.gz", model_archive("boxed"))
        sagemaker.create_inference_component(
            InferenceComponentName="boxed",
            EndpointName="boxes",
            Specification={"Container": {"Image": image, "ArtifactUrl": url}, "ComputeResourceRequirements": needs},
            RuntimeConfig={"CopyCount": 2},
        )
        described = wait(clary, "boxed")
        assert described["Specification"]["Container"]["DeployedImage"]["ResolvedImage"].startswith(
            "clary/test-component@"
        )
        assert len({invoke(clary, "boxes", "boxed")["host"] for _ in range(40)}) == 2  # each goes to either
        ids = clary.containers("boxes")
        limits = json.loads(docker("inspect", "--format", "{{json .HostConfig}}", ids[0]))
        assert (limits["NanoCpus"], limits["Memory"]) == (500_000_000, 300 * 1024 * 1024)
        clary.kill_control()
        wait(clary, "boxed")
        assert set(clary.containers("boxes")) == set(ids)
        sagemaker.update_inference_component_runtime_config(
            InferenceComponentName="boxed", DesiredRuntimeConfig={"CopyCount": 0}
        )
        assert wait(clary, "boxed")["RuntimeConfig"]["CurrentCopyCount"] == 0
        remove(clary, "boxes", "boxed")
