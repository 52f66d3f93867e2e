"""Thousands of models behind one multi-model endpoint, with memory for some: hits, misses, loads, and what they cost.

A Clary of its own, one instance, a server of a few lines that holds so many models and answers 507 beyond. Requests are
for models by a Zipf distribution. A single-model endpoint with the same server is asked in turn with the hits, and
resident models once with and once without a storm of cold loads. Read the ratios.

    .venv/bin/python bench/residency.py [--models 10000] [--memory 500] [--requests 6000] [--seconds 10]
"""

from __future__ import annotations

import argparse
import concurrent.futures
import http.client
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from clary.credentials import read

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.acceptance.multi_model import SERVER

# One model is asked at another path; it answers as one of many does.
SINGLE = SERVER.replace(
    '        name = self.path.split("/")[2]\n        if name not in MODELS:',
    '        name = "only" if self.path == "/invocations" else self.path.split("/")[2]\n'
    '        if name == "only":\n            MODELS[name] = "1"\n        if name not in MODELS:',
)
SKEW = 1.1
ROLE = "arn:aws:iam::000000000000:role/clary"


class Clary:
    """A running Clary and what asks it."""

    def __init__(self, folder: Path) -> None:
        (folder / "server.py").write_text(SINGLE)
        entry = f"[[image]]\nname = 'many'\npattern = 'many'\ncommand = ['{{python}}', '{folder}/server.py']\n"
        (folder / "catalogue.toml").write_text(entry)
        data = folder / "data"
        words = ["up", "--data", str(data), "--port", "0", "--catalogue", str(folder / "catalogue.toml")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "clary.cli.main", *words, "--log-level", "error"], stdout=subprocess.DEVNULL
        )
        record = data / "run" / "clary.json"
        while not record.exists():
            time.sleep(0.05)
        pair = read(data / "credentials")
        assert pair is not None
        self.url = json.loads(record.read_text())["url"]
        self.port = int(self.url.rpartition(":")[2])
        self.key = Credentials(pair.access_key_id, pair.secret_access_key)
        self.bucket = data / "s3" / "models"
        self._local = threading.local()

    def client(self, service: str) -> Any:
        return boto3.client(
            service, endpoint_url=self.url, region_name="us-east-1",
            aws_access_key_id=self.key.access_key, aws_secret_access_key=self.key.secret_key,
        )  # fmt: skip

    def deploy(self, name: str, **container: Any) -> None:
        sagemaker = self.client("sagemaker")
        sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": "many", **container}, ExecutionRoleArn=ROLE)
        variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.clary.local", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1})

    def ask(self, endpoint: str, target: str | None = None) -> tuple[float, dict[str, Any]]:
        """Invoke; give the milliseconds from sending to the whole answer, and the answer."""
        url = f"http://127.0.0.1:{self.port}/endpoints/{endpoint}/invocations"
        headers = {"X-Amzn-SageMaker-Target-Model": target} if target else {}
        request = AWSRequest("POST", url, data=b"x", headers=headers)
        SigV4Auth(self.key, "sagemaker", "us-east-1").add_auth(request)
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection("127.0.0.1", self.port)
        began = time.perf_counter()
        self._local.connection.request("POST", f"/endpoints/{endpoint}/invocations", b"x", dict(request.headers))
        answer = self._local.connection.getresponse()
        body = answer.read()
        taken = (time.perf_counter() - began) * 1000
        if answer.status != 200:
            raise SystemExit(f"{answer.status}: {body.decode()}")
        return taken, json.loads(body)


def archive(number: int, size: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, data in (("weight.txt", str(number).encode()), ("data", os.urandom(size))):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def percentiles(times: list[float]) -> str:
    if len(times) < 2:
        return "-"
    cuts = statistics.quantiles(times, n=100)
    return f"p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms"


def zipf(clary: Clary, models: int, requests: int, memory: int) -> list[int]:
    """Ask for models by their popularity; print hits and misses; give those that are loaded."""
    weights = [1 / rank**SKEW for rank in range(1, models + 1)]
    wanted = random.Random(1).choices(range(models), weights, k=requests)
    held: set[int] = set()
    hits: list[float] = []
    misses: list[float] = []
    loads: dict[int, int] = {}
    for number in wanted:
        taken, said = clary.ask("many", f"{number}.tar.gz")
        if said["weight"] != str(number):
            raise SystemExit(f"{number} was answered by {said['weight']}")
        loaded = said["loads"] != loads.get(number, 0)
        (misses if loaded else hits).append(taken)
        loads[number] = said["loads"]
        held.add(number)
    total = sum(loads.values())
    print(f"{requests} requests for {len(held)} of {models} models, memory for {memory}, Zipf {SKEW}")
    print(f"hit ratio {len(hits) / requests:.3f}, {total} loads, {total - len(misses)} of them without need")
    print(f"hits   {percentiles(hits)}\nmisses {percentiles(misses)}", flush=True)
    return list(dict.fromkeys(reversed(wanted)))[: memory // 5]


def beside_single(clary: Clary, resident: list[int], number: int) -> None:
    """Ask a single-model endpoint and resident models in turn."""
    single: list[float] = []
    many: list[float] = []
    for turn in range(number):
        single.append(clary.ask("one")[0])
        many.append(clary.ask("many", f"{resident[turn % len(resident)]}.tar.gz")[0])
    ratio = statistics.median(many) / statistics.median(single)
    print(
        f"single {percentiles(single)}\nhit    {percentiles(many)}\np50 of a hit over single-model: {ratio:.2f}",
        flush=True,
    )


def storm(clary: Clary, resident: list[int], models: int, seconds: float) -> None:
    """Ask resident models, in turn without and with a storm of requests for models that are not loaded."""
    calm: list[float] = []
    stormy: list[float] = []
    cold = iter(range(models - 1, 0, -1))
    stop = threading.Event()
    count = 0

    def load() -> None:
        nonlocal count
        while not stop.is_set():
            clary.ask("many", f"{next(cold)}.tar.gz")
            count += 1

    for _ in range(4):
        for times, storming in ((calm, False), (stormy, True)):
            stop.clear()
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                if storming:
                    for _ in range(4):
                        pool.submit(load)
                until = time.monotonic() + seconds / 4
                while time.monotonic() < until:
                    times.append(clary.ask("many", f"{random.choice(resident)}.tar.gz")[0])
                    time.sleep(0.002)
                stop.set()
    ratio = statistics.quantiles(stormy, n=100)[98] / statistics.quantiles(calm, n=100)[98]
    print(f"resident, calm  {percentiles(calm)}\nresident, storm {percentiles(stormy)}, {count} cold loads meanwhile")
    print(f"p99 of residents in a storm over calm: {ratio:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--memory", type=int, default=500)
    parser.add_argument("--requests", type=int, default=6_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clary-") as folder:
        clary = Clary(Path(folder))
        try:
            clary.client("s3").create_bucket(Bucket="models")
            place = clary.bucket / "many"
            place.mkdir()
            for number in range(arguments.models):
                (place / f"{number}.tar.gz").write_bytes(archive(number, arguments.size))
            memory = {"MODELS": str(arguments.memory)}
            clary.deploy("many", Mode="MultiModel", ModelDataUrl="s3://models/many/", Environment=memory)
            clary.deploy("one")
            resident = zipf(clary, arguments.models, arguments.requests, arguments.memory)
            beside_single(clary, resident, 2000)
            storm(clary, resident, arguments.models, arguments.seconds)
        finally:
            clary.process.terminate()
            clary.process.wait(60)


if __name__ == "__main__":
    main()
