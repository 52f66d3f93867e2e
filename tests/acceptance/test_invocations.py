"""What surrounds an invocation, in a whole Clary: data capture, shadows, and sessions over several gateways."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, HTTPClientError

from tests.acceptance.conftest import IMAGE, ROLE, Clary, model_archive, running, wait_until
from tests.acceptance.test_pipeline import SERVE as TALKATIVE

pytestmark = pytest.mark.acceptance

STATEFUL = textwrap.dedent('''\
    #!/usr/bin/env python3
    """Knows the sessions that it opened, and nobody else's."""
    import http.server, os, uuid

    SESSIONS = set()
    HEADER = "X-Amzn-SageMaker-%s-Session-Id"

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.answer(200, b"")

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            session = self.headers["X-Amzn-SageMaker-Session-Id"]
            if session == "NEW_SESSION":
                session = str(uuid.uuid4())
                SESSIONS.add(session)
                self.answer(200, b"new", (HEADER % "New", session + "; Expires=2100-01-01T00:00:00Z"))
            elif session in SESSIONS:
                self.answer(200, str(os.getpid()).encode())
            else:
                self.answer(400, b"Bad request: session not found: " + session.encode())

        def answer(self, status, body, *headers):
            self.send_response(status)
            for header in headers:
                self.send_header(*header)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    address = ("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"]))
    http.server.ThreadingHTTPServer(address, Handler).serve_forever()
''')


@pytest.fixture
def two_gateways() -> Iterator[Clary]:
    with running("--workers", "2") as started:
        yield started


def test_sessions_are_known_to_every_gateway_and_survive_them(two_gateways: Clary) -> None:
    clary = two_gateways
    clary.create("stateful", count=3, archive=model_archive("stateful", serve=STATEFUL))
    clary.wait("stateful")

    def ask(session: str) -> Any:
        # A client of its own for each: a connection of its own, so now this gateway, now that.
        return clary.client("sagemaker-runtime").invoke_endpoint(EndpointName="stateful", SessionId=session, Body=b"")

    opened = [ask("NEW_SESSION")["NewSessionId"].partition(";")[0] for _ in range(8)]
    holders = {session: ask(session)["Body"].read() for session in opened}
    for session in opened * 4:
        assert ask(session)["Body"].read() == holders[session]
    for _ in range(2):  # each of the two
        killed = clary.child("clary.server gateway")
        os.kill(killed, signal.SIGKILL)

        def another(killed: int = killed) -> bool:
            with contextlib.suppress(LookupError, OSError):
                return clary.child("clary.server gateway") != killed
            return False

        wait_until(another, "another gateway is there", clary.output)

    def answers() -> bool:
        with contextlib.suppress(HTTPClientError, EndpointConnectionError):
            return bool(ask(opened[0])["Body"].read())
        return False

    wait_until(answers, "a gateway answers", clary.output)
    for session in opened * 4:
        assert ask(session)["Body"].read() == holders[session]
    clary.delete("stateful")


def test_data_capture_and_a_shadow_see_what_the_variant_sees(clary: Clary) -> None:
    sagemaker, s3 = clary.client("sagemaker"), clary.client("s3")
    for name, archive in (("real", model_archive("real")), ("dark", model_archive("dark", serve=TALKATIVE))):
        url = clary.upload(f"{name}/model.tar.gz", archive)
        container = {"Image": IMAGE, "ModelDataUrl": url, "Environment": {"STEP": name}}
        sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
    s3.create_bucket(Bucket="captured")

    def variant(name: str) -> dict[str, Any]:
        return {"VariantName": name, "ModelName": name, "InstanceType": "ml.clary.local", "InitialInstanceCount": 1,
                "InitialVariantWeight": 1.0}  # fmt: skip

    sagemaker.create_endpoint_config(
        EndpointConfigName="seen",
        ProductionVariants=[variant("real")],
        ShadowProductionVariants=[variant("dark")],
        DataCaptureConfig={
            "EnableCapture": True,
            "InitialSamplingPercentage": 100,
            "DestinationS3Uri": "s3://captured/here",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]},
        },
    )
    sagemaker.create_endpoint(EndpointName="seen", EndpointConfigName="seen")
    clary.wait("seen")
    runtime = clary.client("sagemaker-runtime")
    for number in range(3):
        answer = runtime.invoke_endpoint(
            EndpointName="seen", Body=f"row {number}".encode(), ContentType="text/csv", InferenceId=f"i-{number}"
        )
        assert json.loads(answer["Body"].read())["name"] == "real"
    found: list[Any] = []

    def written() -> bool:
        found.clear()
        for entry in s3.list_objects_v2(Bucket="captured").get("Contents", []):
            assert entry["Key"].startswith("here/seen/real/")
            lines = s3.get_object(Bucket="captured", Key=entry["Key"])["Body"].read().splitlines()
            found.extend(json.loads(line) for line in lines)
        return len(found) == 3

    wait_until(written, "captures are in the bucket", clary.output)
    assert sorted(each["eventMetadata"]["inferenceId"] for each in found) == ["i-0", "i-1", "i-2"]
    halves = found[0]["captureData"]
    assert halves["endpointInput"]["data"].startswith("row ")
    assert (halves["endpointInput"]["encoding"], halves["endpointOutput"]["encoding"]) == ("CSV", "JSON")
    assert json.loads(halves["endpointOutput"]["data"])["name"] == "real"
    wait_until(lambda: "asked b'row 2'" in clary.clary("logs", "seen").stdout, "the shadow was asked too", clary.output)
    sagemaker.delete_endpoint(EndpointName="seen")
    sagemaker.delete_endpoint_config(EndpointConfigName="seen")
    for name in ("real", "dark"):
        sagemaker.delete_model(ModelName=name)
