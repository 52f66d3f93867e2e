"""Asynchronous inference with real clients: acknowledged, answered or failed in S3, and told of."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from base64 import b64decode
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.acceptance.conftest import IMAGE, ROLE, Clary, model_archive, model_processes, running, wait_until
from tests.sns import running_sns

pytestmark = pytest.mark.acceptance

OUTPUT, FAILURE = "s3://results/out", "s3://results/failed"


def deploy(clary: Clary, name: str, *, count: int = 1, models: int = 1, concurrency: int = 4, **output: Any) -> None:
    """Create an asynchronous endpoint; with several models, of a pipeline."""
    sagemaker = clary.client("sagemaker")
    clary.upload("keep", b"", bucket="results")
    containers = [
        {"Image": IMAGE, "ModelDataUrl": clary.upload(f"{name}/{n}/model.tar.gz", model_archive(f"{name}-{n}"))}
        for n in range(models)
    ]
    definition = {"Containers": containers} if models > 1 else {"PrimaryContainer": containers[0]}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, **definition)
    variant = {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.clary.local"}
    sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[{**variant, "InitialInstanceCount": count}],
        AsyncInferenceConfig={
            "OutputConfig": {"S3OutputPath": OUTPUT, "S3FailurePath": FAILURE, **output},
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": concurrency},
        },
    )
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    clary.wait(name)


def fetch(clary: Clary, url: str) -> dict[str, Any] | None:
    """Get an object; None where it is not there."""
    parts = urlsplit(url)
    s3 = clary.client("s3")
    try:
        return dict(s3.get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/")))
    except s3.exceptions.NoSuchKey:
        return None


def arrived(clary: Clary, url: str) -> dict[str, Any]:
    """Wait for an object."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found.extend(filter(None, [fetch(clary, url)]))
        return bool(found)

    wait_until(there, f"{url} is there", clary.output)
    return found[0]


def test_a_request_is_acknowledged_at_once_and_answered_in_s3(clary: Clary, tmp_path: Path) -> None:
    deploy(clary, "later")
    runtime = clary.client("sagemaker-runtime")
    question = f"until {tmp_path}/asked"
    location = clary.upload("inputs/one", question.encode(), bucket="results")
    accepted = runtime.invoke_endpoint_async(
        EndpointName="later", InputLocation=location, ContentType="text/x-question", InferenceId="mine"
    )
    assert accepted["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert accepted["InferenceId"] == "mine"
    assert accepted["OutputLocation"].startswith(f"{OUTPUT}/")
    assert "mine" not in accepted["OutputLocation"]
    assert accepted["FailureLocation"].startswith(f"{FAILURE}/")
    (tmp_path / "asked").touch()  # only now does the model answer
    answer = arrived(clary, accepted["OutputLocation"])
    assert answer["ContentType"] == "application/json"
    said = json.loads(answer["Body"].read())
    assert (said["name"], said["got"], said["type"]) == ("later-0", question[:100], "text/x-question")
    assert fetch(clary, accepted["FailureLocation"]) is None

    inline = runtime.invoke_endpoint_async(
        EndpointName="later", Body=b"here", S3OutputPathExtension="a/b", Filename="answer.json"
    )
    assert inline["OutputLocation"] == f"{OUTPUT}/a/b/answer.json"
    assert json.loads(arrived(clary, inline["OutputLocation"])["Body"].read())["got"] == "here"

    failing = runtime.invoke_endpoint_async(EndpointName="later", Body=b"fail503")
    text = arrived(clary, failing["FailureLocation"])["Body"].read().decode()
    assert text.startswith('Received server error (503) from primary with message "{')
    assert fetch(clary, failing["OutputLocation"]) is None

    with pytest.raises(ClientError, match="asynchronous endpoint") as refused:
        runtime.invoke_endpoint(EndpointName="later", Body=b"x")
    assert refused.value.response["Error"]["Code"] == "ValidationError"
    clary.delete("later")


def test_the_aws_command_invokes_and_reads_what_describe_says(clary: Clary) -> None:
    deploy(clary, "shell")
    location = clary.upload("inputs/shell", b"from a shell", bucket="results")
    done = clary.aws(
        "sagemaker-runtime", "invoke-endpoint-async", "--endpoint-name", "shell", "--input-location", location,
        "--content-type", "text/plain", "--inference-id", "one", "--invocation-timeout-seconds", "30",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    accepted = json.loads(done.stdout)
    assert accepted["InferenceId"] == "one"
    assert json.loads(arrived(clary, accepted["OutputLocation"])["Body"].read())["got"] == "from a shell"
    described = clary.client("sagemaker").describe_endpoint(EndpointName="shell")
    assert described["AsyncInferenceConfig"]["ClientConfig"] == {"MaxConcurrentInvocationsPerInstance": 4}
    refused = clary.aws(
        "sagemaker-runtime", "invoke-endpoint-async", "--endpoint-name", "shell", "--input-location", location,
        "--request-ttl-seconds", "21601",
    )  # fmt: skip
    assert refused.returncode != 0
    assert "requestTTLSeconds" in refused.stderr
    clary.delete("shell")


def test_a_pipeline_answers_later_too(clary: Clary) -> None:
    deploy(clary, "stages", models=2)
    accepted = clary.client("sagemaker-runtime").invoke_endpoint_async(EndpointName="stages", Body=b"start")
    said = json.loads(arrived(clary, accepted["OutputLocation"])["Body"].read())
    assert said["name"] == "stages-1"
    assert json.loads(said["got"][: said["got"].index(', "pid')] + "}")["name"] == "stages-0"
    clary.delete("stages")


def test_an_input_that_is_not_there_fails_in_s3_and_in_the_data_log(clary: Clary) -> None:
    deploy(clary, "missing")
    runtime, logs = clary.client("sagemaker-runtime"), clary.client("logs")
    accepted = runtime.invoke_endpoint_async(EndpointName="missing", InputLocation="s3://results/nothing")
    text = arrived(clary, accepted["FailureLocation"])["Body"].read().decode()
    assert text == "Failed to download the input: s3://results/nothing: there is no such object."
    group = "/aws/sagemaker/Endpoints/missing"

    def logged() -> bool:
        streams = [each["logStreamName"] for each in logs.describe_log_streams(logGroupName=group)["logStreams"]]
        return any(name.startswith("AllTraffic/i-") and name.endswith("/data-log") for name in streams)

    wait_until(logged, "there is a data log", clary.output)
    said = f"[{accepted['InferenceId']}] Failed to download"

    def told() -> bool:
        events = logs.filter_log_events(logGroupName=group, filterPattern="logs")["events"]
        return any(said in event["message"] for event in events)

    wait_until(told, "the data log tells of it", clary.output)
    clary.delete("missing")


def test_deleting_an_endpoint_answers_for_everything_that_waits(clary: Clary) -> None:
    deploy(clary, "leaving", concurrency=1)
    runtime = clary.client("sagemaker-runtime")
    accepted = [runtime.invoke_endpoint_async(EndpointName="leaving", Body=b"sleep3000") for _ in range(5)]
    doctor = clary.clary("doctor", "leaving")
    assert "asynchronous" in doctor.stdout, doctor.stdout
    clary.delete("leaving")
    for each in accepted:
        text = arrived(clary, each["FailureLocation"])["Body"].read().decode()
        assert "leaving" in text


def test_notifications_reach_sns_and_numbers_cloudwatch() -> None:
    with running_sns() as sns, running("--sns-endpoint", sns.url) as clary:
        topics = {"SuccessTopic": sns.topic, "ErrorTopic": sns.topic}
        included = {"IncludeInferenceResponseIn": ["SUCCESS_NOTIFICATION_TOPIC", "ERROR_NOTIFICATION_TOPIC"]}
        deploy(clary, "told", NotificationConfig={**topics, **included})
        runtime = clary.client("sagemaker-runtime")
        good = runtime.invoke_endpoint_async(EndpointName="told", Body=b"hello", ContentType="text/plain")
        bad = runtime.invoke_endpoint_async(EndpointName="told", Body=b"fail500", InferenceId="bad")
        by_id: dict[str, dict[str, Any]] = {}

        def told() -> bool:
            by_id.update({message.get("inferenceId", message["eventName"]): message for message in sns.messages()})
            return len(by_id) >= 3

        wait_until(told, "all notifications have come", clary.output)
        assert by_id.keys() == {"TestNotification", good["InferenceId"], "bad"}
        success, failure = by_id[good["InferenceId"]], by_id["bad"]
        assert success["responseParameters"] == {
            "contentType": "application/json",
            "outputLocation": good["OutputLocation"],
        }
        assert json.loads(b64decode(success["responseBody"]["content"]))["got"] == "hello"
        assert failure["invocationStatus"] == "Failed"
        assert failure["failureReason"].startswith("ClientError: Received server error (500) from primary.")
        text = arrived(clary, bad["FailureLocation"])["Body"].read().decode()
        assert failure["responseBody"]["message"] == text
        _check_numbers(clary, "told")


def _check_numbers(clary: Clary, name: str) -> None:
    cloudwatch = clary.client("cloudwatch")
    endpoint = {"Name": "EndpointName", "Value": name}
    variant = [endpoint, {"Name": "VariantName", "Value": "AllTraffic"}]

    def total(metric: str, dimensions: list[dict[str, str]], statistic: str = "Sum") -> float | None:
        now = time.time()
        points = cloudwatch.get_metric_statistics(
            Namespace="AWS/SageMaker", MetricName=metric, Dimensions=dimensions, StartTime=now - 600,
            EndTime=now + 60, Period=3650 * 86_400, Statistics=[statistic],
        )["Datapoints"]  # fmt: skip
        return points[0][statistic] if points else None

    wait_until(lambda: total("InvocationsProcesssed", variant) == 2.0, "both are counted", clary.output)
    wait_until(lambda: total("InvocationFailures", variant) == 1.0, "the failure is counted", clary.output)
    wait_until(lambda: total("Invocation5XXErrors", variant) == 1.0, "its status is counted", clary.output)
    assert total("Invocations", variant) is None
    wait_until(lambda: total("ApproximateBacklogSize", [endpoint], "Minimum") == 0.0, "the backlog", clary.output)
    assert total("HasBacklogWithoutCapacity", [endpoint], "Maximum") == 0.0


def test_whatever_is_killed_every_acknowledged_request_is_answered_once(own_clary: Clary) -> None:
    """A shorter `bench/asynchronous.py kills`."""
    deploy(own_clary, "hunted", count=2, concurrency=8)
    acknowledged: dict[str, str] = {}
    config = Config(retries={"total_max_attempts": 6, "mode": "standard"}, connect_timeout=5, read_timeout=20)
    stop = threading.Event()

    def send(first: int) -> None:
        runtime = own_clary.client("sagemaker-runtime", config=config)
        for number in range(first, first + 40):
            body = f"{number:04} sleep"  # the model answers at once, and says what it got
            try:
                accepted = runtime.invoke_endpoint_async(EndpointName="hunted", Body=body.encode())
            except (ClientError, BotoCoreError):  # nobody said that it was taken
                continue
            acknowledged[accepted["OutputLocation"]] = body

    def kill() -> None:
        for kind in ("control", "model", "gateway", "model", "control"):
            if stop.wait(random.uniform(0.3, 1.2)):
                return
            with contextlib.suppress(LookupError, ProcessLookupError, IndexError):
                pid = model_processes(own_clary)[0] if kind == "model" else own_clary.child(f"clary.server {kind}")
                os.kill(pid, signal.SIGKILL)

    threads = [threading.Thread(target=send, args=(first,)) for first in (0, 40, 80, 120)]
    killer = threading.Thread(target=kill)
    for thread in (*threads, killer):
        thread.start()
    for thread in threads:
        thread.join()
    killer.join()
    stop.set()
    assert len(acknowledged) > 80
    results = own_clary.data / "s3" / "results"

    def path(url: str) -> Path:
        return results / url.removeprefix("s3://results/")

    wait_until(lambda: all(path(url).exists() for url in acknowledged), "all are answered", own_clary.output)
    wrong = {url for url, body in acknowledged.items() if json.loads(path(url).read_text())["got"] != body}
    assert wrong == set()
    assert not list(results.glob("failed/*"))
