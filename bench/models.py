"""Does CreateModel stay as fast with 10,000 models as with none, and does ListModels page through all of them?

Signed requests by boto3 through the gateway to a Clary of its own. The ratio is of medians in one run: the last
hundredth of the models over the first.

    .venv/bin/python bench/models.py [--models 10000]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3

from clary.credentials import read


def start(data: Path) -> tuple[subprocess.Popen[bytes], Any]:
    clary = subprocess.Popen(
        [sys.executable, "-m", "clary.cli.main", "up", "--data", str(data), "--port", "0", "--log-level", "error"],
        stdout=subprocess.DEVNULL,
    )
    record = data / "run" / "clary.json"
    deadline = time.monotonic() + 60
    while not record.exists():
        if time.monotonic() > deadline or clary.poll() is not None:
            raise SystemExit("Clary does not start")
        time.sleep(0.05)
    pair = read(data / "credentials")
    assert pair is not None
    client = boto3.client(
        "sagemaker",
        endpoint_url=json.loads(record.read_text())["url"],
        region_name="us-east-1",
        aws_access_key_id=pair.access_key_id,
        aws_secret_access_key=pair.secret_access_key,
    )
    return clary, client


def timed(call: Callable[..., Any], **members: Any) -> float:
    begun = time.perf_counter()
    call(**members)
    return (time.perf_counter() - begun) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=10_000)
    number = parser.parse_args().models
    with tempfile.TemporaryDirectory(prefix="clary-") as folder:
        clary, client = start(Path(folder))
        try:
            client.list_models()  # the first call of a client is its slowest
            times = [
                timed(client.create_model, ModelName=f"model-{each:06}", PrimaryContainer={"Image": "python:3.11"})
                for each in range(number)
            ]
            part = max(1, number // 100)
            first, last = statistics.median(times[:part]), statistics.median(times[-part:])
            print(f"CreateModel, {number} models: first {part} {first:.2f} ms, last {part} {last:.2f} ms (medians)")
            print(f"ratio of last to first: {last / first:.2f}")
            for name, filters in (("all", {}), ("NameContains=99", {"NameContains": "99"})):
                begun = time.perf_counter()
                pages = client.get_paginator("list_models").paginate(**filters, PaginationConfig={"PageSize": 100})
                found = [model["ModelName"] for page in pages for model in page["Models"]]
                expected = [
                    f"model-{each:06}" for each in range(number) if filters.get("NameContains", "") in f"{each:06}"
                ]
                assert sorted(found) == expected, "ListModels did not give every model once"
                print(f"ListModels, {name}: {len(found)} models in {time.perf_counter() - begun:.2f} s")
        finally:
            clary.terminate()
            clary.wait(60)


if __name__ == "__main__":
    main()
