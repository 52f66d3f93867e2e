"""Batch transform with clients that know nothing of Clary."""

from __future__ import annotations

import csv
import gzip
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from typing import Any

import pytest
from botocore.exceptions import ClientError, WaiterError

from tests.acceptance.conftest import IMAGE, ROLE, Clary, model_archive, wait_until
from tests.core.test_framing import recordio, tfrecord

pytestmark = pytest.mark.acceptance

SERVE = """#!/usr/bin/env python3
# Doubles each number of each line; says what it was told; fails where a line says so.
import http.server, json, os, time

SEEN = []


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/ping":
            return self.answer(200, b"")
        parameters = os.environ.get("PARAMETERS", "")
        self.answer(200 if parameters else 404, parameters.encode())

    def do_POST(self):
        body = self.body()
        lines, accept = body.count(b"\\n"), self.headers["Accept"]
        # All of a line at once: there are other threads.
        print(f"request of {len(body)} bytes, {lines} lines, {accept}\\n", end="", flush=True)
        time.sleep(float(os.environ.get("PAUSE", "0")))
        if b"die" in body:
            os._exit(9)
        if b"bad" in body:
            return self.answer(400, b"a line is bad")
        if b"flaky" in body:
            SEEN.append(1)
            return self.answer(503 if len(SEEN) < 3 else 200, b"7\\n")
        if b"slow" in body:
            time.sleep(2)
            return self.answer(200, b"8\\n")
        if self.headers["Content-Type"] == "application/jsonlines":
            said = [json.dumps(2 * json.loads(line)) for line in body.decode().splitlines()]
        else:
            said = [",".join(str(2 * int(field)) for field in line.split(",")) for line in body.decode().splitlines()]
        self.answer(200, "".join(line + "\\n" for line in said).encode())

    def body(self):
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", self.headers["Content-Type"] or "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *whom):
        pass  # on a busy machine a ping leaves before its answer; the log has nothing of it


print("batch", {k: v for k, v in os.environ.items() if k.startswith("SAGEMAKER_") and "PORT" not in k}, flush=True)
Server(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


def create_model(clary: Clary, name: str, **environment: str) -> None:
    url = clary.upload(f"{name}/model.tar.gz", model_archive(name, serve=SERVE))
    container = {"Image": IMAGE, "ModelDataUrl": url, "Environment": environment}
    clary.client("sagemaker").create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)


def request(name: str, source: str, **more: Any) -> dict[str, Any]:
    """Give the request of a job over CSV lines whose output goes beside its input."""
    given, output = more.pop("given", {}), more.pop("output", {})
    return {
        "TransformJobName": name,
        "ModelName": "doubler",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}},
            "ContentType": "text/csv",
            "SplitType": "Line",
            **given,
        },
        "TransformOutput": {"S3OutputPath": f"s3://out/{name}", "AssembleWith": "Line", **output},
        "TransformResources": {"InstanceType": "ml.clary.local", "InstanceCount": 1},
        **more,
    }


def wait(clary: Clary, name: str) -> dict[str, Any]:
    sagemaker = clary.client("sagemaker")
    try:
        sagemaker.get_waiter("transform_job_completed_or_stopped").wait(
            TransformJobName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 3000}
        )
    except WaiterError as error:
        assert "terminal failure" in str(error), f"{error}\n{clary.output()[-5000:]}"
    return dict(sagemaker.describe_transform_job(TransformJobName=name))


def outputs(clary: Clary, name: str) -> dict[str, bytes]:
    s3 = clary.client("s3")
    found = s3.list_objects_v2(Bucket="out", Prefix=f"{name}/").get("Contents", [])
    bodies = {each["Key"]: s3.get_object(Bucket="out", Key=each["Key"])["Body"].read() for each in found}
    return {key.removeprefix(f"{name}/"): body for key, body in bodies.items()}


@pytest.fixture(scope="module")
def doubler(clary: Clary) -> Clary:
    create_model(clary, "doubler")
    clary.client("s3").create_bucket(Bucket="out")
    return clary


def run(clary: Clary, given: dict[str, Any]) -> dict[str, Any]:
    clary.client("sagemaker").create_transform_job(**given)
    return wait(clary, given["TransformJobName"])


def log(clary: Clary, name: str, *, data: bool = False) -> list[str]:
    """Give what the container wrote, or the data log, as the SDKs read it."""
    logs = clary.client("logs")
    group = "/aws/sagemaker/TransformJobs"
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
    names = [stream["logStreamName"] for stream in streams if stream["logStreamName"].endswith("/data-log") == data]
    return [
        event["message"]
        for stream in names
        for event in logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)["events"]
    ]


def test_boto3_transforms_a_prefix(doubler: Clary) -> None:
    for key, body in {
        "a/one.csv": b"1,2\n3,4\n",
        "a/sub/two.csv": b"5\n6",
        "a/empty.csv": b"",
        "a/folder/": b"",
    }.items():
        doubler.client("s3").put_object(Bucket="models", Key=f"flow/{key}", Body=body)
    sagemaker = doubler.client("sagemaker")
    tags = [{"Key": "team", "Value": "a"}]
    made = sagemaker.create_transform_job(**request("flow", "s3://models/flow/a/", Tags=tags))
    assert made["TransformJobArn"] == "arn:aws:sagemaker:us-east-1:000000000000:transform-job/flow"
    assert sagemaker.describe_transform_job(TransformJobName="flow")["TransformJobStatus"] == "InProgress"
    assert sagemaker.list_tags(ResourceArn=made["TransformJobArn"])["Tags"] == tags
    described = wait(doubler, "flow")
    assert described["TransformJobStatus"] == "Completed", described
    assert described["CreationTime"] <= described["TransformStartTime"] <= described["TransformEndTime"]
    expected = {"one.csv.out": b"2,4\n6,8\n", "sub/two.csv.out": b"10\n12\n", "empty.csv.out": b""}
    assert outputs(doubler, "flow") == expected
    (summary,) = sagemaker.list_transform_jobs(NameContains="flow", StatusEquals="Completed")["TransformJobSummaries"]
    assert summary["TransformEndTime"] == described["TransformEndTime"]
    assert "'SAGEMAKER_BATCH': 'true'" in log(doubler, "flow")[0]
    assert log(doubler, "flow", data=True)[0].endswith(
        ":[sagemaker logs]: MaxConcurrentTransforms=1, MaxPayloadInMB=6, BatchStrategy=MULTI_RECORD"
    )
    with pytest.raises(ClientError, match="in status Completed"):
        sagemaker.stop_transform_job(TransformJobName="flow")
    with pytest.raises(ClientError, match="Job name must be unique") as caught:
        sagemaker.create_transform_job(**request("flow", "s3://models/flow/a/"))
    assert caught.value.response["Error"]["Code"] == "ResourceInUse"


def test_one_object_that_fails_leaves_the_others(doubler: Clary) -> None:
    bodies = {"1.csv": b"1\n2\n", "2.csv": b"3\nbad\n4\n", "3.csv": b"5\ndie\n", "4.csv": b"6\n", "5.csv": b"flaky\n"}
    for key, body in bodies.items():
        doubler.upload(f"partly/{key}", body)
    retries = {"ModelClientConfig": {"InvocationsMaxRetries": 2}, "BatchStrategy": "SingleRecord"}
    described = run(doubler, request("partly", "s3://models/partly/", **retries))
    assert described["TransformJobStatus"] == "Failed"
    reason = described["FailureReason"]
    assert reason.startswith("ClientError: See job logs for more information.")
    assert "s3://models/partly/2.csv, record 2: ClientError: 400. The container answered: a line is bad" in reason
    assert "(2 of 5 objects failed.)" in reason
    assert outputs(doubler, "partly") == {"1.csv.out": b"2\n4\n", "4.csv.out": b"12\n", "5.csv.out": b"7\n"}
    said = [line.partition(":[sagemaker logs]: ")[2] for line in log(doubler, "partly", data=True)]
    place = "models/partly/2.csv: "
    at = said.index(f"{place}ClientError: 400 (record 2)")
    assert said[at : at + 4] == [
        f"{place}ClientError: 400 (record 2)",
        place,
        f"{place}Message:",
        f"{place}a line is bad",
    ]
    assert any(line.startswith("models/partly/3.csv: Unable to get response from algorithm") for line in said)


def test_what_a_job_is_told_reaches_the_container(doubler: Clary) -> None:
    create_model(doubler, "told", PARAMETERS='{"MaxConcurrentTransforms": 4, "BatchStrategy": "SINGLE_RECORD"}')
    doubler.upload("told/in.csv", b"1\n2\n3\n")
    given = request("told", "s3://models/told/in", ModelName="told", MaxPayloadInMB=1, Environment={"A": "b"})
    given["TransformOutput"]["Accept"] = "text/csv; x=1"
    assert run(doubler, given)["TransformJobStatus"] == "Completed"
    first, *others = log(doubler, "told")
    assert "'SAGEMAKER_BATCH': 'true'" in first
    assert "'SAGEMAKER_MAX_PAYLOAD_IN_MB': '1'" in first
    assert "BATCH_STRATEGY" not in first
    assert others == ["request of 2 bytes, 1 lines, text/csv; x=1"] * 3
    assert (
        "MaxConcurrentTransforms=4, MaxPayloadInMB=1, BatchStrategy=SINGLE_RECORD" in log(doubler, "told", data=True)[0]
    )


def test_a_manifest_of_gzip_split_over_two_instances(doubler: Clary) -> None:
    for number in range(6):
        doubler.upload(f"zipped/in/{number}.gz", gzip.compress(b"%d\n" % number) + gzip.compress(b"9"))
    manifest = [{"prefix": "s3://models/zipped/"}, *(f"in/{number}.gz" for number in (4, 0, 2, 5))]
    doubler.upload("zipped/manifest.json", json.dumps(manifest).encode())
    given = request("zipped", "s3://models/zipped/manifest.json", given={"CompressionType": "Gzip"})
    given["TransformInput"]["DataSource"]["S3DataSource"]["S3DataType"] = "ManifestFile"
    given["TransformResources"]["InstanceCount"] = 2
    given["DataCaptureConfig"] = {"DestinationS3Uri": "s3://out/captured"}
    described = run(doubler, given)
    assert described["TransformJobStatus"] == "Completed", described
    assert outputs(doubler, "zipped") == {f"in/{n}.gz.out": b"%d\n18\n" % (2 * n) for n in (0, 2, 4, 5)}
    s3 = doubler.client("s3")
    hour = f"{described['TransformStartTime'].astimezone(UTC):%Y/%m/%d/%H}/zipped.json"
    captured = {
        each: json.loads(s3.get_object(Bucket="out", Key=f"captured/{each}/{hour}")["Body"].read())
        for each in ("input", "output")
    }
    assert captured["input"] == manifest
    assert captured["output"] == [{"prefix": "s3://out/zipped/"}, *(f"{key}.out" for key in manifest[1:])]


def test_records_are_filtered_and_joined(doubler: Clary) -> None:
    doubler.upload("joined/rows.csv", b'"id, 7",5,6\r\nid8,7,8\n')
    given = request("joined", "s3://models/joined/", output={"Accept": "text/csv"})
    given["DataProcessing"] = {"InputFilter": "$[1:]", "OutputFilter": "$[0,-1]", "JoinSource": "Input"}
    given["DataCaptureConfig"] = {"DestinationS3Uri": "s3://out/captured", "GenerateInferenceId": True}
    described = run(doubler, given)
    assert described["TransformJobStatus"] == "Completed", described
    assert described["DataProcessing"] == given["DataProcessing"]
    rows = list(csv.reader(outputs(doubler, "joined")["rows.csv.out"].decode().splitlines()))
    assert [row[:2] for row in rows] == [["id, 7", "12"], ["id8", "16"]]
    assert len({uuid.UUID(row[2]) for row in rows}) == 2
    assert {row[3] for row in rows} == {f"{described['TransformStartTime'].astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"}


def test_an_object_of_any_size_flows_through(doubler: Clary) -> None:
    body = b"".join(b"%d\n" % (number % 1000) for number in range(300_000))
    doubler.upload("flowing/large.csv", body)
    doubler.upload("flowing/bad.csv", b"bad\n")
    described = run(doubler, request("flowing", "s3://models/flowing/", MaxPayloadInMB=0))
    assert "bad.csv: ClientError: 400. The container answered: a line is bad" in described["FailureReason"]
    expected = b"".join(b"%d\n" % (number % 1000 * 2) for number in range(300_000))
    assert outputs(doubler, "flowing") == {"large.csv.out": expected}
    assert f"request of {len(body)} bytes, 300000 lines, None" in log(doubler, "flowing")


def test_a_pipeline_transforms(doubler: Clary) -> None:
    url = doubler.upload("twice/model.tar.gz", model_archive("twice", serve=SERVE))
    containers = [{"Image": IMAGE, "ModelDataUrl": url}] * 2
    doubler.client("sagemaker").create_model(ModelName="twice", Containers=containers, ExecutionRoleArn=ROLE)
    doubler.upload("twice/in.csv", b"1,2\n3\n")
    for name, more in (("twice", {}), ("twice-flowing", {"MaxPayloadInMB": 0})):
        given = request(name, "s3://models/twice/in", ModelName="twice", **more)
        assert run(doubler, given)["TransformJobStatus"] == "Completed"
        assert outputs(doubler, name) == {"in.csv.out": b"4,8\n12\n"}


@pytest.mark.parametrize("split", ["RecordIO", "TFRecord"])
def test_records_in_frames_are_sent_without_them(doubler: Clary, split: str) -> None:
    frame = recordio if split == "RecordIO" else tfrecord
    name = f"framed-{split.lower()}"
    doubler.upload(f"{name}/in", b"".join(frame(b"%d,7\n" % number) for number in range(200)))
    doubler.upload(f"{name}/torn", frame(b"1,2\n") + frame(b"3,4\n")[:-1])
    given = request(name, f"s3://models/{name}/", BatchStrategy="SingleRecord", MaxConcurrentTransforms=4)
    given["TransformInput"]["SplitType"] = split
    described = run(doubler, given)
    assert outputs(doubler, name) == {"in.out": b"".join(b"%d,14\n" % (2 * number) for number in range(200))}
    assert "torn, record 2: Failed to parse input: the object ends within a record" in described["FailureReason"]


def test_more_objects_than_a_page_of_a_listing_has(doubler: Clary) -> None:
    s3, number = doubler.client("s3"), 1050
    with ThreadPoolExecutor(4) as pool:
        keys = [f"many/{each:04}/x" for each in range(number)]
        list(pool.map(lambda key: s3.put_object(Bucket="models", Key=key, Body=key[5:9].encode()), keys))
        described = run(doubler, request("many", "s3://models/many/", MaxConcurrentTransforms=8))
        assert described["TransformJobStatus"] == "Completed", described
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket="out", Prefix="many/")
        found = [each["Key"] for page in pages for each in page["Contents"]]
        assert found == [f"{key}.out" for key in keys]
        bodies = pool.map(lambda key: s3.get_object(Bucket="out", Key=key)["Body"].read(), found[::50])
        assert list(bodies) == [b"%d\n" % (2 * each) for each in range(0, number, 50)]


def test_the_aws_cli_runs_follows_and_stops_jobs(doubler: Clary) -> None:
    def aws(operation: str, *arguments: str) -> Any:
        done = doubler.aws("sagemaker", *operation.split(), *arguments, "--output", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout else None

    doubler.upload("cli/quick.csv", b"1\n2\n")
    doubler.upload("cli/slow.csv", b"slow\n" * 1000)
    quick, slow = request("cli-quick", "s3://models/cli/quick"), request("cli-slow", "s3://models/cli/slow")
    made = aws("create-transform-job", "--cli-input-json", json.dumps(quick))
    assert made["TransformJobArn"].endswith(":transform-job/cli-quick")
    aws("create-transform-job", "--cli-input-json", json.dumps({**slow, "BatchStrategy": "SingleRecord"}))
    assert wait(doubler, "cli-quick")["TransformJobStatus"] == "Completed"
    aws("wait transform-job-completed-or-stopped", "--transform-job-name", "cli-quick")
    described = aws("describe-transform-job", "--transform-job-name", "cli-quick")
    assert described["TransformJobStatus"] == "Completed"
    assert described["TransformInput"] == {**quick["TransformInput"], "CompressionType": "None"}
    assert outputs(doubler, "cli-quick") == {"quick.csv.out": b"2\n4\n"}
    listed = aws("list-transform-jobs", "--name-contains", "cli-", "--sort-by", "Name", "--sort-order", "Ascending")
    found = [(job["TransformJobName"], job["TransformJobStatus"]) for job in listed["TransformJobSummaries"]]
    assert found == [("cli-quick", "Completed"), ("cli-slow", "InProgress")]
    aws("stop-transform-job", "--transform-job-name", "cli-slow")
    assert wait(doubler, "cli-slow")["TransformJobStatus"] == "Stopped"
    aws("wait transform-job-completed-or-stopped", "--transform-job-name", "cli-slow")
    assert outputs(doubler, "cli-slow") == {}


def test_a_job_that_is_stopped_ends_and_leaves_nothing(doubler: Clary) -> None:
    doubler.upload("stopped/slow.csv", b"slow\n" * 1000)
    sagemaker = doubler.client("sagemaker")
    sagemaker.create_transform_job(**request("stopped", "s3://models/stopped/", BatchStrategy="SingleRecord"))
    wait_until(lambda: any("request of" in line for line in _said(doubler, "stopped")), "it works", doubler.output)
    s3 = doubler.client("s3")
    for key in ("stopped/slow.csv.out", "stopped/somebody-else's"):  # the first as of an agent that is killed at it
        s3.create_multipart_upload(Bucket="out", Key=key)
    sagemaker.stop_transform_job(TransformJobName="stopped")
    status = sagemaker.describe_transform_job(TransformJobName="stopped")["TransformJobStatus"]
    assert status in ("Stopping", "Stopped")
    described = wait(doubler, "stopped")
    assert described["TransformJobStatus"] == "Stopped"
    assert described["TransformEndTime"] > described["TransformStartTime"]
    assert outputs(doubler, "stopped") == {}
    wait_until(lambda: not list((doubler.data / "run" / "transforms").iterdir()), "folders are gone", doubler.output)
    left = s3.list_multipart_uploads(Bucket="out", Prefix="stopped/")["Uploads"]
    assert [each["Key"] for each in left] == ["stopped/somebody-else's"]


def _said(clary: Clary, name: str) -> list[str]:
    try:
        return log(clary, name)
    except ClientError:
        return []


@pytest.mark.parametrize(
    ("member", "value", "words"),
    [
        ("ModelName", "nobody", 'Could not find model "arn:aws:sagemaker:us-east-1:000000000000:model/nobody".'),
        ("MaxPayloadInMB", 101, "MaxPayloadInMB must not be more than 100"),
        ("MaxConcurrentTransforms", 20, "MaxConcurrentTransforms * MaxPayloadInMB must not be more than 100 MB"),
        ("DataProcessing", {"InputFilter": "$.x"}, "asks for members, which text/csv does not have"),
        ("DataProcessing", {"InputFilter": "x"}, "Invalid JSONPath in DataProcessing"),
    ],
)
def test_what_cannot_be_meant_is_refused(doubler: Clary, member: str, value: Any, words: str) -> None:
    given = {"MaxPayloadInMB": 6, **request("refused", "s3://models/x"), member: value}
    with pytest.raises(ClientError) as caught:
        doubler.client("sagemaker").create_transform_job(**given)
    assert words in caught.value.response["Error"]["Message"]


def test_jobs_without_input_or_container_say_why(doubler: Clary) -> None:
    create_model(doubler, "broken", EXIT="1")
    url = doubler.upload("broken/model.tar.gz", model_archive("broken", serve="#!/bin/sh\necho no weights\nexit 3\n"))
    described = run(doubler, request("nothing", "s3://models/nothing-here/"))
    assert "no object is found at s3://models/nothing-here/" in described["FailureReason"]
    described = run(doubler, request("nowhere", "s3://no-such-bucket/nothing-here/"))
    assert "s3://no-such-bucket/nothing-here/: there is no such bucket" in described["FailureReason"]
    described = run(doubler, request("broken", url, ModelName="broken"))
    assert described["FailureReason"].startswith("AlgorithmError: See job logs for more information.")
    assert "exited with 3" in described["FailureReason"]
    assert "no weights" in described["FailureReason"]
