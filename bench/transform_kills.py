"""`kill -9` at random moments of fifty transform jobs: every object once in the output, none lost, nothing left behind.

Jobs run five at a time, each over some objects of random lines. Meanwhile somebody is killed every now and then: an
agent, the control plane, the gateway, a model. In the end each output is compared with what it should be, and what is
left is looked for: folders of jobs, containers, uploads in parts.

    .venv/bin/python bench/transform_kills.py [--jobs 50] [--seed 1]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from whole import ROLE, Whole, running, wait_until

from transform import archive

OBJECTS, LINES, AT_ONCE = 8, 40, 5
PAUSE = (0.3, 2.5)
"""Seconds between two kills."""


class Killer:
    """Kills until it is told to stop."""

    def __init__(self, clary: Whole, draw: random.Random) -> None:
        self.killed: Counter[str] = Counter()
        self._clary, self._draw = clary, draw
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(self._draw.uniform(*PAUSE)):
            kind = self._draw.choices(("agent", "control", "gateway", "model"), (12, 1, 1, 4))[0]
            if found := self._victims(kind):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._draw.choice(found), signal.SIGKILL)
                    self.killed[kind] += 1

    def _victims(self, kind: str) -> list[int]:
        if kind == "model":
            return self._clary.models()
        if kind == "agent":
            return [int(text) for lock in locks(self._clary) if (text := lock.read_text()) and alive(int(text))]
        return self._clary.children(kind)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def locks(clary: Whole) -> list[Path]:
    return list((clary.data / "run" / "transforms").glob("*/lock"))


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"clary.server\0transform" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def patiently(call: Any, **members: Any) -> Any:
    """Call through kills: what was answered holds, what was not is asked again."""
    while True:
        try:
            return call(**members)
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceInUse":  # it had been done, and the answer was lost
                return None
            if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
                raise
        except BotoCoreError:
            pass
        time.sleep(0.1)


def begin(clary: Whole, name: str, draw: random.Random) -> dict[str, bytes]:
    """Create a job, and give what its outputs should be."""
    s3, sagemaker, expected = clary.client("s3"), clary.client("sagemaker", config=Config(read_timeout=10)), {}
    for number in range(OBJECTS):
        rows = [[draw.randint(0, 999) for _ in range(3)] for _ in range(draw.randint(0, LINES))]
        body = "".join(f"{','.join(map(str, row))}\n" for row in rows)
        patiently(s3.put_object, Bucket="data", Key=f"{name}/{number}.csv", Body=body.encode())
        expected[f"out/{name}/{number}.csv.out"] = "".join(f"{sum(row):.3f}\n" for row in rows).encode()
    patiently(
        sagemaker.create_transform_job,
        TransformJobName=name,
        ModelName="sums",
        MaxConcurrentTransforms=draw.randint(1, 3),
        BatchStrategy=draw.choice(("SingleRecord", "MultiRecord")),
        TransformInput={
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://data/{name}/"}},
            "ContentType": "text/csv",
            "SplitType": "Line",
        },
        TransformOutput={"S3OutputPath": f"s3://data/out/{name}", "AssembleWith": "Line"},
        TransformResources={"InstanceType": "ml.clary.local", "InstanceCount": draw.randint(1, 2)},
    )
    return expected


def wave(clary: Whole, names: list[str], draw: random.Random) -> int:
    """Run some jobs to their ends, and compare; give how many objects were right."""
    expected = {name: begin(clary, name, draw) for name in names}
    sagemaker, s3 = clary.client("sagemaker", config=Config(read_timeout=10)), clary.client("s3")
    for name in names:
        described: dict[str, Any] = {}

        def ended(name: str = name, described: dict[str, Any] = described) -> bool:
            described.update(patiently(sagemaker.describe_transform_job, TransformJobName=name))
            return described["TransformJobStatus"] not in ("InProgress", "Stopping")

        wait_until(ended, f"{name} ends", 300)
        assert described["TransformJobStatus"] == "Completed", described
        for key, body in expected[name].items():
            made = patiently(s3.get_object, Bucket="data", Key=key)["Body"].read()
            assert made == body, f"{key}: {made!r} instead of {body!r}"
    return sum(map(len, expected.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    draw = random.Random(asked.seed)
    with running("--log-level", "error") as clary:
        s3, sagemaker = clary.client("s3"), clary.client("sagemaker")
        for bucket in ("models", "data"):
            s3.create_bucket(Bucket=bucket)
        slow = archive(pause=0.01)
        s3.put_object(Bucket="models", Key="model.tar.gz", Body=slow)
        container = {"Image": "python:3.11", "ModelDataUrl": "s3://models/model.tar.gz"}
        sagemaker.create_model(ModelName="sums", PrimaryContainer=container, ExecutionRoleArn=ROLE)
        names = [f"job-{number:03}" for number in range(asked.jobs)]
        begun, right = time.monotonic(), 0
        with Killer(clary, random.Random(asked.seed + 1)) as killer:
            for first in range(0, len(names), AT_ONCE):
                right += wave(clary, names[first : first + AT_ONCE], draw)
                print(f"{first + AT_ONCE} jobs, {right} objects, killed: {dict(killer.killed)}", flush=True)
        folder = clary.data / "run" / "transforms"
        wait_until(lambda: not list(folder.iterdir()), "the folders of jobs are gone")
        wait_until(lambda: not clary.models(), "the containers are gone")
        uploads = s3.list_multipart_uploads(Bucket="data").get("Uploads", [])
        assert not uploads, uploads
    print(f"{asked.jobs} jobs Completed, {right} objects exact, in {time.monotonic() - begun:.0f} s; "
          f"killed: {dict(killer.killed)}; nothing left behind")  # fmt: skip


if __name__ == "__main__":
    main()
