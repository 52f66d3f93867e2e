"""Several containers on one instance, from create-model to an answer: Serial, Direct, a failure in each place."""

from __future__ import annotations

import json
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.conftest import IMAGE, ROLE, Clary, model_archive

pytestmark = pytest.mark.acceptance

NAMES = ("prepare", "model", "present")

SERVE = textwrap.dedent('''\
    #!/usr/bin/env python3
    """Adds its name to what it gets; fails where the body tells it to."""
    import http.server, os

    NAME = os.environ["STEP"]

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.answer(200, b"")

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            print("asked", body, flush=True)
            if body == b"die":
                os._exit(1)
            if b"fail at " + NAME.encode() in body:
                self.answer(418, b"I am " + NAME.encode())
            else:
                said = "%s(%s accept=%s)" % (NAME, self.headers["Content-Type"], self.headers["Accept"])
                self.answer(200, body + b"|" + said.encode())

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Type", "text/" + NAME + "; v=1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    address = ("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"]))
    http.server.ThreadingHTTPServer(address, Handler).serve_forever()
''')


def create(clary: Clary, name: str, mode: str) -> None:
    sagemaker = clary.client("sagemaker")
    url = clary.upload(f"{name}/model.tar.gz", model_archive(name, serve=SERVE))
    containers = [
        {"ContainerHostname": step, "Image": IMAGE, "ModelDataUrl": url, "Environment": {"STEP": step}}
        for step in NAMES
    ]
    sagemaker.create_model(
        ModelName=name, Containers=containers, ExecutionRoleArn=ROLE, InferenceExecutionConfig={"Mode": mode}
    )
    variant = {
        "VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.clary.local", "InitialInstanceCount": 1,
    }  # fmt: skip
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    clary.wait(name)


def invoke(clary: Clary, name: str, body: bytes, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = clary.client("sagemaker-runtime").invoke_endpoint(EndpointName=name, Body=body, **more)
    return {**answer, "Body": answer["Body"].read()}


def test_a_serial_pipeline_answers_and_a_failure_names_its_container(clary: Clary, tmp_path: Path) -> None:
    create(clary, "serial", "Serial")
    answer = invoke(clary, "serial", b"x", ContentType="text/csv", Accept="text/html")
    assert answer["Body"] == (
        b"x|prepare(text/csv accept=None)|model(text/prepare; v=1 accept=None)"
        b"|present(text/model; v=1 accept=text/html)"
    )
    assert answer["ContentType"] == "text/present; v=1"
    out = tmp_path / "answer"
    (tmp_path / "body").write_text("cli")
    done = clary.aws(
        "sagemaker-runtime", "invoke-endpoint", "--endpoint-name", "serial", "--body", f"fileb://{tmp_path}/body",
        str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert out.read_bytes().startswith(b"cli|prepare(")
    for step in NAMES:
        with pytest.raises(ClientError) as caught:
            invoke(clary, "serial", b"fail at " + step.encode())
        response = caught.value.response
        assert response["Error"]["Code"] == "ModelError"
        assert response["OriginalMessage"] == f"I am {step}"
        assert f'Received client error (418) from {step} with message "I am {step}".' in response["Error"]["Message"]
    with pytest.raises(ClientError, match=r"\(ValidationError\).*does not run its containers in Direct mode"):
        invoke(clary, "serial", b"x", TargetContainerHostname="model")
    clary.delete("serial")


def test_direct_mode_answers_from_the_container_that_is_named(clary: Clary, tmp_path: Path) -> None:
    create(clary, "direct", "Direct")
    for step in NAMES:
        answer = invoke(clary, "direct", b"x", TargetContainerHostname=step, Accept="a/b")
        assert answer["Body"] == f"x|{step}(None accept=a/b)".encode()
        with pytest.raises(ClientError, match=rf"\(ModelError\).*client error \(418\) from {step} with message"):
            invoke(clary, "direct", b"fail at " + step.encode(), TargetContainerHostname=step)
    with pytest.raises(ClientError, match=r"\(ValidationError\).*requires the target container hostname"):
        invoke(clary, "direct", b"x")
    with pytest.raises(ClientError, match=r"\(ValidationError\).*Container nobody not found"):
        invoke(clary, "direct", b"x", TargetContainerHostname="nobody")
    done = clary.aws(
        "sagemaker-runtime", "invoke-endpoint", "--endpoint-name", "direct", "--target-container-hostname", "model",
        "--body", "x", str(tmp_path / "answer"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "answer").read_bytes() == b"x|model(None accept=None)"
    clary.delete("direct")


def test_in_direct_mode_the_others_go_on_while_one_is_started_anew(clary: Clary) -> None:
    create(clary, "lame", "Direct")
    with pytest.raises(ClientError, match=r"\(ModelError\).*server error \(0\) from model"):
        invoke(clary, "lame", b"die", TargetContainerHostname="model")
    deadline, back = time.monotonic() + 300, False
    while not back and time.monotonic() < deadline:
        for step in ("prepare", "present"):
            assert invoke(clary, "lame", b"x", TargetContainerHostname=step)["Body"].startswith(b"x|" + step.encode())
        try:
            back = invoke(clary, "lame", b"x", TargetContainerHostname="model")["Body"].startswith(b"x|model")
        except ClientError as error:
            assert error.response["Error"]["Code"] in ("ServiceUnavailable", "ModelError")
    assert back
    clary.delete("lame")


def test_a_pipeline_streams_its_last_containers_answer(clary: Clary) -> None:
    create(clary, "streamed", "Serial")
    runtime = clary.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint_with_response_stream(EndpointName="streamed", Body=b"x", Accept="a/b")
    body = b"".join(event["PayloadPart"]["Bytes"] for event in answer["Body"])
    assert body.endswith(b"|present(text/model; v=1 accept=a/b)")
    assert answer["ContentType"] == "text/present; v=1"
    with pytest.raises(ClientError, match=r"\(ModelError\).*from model with message"):
        runtime.invoke_endpoint_with_response_stream(EndpointName="streamed", Body=b"fail at model")
    clary.delete("streamed")


def test_a_model_error_names_the_log_that_has_the_container(clary: Clary) -> None:
    create(clary, "noted", "Serial")
    with pytest.raises(ClientError) as caught:
        invoke(clary, "noted", b"fail at model")
    assert caught.value.response["LogStreamArn"].endswith(":log-group:/aws/sagemaker/Endpoints/noted")
    said = clary.clary("logs", "noted")
    assert "fail at model" in said.stdout + said.stderr, json.dumps([said.stdout, said.stderr])
    clary.delete("noted")
