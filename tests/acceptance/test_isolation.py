"""EnableNetworkIsolation and VpcConfig on a whole Clary, asked for and tried with boto3."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import IMAGE, ROLE, Clary, model_archive, running, wait_until

pytestmark = pytest.mark.acceptance

TRIES = """#!/usr/bin/env python3
import errno, http.server, os, socket, urllib.request

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        where = self.rfile.read(int(self.headers["Content-Length"])).decode()
        try:
            host, _, port = where.rpartition(":")
            socket.create_connection((host, int(port)), 300)
            said = "connected"
        except OSError as error:
            said = errno.errorcode.get(error.errno, type(error).__name__)
        self.answer(said.encode())

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""
VPC = {"Subnets": ["subnet-0abc"], "SecurityGroupIds": ["sg-0abc"]}


def create(clary: Clary, name: str, **model: Any) -> None:
    sagemaker = clary.client("sagemaker")
    url = clary.upload(f"{name}/model.tar.gz", model_archive(name, serve=TRIES))
    container = {"Image": IMAGE, "ModelDataUrl": url}
    sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE, **model)
    variant = {"VariantName": "A", "ModelName": name, "InstanceType": "ml.clary.local", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)


def reach(clary: Clary, name: str, where: str) -> str:
    """Let a model try to connect."""
    answer = clary.client("sagemaker-runtime").invoke_endpoint(EndpointName=name, Body=where.encode())
    return str(answer["Body"].read().decode())


def another_relay(clary: Clary, before: int) -> bool:
    return bool(relays(clary)) and relays(clary) != [before]


def relays(clary: Clary) -> list[int]:
    """Give the processes of the relays that are known."""
    return [json.loads(file.read_text())["pid"] for file in (clary.data / "run" / "relays").glob("*.json")]


def test_an_isolated_model_is_invoked_and_reaches_nothing_whoever_is_killed(own_clary: Clary) -> None:
    clary = own_clary
    if "EnableNetworkIsolation is not possible" in clary.clary("doctor").stdout:
        pytest.skip("this machine cannot isolate: clary doctor says why")
    create(clary, "open")
    create(clary, "shut", EnableNetworkIsolation=True)
    clary.wait("open")
    clary.wait("shut")
    own = f"127.0.0.1:{clary.port}"
    assert reach(clary, "open", own) == "connected"
    for where, said in ((own, "ECONNREFUSED"), ("192.0.2.1:80", "ENETUNREACH"), ("example.com:80", "gaierror")):
        assert reach(clary, "shut", where) == said
    (relay,) = relays(clary)
    os.kill(relay, signal.SIGKILL)
    wait_until(lambda: another_relay(clary, relay), "the relay is replaced", clary.output)
    assert reach(clary, "shut", own) == "ECONNREFUSED"
    (relay,) = relays(clary)
    clary.kill_control()
    assert reach(clary, "shut", own) == "ECONNREFUSED"
    assert relays(clary) == [relay]
    os.kill(relay, signal.SIGKILL)
    wait_until(lambda: another_relay(clary, relay), "the next control plane replaces it too", clary.output)
    assert reach(clary, "shut", own) == "ECONNREFUSED"
    (relay,) = relays(clary)
    clary.delete("shut")
    assert not relays(clary)
    wait_until(lambda: not Path(f"/proc/{relay}").exists(), "the relay has ended", clary.output)
    clary.delete("open")


def test_a_vpc_is_refused_by_the_process_engine_in_words(clary: Clary) -> None:
    create(clary, "vpc", VpcConfig=VPC)
    reason = clary.wait("vpc", "Failed")["FailureReason"]
    for words in ("VpcConfig", "--ignore-vpc", "--engine docker", "[networks]"):
        assert words in reason
    clary.delete("vpc")


def test_a_vpc_can_be_ignored_on_purpose() -> None:
    with running("--ignore-vpc") as clary:
        create(clary, "vpc", VpcConfig=VPC)
        clary.wait("vpc")
        assert clary.client("sagemaker").describe_model(ModelName="vpc")["VpcConfig"] == VPC
