"""Every way in which a model does not start: what a user reads, and that the endpoint goes when it is told to.

All models of an engine fail at the same time, because the shortest window that the service model allows is a minute.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import ROLE, Clary, running, wait_until
from tests.containers import build, missing

pytestmark = pytest.mark.acceptance

WINDOW = 60
"""Seconds: the least that ContainerStartupHealthCheckTimeoutInSeconds can be."""

SERVE = """#!/usr/bin/env python3
import http.server, os, sys, time
PORT = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
MODE = os.environ.get("MODE")
print("starting", MODE, flush=True)
if MODE == "exits":
    sys.exit("weights are missing")
if MODE == "memory":
    hog = []
    while True:
        hog.append(b"x" * 64_000_000)
if MODE == "deaf":
    time.sleep(1000)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(3 if MODE == "slow" else 0)
        self.send_response(500 if MODE == "sick" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

http.server.ThreadingHTTPServer(("0.0.0.0", PORT + (7 if MODE == "elsewhere" else 0)), Handler).serve_forever()
"""


@dataclass(frozen=True)
class Case:
    """A model that fails: what it is made of, and what is said of it."""

    reason: tuple[str, ...]
    advice: str
    environment: Mapping[str, str] = field(default_factory=dict)
    archive: bytes | None = None
    data: str = "good"
    """Which object its ModelDataUrl is: `good`, `hostile`, `missing`, `forbidden`, `large`."""
    instance_type: str = "ml.clary.local"
    silent: bool = False
    """It fails before it could write a log."""
    model: Mapping[str, Any] = field(default_factory=dict)
    window: int = WINDOW
    """Seconds that it has: as long as it takes, where the machine decides when it fails."""


PING = "The primary container for production variant AllTraffic did not pass the ping health check."
CASES = {
    "exits": Case((PING, "exited with 1 (3 starts)", "weights are missing"), "clary logs exits", {"MODE": "exits"}),
    "deaf": Case((PING, "port never opened, for 60 s"), "SAGEMAKER_BIND_TO_PORT", {"MODE": "deaf"}),
    "elsewhere": Case(
        (PING, "port never opened (it listens on 0.0.0.0:", "), for 60 s"), "SAGEMAKER_BIND_TO_PORT",
        {"MODE": "elsewhere"},
    ),
    "sick": Case((PING, "ping answered 500, for 60 s"), "must answer GET /ping with 200", {"MODE": "sick"}),
    "slow": Case((PING, "ping too slow: no answer within 2 s"), "must answer GET /ping within 2 s", {"MODE": "slow"}),
    "memory": Case(
        (PING, "killed for memory (limit 3.75 GiB)"), "larger instance type", {"MODE": "memory"}, None, "good",
        "ml.c4.large", window=600,
    ),
    "hostile": Case(
        ("Failed to extract model data archive", "../../etc/passwd"), "Pack it from within", data="hostile", silent=True
    ),
    "missing": Case(("Failed to download model data", "no such object"), "aws s3 ls", data="missing", silent=True),
    "forbidden": Case(
        ("Failed to download model data", "the store refuses access"), "aws s3 cp", data="forbidden", silent=True
    ),
    "full": Case(
        ("Failed to download model data", "incoming: the disk is full"), "Make room", data="large", silent=True
    ),
}  # fmt: skip


def packed(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


OBJECTS = {
    "good": packed(serve=SERVE.encode()),
    "hostile": packed(**{"../../etc/passwd": b""}),
    "large": packed(serve=SERVE.encode(), weights=os.urandom(1_000_000) * 24),
}


class Store(BaseHTTPRequestHandler):
    """An S3 that has a few objects, and refuses others."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        key = self.path.partition("?")[0].strip("/").split("/")[-1].removesuffix(".tar.gz")
        if key == "forbidden":
            self._answer(403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
        elif key in OBJECTS:
            self._answer(200, OBJECTS[key])
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code><Message>There is no such key.</Message></Error>")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{len(body)}"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def store() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@dataclass
class Table:
    """A Clary on which every case has been tried."""

    clary: Clary
    engine: str
    descriptions: dict[str, dict[str, Any]]
    left_out: dict[str, str]
    """Cases that this machine cannot have, and why."""


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[str | None]:
    """Let the artifacts be on a disk of 8 MiB; give why that cannot be."""
    folder.mkdir(parents=True)
    mounting = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True)
    if mounting.returncode:
        yield "only root can mount a small disk"
        return
    try:
        yield None
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module", params=["process", "docker"])
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    engine = request.param
    if engine == "docker" and (lacking := missing()) is not None:
        pytest.skip(f"containers: {lacking}")
    image = (
        build("clary/test-failures:1", {"serve": SERVE}, 'ENTRYPOINT ["python3"]', 'CMD ["/serve"]')
        if engine == "docker"
        else "python:3.11"
    )
    left_out: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clary-"))) / "data"
        if (trouble := stack.enter_context(small_disk(data / "artifacts"))) is not None:
            left_out["full"] = trouble
        url = stack.enter_context(store())
        clary = stack.enter_context(running("--engine", engine, "--defer-checks", "--s3-endpoint", url, data=data))
        if engine == "process" and "emory of models is not limited" in clary.clary("doctor").stdout:
            left_out["memory"] = "no control group limits memory here"
        tried = {name: case for name, case in CASES.items() if name not in left_out}
        for name, case in tried.items():
            create(clary, name, case, image)
        with ThreadPoolExecutor(len(tried)) as waiting:
            descriptions = dict(zip(tried, waiting.map(lambda name: failed(clary, name), tried), strict=True))
        yield Table(clary, engine, descriptions, left_out)


def create(clary: Clary, name: str, case: Case, image: str) -> None:
    sagemaker = clary.client("sagemaker")
    container = {
        "Image": image,
        "ModelDataUrl": f"s3://models/{case.data}.tar.gz",
        "Environment": dict(case.environment),
    }
    sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE, **case.model)
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": name,
        "InstanceType": case.instance_type,
        "InitialInstanceCount": 1,
        "ContainerStartupHealthCheckTimeoutInSeconds": case.window,
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)


def failed(clary: Clary, name: str) -> dict[str, Any]:
    """Wait until an endpoint has failed; that takes its window and the last attempt at most."""
    sagemaker = clary.client("sagemaker")
    found: dict[str, Any] = {}

    def there() -> bool:
        found.update(sagemaker.describe_endpoint(EndpointName=name))
        time.sleep(0.5)
        return bool(found["EndpointStatus"] != "Creating")

    wait_until(there, f"{name} leaves Creating", clary.output, CASES[name].window + 120)
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_failure_explains_itself_and_the_endpoint_goes_at_once(table: Table, name: str) -> None:
    if name in table.left_out:
        pytest.skip(f"{name} on the {table.engine} engine: {table.left_out[name]}")
    case, clary = CASES[name], table.clary
    description = table.descriptions[name]
    assert description["EndpointStatus"] == "Failed"
    reason = description["FailureReason"]
    for words in (*case.reason, f"clary doctor {name}"):
        assert words in reason
    if not case.silent:
        begun = f"starting {case.environment['MODE']}"
        wait_until(
            lambda: begun in clary.clary("logs", name, "--lines", "100000").stdout, "its log is there", clary.output
        )
    doctor = clary.clary("doctor", name)
    assert doctor.returncode == 1
    said = " ".join(doctor.stdout.split())
    for words in (case.reason[-1], case.advice):
        assert " ".join(words.split()) in said
    sagemaker = clary.client("sagemaker")
    started = time.monotonic()
    sagemaker.delete_endpoint(EndpointName=name)
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 300})
    assert time.monotonic() - started < WINDOW, "less than its window"
