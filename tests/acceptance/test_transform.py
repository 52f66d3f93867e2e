"""Batch transform with clients that know nothing of Clary."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.conftest import IMAGE, ROLE, Clary, model_archive

pytestmark = pytest.mark.acceptance

SERVE = '''#!/usr/bin/env python3
"""Doubles each number of each line; says what it was told; fails where a line says so."""
import http.server, json, os


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/ping":
            return self.answer(200, b"")
        parameters = os.environ.get("PARAMETERS", "")
        self.answer(200 if parameters else 404, parameters.encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if b"die" in body:
            os._exit(9)
        if b"bad" in body:
            return self.answer(400, b"a line is bad")
        lines = body.decode().splitlines()
        said = [",".join(str(2 * int(field)) for field in line.split(",")) for line in lines]
        self.answer(200, "".join(line + "\\n" for line in said).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "text/csv")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


print("batch", os.environ["SAGEMAKER_BATCH"], flush=True)
Server(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
'''


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
    from botocore.exceptions import WaiterError

    try:
        sagemaker.get_waiter("transform_job_completed_or_stopped").wait(
            TransformJobName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
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


def test_boto3_transforms_a_prefix(doubler: Clary) -> None:
    for key, body in {"a/one.csv": b"1,2\n3,4\n", "a/sub/two.csv": b"5\n6", "a/empty.csv": b""}.items():
        doubler.upload(f"flow/{key}", body)
    sagemaker = doubler.client("sagemaker")
    made = sagemaker.create_transform_job(**request("flow", "s3://models/flow/a/"))
    assert made["TransformJobArn"] == "arn:aws:sagemaker:us-east-1:000000000000:transform-job/flow"
    assert sagemaker.describe_transform_job(TransformJobName="flow")["TransformJobStatus"] == "InProgress"
    described = wait(doubler, "flow")
    assert described["TransformJobStatus"] == "Completed", described
    assert described["CreationTime"] <= described["TransformStartTime"] <= described["TransformEndTime"]
    expected = {"one.csv.out": b"2,4\n6,8\n", "sub/two.csv.out": b"10\n12\n", "empty.csv.out": b""}
    assert outputs(doubler, "flow") == expected
