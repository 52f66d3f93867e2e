"""Adapter components with boto3, against a small server that speaks the containers' adapter API."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.conftest import IMAGE, Clary, wait_until
from tests.acceptance.test_components import LEAST, gone, host, invoke, remove, wait
from tests.acceptance.test_kill import Traffic

pytestmark = pytest.mark.acceptance

SERVE = """#!/usr/bin/env python3
import http.server, json, os

ADAPTERS = {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, sorted(ADAPTERS))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/adapters":
            wanted = json.loads(body)
            if wanted["name"] in ADAPTERS:
                return self.answer(400, "it is there already")
            words = open(os.path.join(wanted["src"], "words.txt")).read()
            if words == "broken":
                return self.answer(400, "these are no weights")
            ADAPTERS[wanted["name"]] = words
            return self.answer(200, "Adapter " + wanted["name"] + " registered")
        name = self.headers["X-Amzn-SageMaker-Adapter-Identifier"]
        said = {"says": ADAPTERS.get(name), "alias": self.headers["X-Amzn-SageMaker-Adapter-Alias"]}
        self.answer(200, {**said, "pid": os.getpid(), "adapters": sorted(ADAPTERS)})

    def do_DELETE(self):
        self.answer(200 if ADAPTERS.pop(self.path.rpartition("/")[2], None) else 404, "")

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


def archive(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for path, text in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(text.encode()), 0o755
            packed.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def adapter(clary: Clary, words: str) -> dict[str, Any]:
    url = clary.upload(f"adapters/{words}.tar.gz", archive(**{"words.txt": words}))
    return {"BaseInferenceComponentName": "llm", "Container": {"ArtifactUrl": url}}


def test_adapters_are_loaded_into_every_copy_of_their_base(own_clary: Clary) -> None:
    clary, sagemaker = own_clary, own_clary.client("sagemaker")
    host(clary, "tongues")
    container = {"Image": IMAGE, "ArtifactUrl": clary.upload("llm/model.tar.gz", archive(serve=SERVE))}

    def base(**environment: str) -> dict[str, Any]:
        return {"Container": {**container, "Environment": environment}, "ComputeResourceRequirements": LEAST}

    def add(name: str, words: str) -> None:
        sagemaker.create_inference_component(
            InferenceComponentName=name, EndpointName="tongues", Specification=adapter(clary, words)
        )

    sagemaker.create_inference_component(
        InferenceComponentName="llm", EndpointName="tongues", Specification=base(), RuntimeConfig={"CopyCount": 1}
    )
    wait(clary, "llm")
    add("french", "bonjour")
    clary.kill_control()
    add("broken", "broken")
    described = wait(clary, "french")
    assert described["Specification"]["BaseInferenceComponentName"] == "llm"
    assert described["RuntimeConfig"] == {"DesiredCopyCount": 1, "CurrentCopyCount": 1}
    said = invoke(clary, "tongues", "french")
    assert (said["says"], said["alias"], len(said["adapters"])) == ("bonjour", "french", 1)
    assert invoke(clary, "tongues", "llm")["says"] is None
    assert "answered 400" in wait(clary, "broken", "Failed")["FailureReason"]
    with pytest.raises(ClientError, match="is a base inference component for one or more associated"):
        sagemaker.delete_inference_component(InferenceComponentName="llm")
    with Traffic(clary, "tongues", InferenceComponentName="french") as traffic:
        sagemaker.update_inference_component_runtime_config(
            InferenceComponentName="llm", DesiredRuntimeConfig={"CopyCount": 2}
        )
        wait(clary, "llm")
        wait_until(
            lambda: len({invoke(clary, "tongues", "french")["pid"] for _ in range(6)}) == 2,
            "the second copy has the adapter too",
            clary.output,
        )
        sagemaker.update_inference_component(InferenceComponentName="french", Specification=adapter(clary, "salut"))
        wait(clary, "french")
        assert invoke(clary, "tongues", "french")["says"] == "salut"
        sagemaker.update_inference_component(InferenceComponentName="llm", Specification=base(NEW="1"))
        clary.kill_control()
        assert "FailureReason" not in wait(clary, "llm")
        assert invoke(clary, "tongues", "french")["says"] == "salut"
    assert traffic.failures == []
    sagemaker.delete_inference_component(InferenceComponentName="french")
    wait_until(lambda: gone(clary, "french"), "french is gone", clary.output)
    assert invoke(clary, "tongues", "llm")["adapters"] == []
    sagemaker.delete_inference_component(InferenceComponentName="broken")
    wait_until(lambda: gone(clary, "broken"), "broken is gone", clary.output)
    remove(clary, "tongues", "llm")
    wait_until(lambda: not list((clary.data / "models").glob("llm-*")), "its files are gone", clary.output)
