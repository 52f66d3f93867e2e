"""A whole Clary in processes of its own, models that need nothing but Python, and the real clients."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from clary.credentials import read
from clary.engines.docker.identity import identity
from clary.engines.ports import Ports
from tests.containers import containers_of, left_of

ROLE = "arn:aws:iam::000000000000:role/clary"
IMAGE = "python:3.11"
BIN = Path(sys.executable).parent

SERVE = '''#!/usr/bin/env python3
"""A model server of nothing but the standard library: says who it is, and fails or waits when it is told to."""
import http.server, json, os, sys, time

MODEL = os.environ.get("SM_MODEL_DIR", "/opt/ml/model")
NAME = open(os.path.join(MODEL, "name.txt")).read()
print("loading", NAME, flush=True)
time.sleep(float(os.environ.get("LOAD_SECONDS", "0")))


def wait_for(file):
    while not os.path.exists(file):
        time.sleep(0.01)


if os.environ.get("LOAD_UNTIL"):
    wait_for(os.environ["LOAD_UNTIL"])
if os.environ.get("EXIT_WITH"):
    print("cannot load the model: weights are missing", flush=True)
    sys.exit(int(os.environ["EXIT_WITH"]))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(int(os.environ.get("PING_STATUS", "200")), b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body == b"die":
            os._exit(9)
        if body.startswith(b"sleep"):
            time.sleep(float(body[5:]))
        if body.startswith(b"until "):
            wait_for(body[6:])
        status = int(body[4:]) if body.startswith(b"fail") else 200
        said = {"name": NAME, "pid": os.getpid(), "got": body.decode("latin-1")[:100],
                "type": self.headers["Content-Type"], "env": os.environ.get("GREETING"),
                "role": {k: v for k, v in os.environ.items() if k.startswith(("AWS_CONTAINER", "AWS_ENDPOINT"))},
                "leaked": sorted(k for k in os.environ if k.startswith("CLARY_"))}
        self.answer(status, json.dumps(said).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *whom):
        pass  # on a busy machine a ping leaves before its answer; the log has nothing of it


Server(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
'''


def model_archive(name: str = "one", **files: str) -> bytes:
    """Pack a model.tar.gz that serves itself."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, text in {"name.txt": name, "serve": SERVE, **files}.items():
            member = tarfile.TarInfo(path)
            member.size = len(text.encode())
            member.mode = 0o755
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


@dataclass
class Clary:
    """A running `clary up`."""

    data: Path
    arguments: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] = field(init=False)
    url: str = field(init=False)

    def __post_init__(self) -> None:
        # Kept over restarts: not one of those that connections get, for who asks in vain meanwhile might get this one.
        self.ports = Ports(uuid.uuid4().hex)
        self.port = self.ports.take().port

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CLARY_"))}
        environment |= self.variables
        command = [str(BIN / "clary"), "up", "--data", str(self.data), "--port", str(self.port), *self.arguments]
        with (self.data.parent / "clary.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        wait_until(lambda: self._record.exists() or self.process.poll() is not None, "Clary is up", self.output)
        assert self.process.poll() is None, self.output()
        self.url = str(json.loads(self._record.read_text())["url"])

    @property
    def _record(self) -> Path:
        return self.data / "run" / "clary.json"

    def output(self) -> str:
        return (self.data.parent / "clary.log").read_text()

    def banner(self) -> str:
        """Give the output with all of the banner, which is printed after the record that says that Clary is up."""
        wait_until(lambda: "Ctrl-C stops it" in self.output(), "the banner is out", self.output)
        return self.output()

    @property
    def environment(self) -> dict[str, str]:
        """What `clary env` exports, on top of a clean environment."""
        pair = read(self.data / "credentials")
        assert pair is not None
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CLARY_"))}
        return {
            **clean,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": pair.access_key_id,
            "AWS_SECRET_ACCESS_KEY": pair.secret_access_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
        }

    def client(self, service: str, region: str = "us-east-1", **options: Any) -> Any:
        environment = self.environment
        return boto3.client(
            service,
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            region_name=region,
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            **options,
        )

    def aws(self, *arguments: str, **run: Any) -> subprocess.CompletedProcess[str]:
        """Run the real aws CLI."""
        command = [str(BIN / "aws"), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=600, **run)

    def clary(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a clary command against this Clary."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CLARY_"))}
        command = [str(BIN / "clary"), *arguments, "--data", str(self.data)]
        return subprocess.run(command, env=clean, capture_output=True, text=True, timeout=600)

    def child(self, name: str) -> int:
        """Give the process id of one of the supervisor's children: `control`, `gateway`."""
        for line in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            with contextlib.suppress(OSError):  # it has ended
                if name.encode() in Path(f"/proc/{line}/cmdline").read_bytes().replace(b"\0", b" "):
                    return int(line)
        raise LookupError(name)

    def kill_control(self) -> None:
        """Kill the control plane and wait until the next one answers."""
        killed = self.child("clary.server control")
        os.kill(killed, signal.SIGKILL)

        def replaced() -> bool:
            with contextlib.suppress(LookupError, OSError):
                return self.child("clary.server control") != killed
            return False

        wait_until(replaced, "the control plane is started again", self.output)

    def containers(self, endpoint: str) -> list[str]:
        """Give the containers of an endpoint, running or not, with the engine Docker."""
        return containers_of(endpoint, identity(self.data, self.data / "run" / "docker"))

    # -- the usual steps -----------------------------------------------------------------------------------------------

    def upload(self, key: str, body: bytes, bucket: str = "models") -> str:
        s3 = self.client("s3")
        with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou, s3.exceptions.BucketAlreadyExists):
            s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket=bucket, Key=key, Body=body)
        return f"s3://{bucket}/{key}"

    def create(self, name: str, *, count: int = 1, archive: bytes | None = None, **environment: str) -> None:
        """Create model, configuration and endpoint, all of one name."""
        sagemaker = self.client("sagemaker")
        url = self.upload(f"{name}/model.tar.gz", archive or model_archive(name))
        container = {"Image": IMAGE, "ModelDataUrl": url, "Environment": environment}
        sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "InstanceType": "ml.clary.local",
            "InitialInstanceCount": count,
        }
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)

    def wait(self, name: str, status: str = "InService") -> dict[str, Any]:
        sagemaker = self.client("sagemaker")
        found: dict[str, Any] = {}

        def there() -> bool:
            found.update(sagemaker.describe_endpoint(EndpointName=name))
            return found["EndpointStatus"] != "Creating"

        wait_until(there, f"{name} leaves Creating", self.output)
        assert found["EndpointStatus"] == status, found.get("FailureReason")
        return found

    def delete(self, name: str) -> None:
        """Delete endpoint, configuration and model, and wait until the endpoint is gone."""
        sagemaker = self.client("sagemaker")
        sagemaker.delete_endpoint(EndpointName=name)
        sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 300})
        sagemaker.delete_endpoint_config(EndpointConfigName=name)
        sagemaker.delete_model(ModelName=name)

    def invoke(self, name: str, body: bytes = b"hello") -> dict[str, Any]:
        answer = self.client("sagemaker-runtime").invoke_endpoint(EndpointName=name, Body=body)
        return dict(json.loads(answer["Body"].read()))


def wait_until(true: Callable[[], bool], what: str, explain: Callable[[], str], seconds: float = 300) -> None:
    """Wait for what another process does, which on a busy machine may take its time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}\n{explain()[-8000:]}")
        time.sleep(0.05)


def model_processes(clary: Clary) -> list[int]:
    """Find what runs a model of this Clary, by what it has open: its log below the data folder."""
    found = []
    logs = str(clary.data / "logs" / "aws")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str((process / "fd" / "1").readlink()).startswith(logs):
                found.append(int(process.name))
        except OSError:
            continue
    return found


@contextlib.contextmanager
def running(*arguments: str, environment: dict[str, str] | None = None, data: Path | None = None) -> Iterator[Clary]:
    with tempfile.TemporaryDirectory(prefix="clary-") as folder:  # short: a unix socket's path has 107 characters
        clary = Clary(data or Path(folder) / "data", arguments, environment or {})
        clary.start()
        try:
            yield clary
        finally:
            clary.process.terminate()
            try:
                code = clary.process.wait(300)
            except subprocess.TimeoutExpired:
                clary.process.kill()
                raise
            finally:
                clary.ports.close()
        assert code == 0, clary.output()


@contextlib.contextmanager
def running_on_docker() -> Iterator[Clary]:
    """A Clary whose models are containers, which leaves nothing in Docker."""
    with running("--engine", "docker") as started:
        owner = identity(started.data, started.data / "run" / "docker")
        yield started
    assert not left_of(owner)


@pytest.fixture(scope="session")
def clary() -> Iterator[Clary]:
    """One Clary for all tests that leave it as it was."""
    with running() as started:
        yield started


@pytest.fixture
def own_clary() -> Iterator[Clary]:
    """One Clary for a test that kills parts of it."""
    with running() as started:
        yield started
