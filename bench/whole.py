"""A whole Clary of a benchmark's own, its processes, and requests as SDKs sign them."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import boto3
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from clary.core.routing import RouteTable
from clary.credentials import read

ROLE = "arn:aws:iam::000000000000:role/clary"
FRESH = 60.0
"""Seconds for which a signed request is sent again; a signature is good for five minutes."""


class Whole:
    """A running `clary up`."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        self.port = 0
        self._arguments = arguments
        self._signed: dict[tuple[object, ...], tuple[float, bytes]] = {}
        self.start()
        pair = read(data / "credentials")
        assert pair is not None
        self.pair = pair

    def start(self) -> None:
        """Start it, after it was killed on the port that it had."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CLARY_"))}
        command = [sys.executable, "-m", "clary.cli.main", "up", "--data", str(self.data), "--port", str(self.port)]
        record = self.data / "run" / "clary.json"
        record.unlink(missing_ok=True)
        with (self.data.parent / "clary.log").open("ab") as log:
            self.process = subprocess.Popen([*command, *self._arguments], env=clean, stdout=log, stderr=log)
        try:
            wait_until(lambda: record.exists() or self.process.poll() is not None, "Clary starts")
            assert self.process.poll() is None, "Clary has ended"
        except BaseException:
            print((self.data.parent / "clary.log").read_text()[-4000:])
            self.process.kill()
            self.process.wait()
            raise
        self.url = str(json.loads(record.read_text())["url"])
        self.port = int(self.url.rpartition(":")[2])

    # -- processes -----------------------------------------------------------------------------------------------------

    def children(self, role: str) -> list[int]:
        """Give the process ids of the supervisor's children of a role: `control`, `gateway`; the oldest first."""
        found = []
        pid = self.process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if f"clary.server\0{role}".encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
        return found

    def models(self) -> list[int]:
        """Give the process ids of what runs a model, found by the log that each has open; the oldest first."""
        logs = str(self.data / "logs")
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str((process / "fd" / "1").readlink()).startswith(logs):
                    found.append(int(process.name))
        return sorted(found)

    def ready(self, endpoint: str) -> int:
        """Count the instances that the route table has for an endpoint."""
        table = RouteTable.from_json(json.loads((self.data / "run" / "routes.json").read_bytes()))
        return sum(len(variant.targets) for variant in table.endpoints[endpoint].variants)

    # -- the control plane's side --------------------------------------------------------------------------------------

    def client(self, service: str, **options: Any) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.pair.access_key_id,
            aws_secret_access_key=self.pair.secret_access_key,
            **options,
        )

    def deploy(self, name: str, count: int, **config: Any) -> None:
        """Create an endpoint of `bench/container.py`, and wait until it is InService; `config` has more members."""
        s3, sagemaker = self.client("s3"), self.client("sagemaker")
        s3.create_bucket(Bucket="models")
        s3.put_object(Bucket="models", Key="model.tar.gz", Body=archive())
        container = {"Image": "python:3.11", "ModelDataUrl": "s3://models/model.tar.gz"}
        sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
        variant = {"VariantName": "A", "ModelName": name, "InstanceType": "ml.clary.local"}
        variants = [{**variant, "InitialInstanceCount": count}]
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants, **config)
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1})

    # -- requests ------------------------------------------------------------------------------------------------------

    def request(
        self,
        path: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
        *,
        s3: bool = False,
    ) -> bytes:
        """Give a signed request as it goes over the wire; signed anew each minute."""
        key = (method, path, body if len(body) < 100 else hash(body), *(headers or {}).items())
        at, made = self._signed.get(key, (0.0, b""))
        if time.monotonic() - at > FRESH or not made:
            request = AWSRequest(method, f"{self.url}{path}", data=body, headers=dict(headers or {}))
            credentials = Credentials(self.pair.access_key_id, self.pair.secret_access_key)
            auth = S3SigV4Auth if s3 else SigV4Auth
            auth(credentials, "s3" if s3 else "sagemaker", "us-east-1").add_auth(request)
            request.headers["Host"] = f"127.0.0.1:{self.port}"
            request.headers["Content-Length"] = str(len(body))
            lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
            made = f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body
            if len(self._signed) > 1000:
                self._signed.clear()
            self._signed[key] = (time.monotonic(), made)
        return made


def archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        member = packed.gettarinfo(Path(__file__).with_name("container.py"), "serve")
        member.mode = 0o755
        with Path(__file__).with_name("container.py").open("rb") as file:
            packed.addfile(member, file)
    return buffer.getvalue()


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[Whole]:
    """Run a Clary in a folder of its own, and end it; its log is shown where something goes wrong."""
    with tempfile.TemporaryDirectory(prefix="clary-") as folder:
        clary = Whole(Path(folder) / "data", *arguments)
        try:
            yield clary
        finally:
            clary.process.terminate()
            clary.process.wait(300)


def wait_until(true: Callable[[], bool], what: str, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def with_sdk(script: str, about: str | None, needs: str, prepare: Callable[[Whole], None]) -> NoReturn:
    """Get a Clary ready, and run a script again as its client, in a Python that has what it needs; exit as that does.

    It knows by the variable INSIDE that it is the client.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sdk-python", required=True, help=f"the Python of an environment with {needs}")
    python = parser.parse_args().sdk_python
    with running() as clary:
        prepare(clary)
        environment = {
            **os.environ,
            "AWS_ENDPOINT_URL": clary.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": clary.pair.access_key_id,
            "AWS_SECRET_ACCESS_KEY": clary.pair.secret_access_key,
            "SAGEMAKER_SUPPRESS_V2_WARNING": "1",
            "INSIDE": "1",
        }
        code = subprocess.run([python, script], env=environment, check=False).returncode
    sys.exit(code)
