"""What asynchronous inference does at its limits. Three stages, on a whole Clary each; all requests are signed.

kills   kill -9 of control plane, gateway, one of two instances, and the supervisor (which takes the first two with it)
        at random moments, while requests are sent and worked at: every request that was acknowledged must be answered,
        its output be its own, and its notification be there. Clients ask until they are told.
rates   how many requests a second are acknowledged, and how many worked at, and what the control plane's other work
        (DescribeEndpoint) takes meanwhile.
memory  peak memory of the control plane and the gateway for inputs and outputs of 10 MB and of 1 GB.

    .venv/bin/python bench/asynchronous.py kills|rates|memory [--requests 5000] [--kills 20] [--megabytes 1000]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from whole import Whole, running, wait_until

ENDPOINT = "later"
PATH = f"/endpoints/{ENDPOINT}/async-invocations"
TOPIC = "arn:aws:sns:us-east-1:000000000000:done"
BUCKET = "results"


def deploy(clary: Whole, instances: int, concurrency: int, **output: object) -> None:
    """Create the endpoint and the bucket of its answers."""
    clary.client("s3").create_bucket(Bucket=BUCKET)
    config = {
        "OutputConfig": {"S3OutputPath": f"s3://{BUCKET}/out", "S3FailurePath": f"s3://{BUCKET}/failed", **output},
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": concurrency},
    }
    clary.deploy(ENDPOINT, instances, AsyncInferenceConfig=config)


class Unanswered(Exception):
    """No whole answer came."""


class Client:
    """One connection, kept alive."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send a request; give status, headers and body. Raises Unanswered."""
        try:
            async with asyncio.timeout(60):
                if self._stream is None:
                    self._stream = await asyncio.open_connection("127.0.0.1", self._port)
                reader, writer = self._stream
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                # The location is wanted as it was written.
                location = next((line.split(": ", 1)[1] for line in head if "OutputLocation" in line), "")
                body = await reader.readexactly(int(headers.get("content-length", 0)))
        except (OSError, EOFError, TimeoutError) as error:
            self.close()
            raise Unanswered(type(error).__name__) from error
        if headers.get("connection") == "close":
            self.close()
        return int(head[0].split()[1]), {**headers, "location": location}, body

    def close(self) -> None:
        if self._stream is not None:
            self._stream[1].close()
            self._stream = None


# -- kills -------------------------------------------------------------------------------------------------------------


async def send(clary: Whole, numbers: Iterator[int], acknowledged: dict[str, int], troubles: Counter[str]) -> None:
    """Send requests one after the other, each until it is acknowledged; keep where the answers will be."""
    client = Client(clary.port)
    for number in numbers:
        # The request's number is its whole content: an output that is another one's would show it.
        request = clary.request(PATH, b"echo %d" % number, {"X-Amzn-SageMaker-Content-Type": "text/plain"})
        for attempt in count():
            try:
                status, headers, body = await client.ask(request)
            except Unanswered as error:
                troubles[f"{error}"] += 1
            else:
                if status == 202:
                    acknowledged[headers["location"]] = number
                    break
                troubles[f"{status} {body[:120].decode()}"] += 1
            await asyncio.sleep(random.random() * 2 ** min(attempt, 3))
    client.close()


async def reap(clary: Whole, kills: int, pause: float, killed: Counter[str], stop: Callable[[], bool]) -> None:
    """Kill one process after the other."""
    for _ in range(kills):
        await asyncio.sleep(pause * random.uniform(0.2, 1.8))
        if stop():
            return
        kind = random.choice(("control", "control", "gateway", "model", "model", "supervisor"))
        if kind == "supervisor":
            os.kill(clary.process.pid, signal.SIGKILL)
            clary.process.wait()
            await asyncio.to_thread(clary.start)
        else:
            pids = clary.models() if kind == "model" else clary.children(kind)
            if not pids:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(pids), signal.SIGKILL)
        killed[kind] += 1


def outputs(clary: Whole, folder: str) -> dict[str, bytes]:
    """Give the objects below a folder of the results, by location; from the disk, for there are many."""
    root = clary.data / "s3" / BUCKET
    return {f"s3://{BUCKET}/{path.relative_to(root)}": path.read_bytes() for path in sorted((root / folder).rglob("*"))}


def kills(arguments: argparse.Namespace) -> bool:
    with running("--workers", "2") as clary:
        deploy(clary, 2, 8, NotificationConfig={"SuccessTopic": TOPIC, "ErrorTopic": TOPIC})
        acknowledged: dict[str, int] = {}
        troubles, killed = Counter[str](), Counter[str]()
        begun = time.monotonic()
        uvloop.run(_kills(clary, arguments, acknowledged, troubles, killed))
        sent = time.monotonic() - begun
        root = clary.data / "s3" / BUCKET / "out"

        def done() -> int:
            return len(list(root.iterdir())) if root.exists() else 0

        wait_until(lambda: done() >= len(acknowledged), "all are done", 600)
        told_file = clary.data / "notifications.jsonl"

        def told() -> Counter[str]:
            lines = told_file.read_text().splitlines() if told_file.exists() else []
            messages = [json.loads(json.loads(line)["Message"]) for line in lines]
            return Counter(m["responseParameters"]["outputLocation"] for m in messages if "responseParameters" in m)

        wait_until(lambda: acknowledged.keys() <= told().keys(), "all are told of", 120)
        found, failed, seconds = outputs(clary, "out"), outputs(clary, "failed"), time.monotonic() - begun
        lost = acknowledged.keys() - found.keys()
        wrong = [url for url, number in acknowledged.items() if url in found and found[url] != b"echo %d" % number]
        extra = found.keys() - acknowledged.keys()
        twice = sum(1 for times in told().values() if times > 1)
        print(
            f"{arguments.requests} requests, {len(acknowledged)} acknowledged; "
            f"sent in {sent:.0f} s, done in {seconds:.0f} s"
        )
        print(f"  killed          {', '.join(f'{kind} {number}' for kind, number in killed.items())}")
        print(f"  lost            {len(lost)}")
        print(f"  wrong output    {len(wrong)}")
        print(f"  failed          {len(failed)}")
        print(f"  not acknowledged and done all the same  {len(extra)}")
        print(f"  told of twice   {twice}")
        print(f"  clients saw     {dict(troubles)}")
        return not (lost or wrong or failed) and len(acknowledged) == arguments.requests


async def _kills(
    clary: Whole,
    arguments: argparse.Namespace,
    acknowledged: dict[str, int],
    troubles: Counter[str],
    killed: Counter[str],
) -> None:
    numbers = iter(range(arguments.requests))
    sending = asyncio.gather(*(send(clary, numbers, acknowledged, troubles) for _ in range(16)))
    root = clary.data / "s3" / BUCKET / "out"

    def over() -> bool:
        return sending.done() and root.exists() and len(list(root.iterdir())) >= len(acknowledged)

    await reap(clary, arguments.kills, arguments.pause, killed, over)
    await sending


# -- rates -------------------------------------------------------------------------------------------------------------


async def _rates(clary: Whole, requests: int, connections: int) -> None:
    describe = clary.client("sagemaker")
    loop = asyncio.get_running_loop()

    async def watch(stop: asyncio.Event) -> list[float]:
        found = []
        while not stop.is_set():
            begun = time.perf_counter()
            await loop.run_in_executor(None, lambda: describe.describe_endpoint(EndpointName=ENDPOINT))
            found.append((time.perf_counter() - begun) * 1000)
            await asyncio.sleep(0.05)
        return found

    async def stage(name: str, body: bytes, work: Callable[[], object]) -> None:
        stop = asyncio.Event()
        watching = asyncio.create_task(watch(stop))
        begun = time.perf_counter()
        number = await work()  # type: ignore[misc]
        seconds = time.perf_counter() - begun
        stop.set()
        waits = sorted(await watching)
        rate = f"{number / seconds:7.0f} a second" if number else " " * 16
        print(
            f"{name:34s}{rate}   DescribeEndpoint p50 {statistics.median(waits):6.1f} ms  "
            f"p99 {waits[int(len(waits) * 0.99)]:6.1f} ms",
            flush=True,
        )

    async def nothing() -> int:
        await asyncio.sleep(3)
        return 0

    async def acknowledge(body: bytes) -> int:
        left = iter(range(requests))

        async def one() -> None:
            client = Client(clary.port)
            for number in left:
                status, _, said = await client.ask(clary.request(PATH, body + b" %d" % (number % 64)))
                assert status == 202, (status, said)
            client.close()

        await asyncio.gather(*(one() for _ in range(connections)))
        return requests

    def answered() -> int:
        root = clary.data / "s3" / BUCKET / "out"
        return len(list(root.iterdir())) if root.exists() else 0

    async def drained() -> int:
        before = answered()
        goal = requests * 2
        while answered() < goal:  # noqa: ASYNC110 - files tell nobody
            await asyncio.sleep(0.2)
        return goal - before

    await stage("nothing", b"", nothing)
    os.kill(clary.models()[0], signal.SIGSTOP)  # nothing is worked at: what acknowledging costs alone
    await stage("acknowledged, nothing worked at", b"echo", lambda: acknowledge(b"echo"))
    os.kill(clary.models()[0], signal.SIGCONT)
    await stage("acknowledged while others are done", b"echo", lambda: acknowledge(b"echo"))
    await stage("done", b"", drained)


def rates(arguments: argparse.Namespace) -> bool:
    with running() as clary:
        deploy(clary, 1, 16)
        uvloop.run(_rates(clary, arguments.requests, 32))
    return True


# -- memory ------------------------------------------------------------------------------------------------------------


def peak(pid: int) -> float:
    """Give the most memory that a process had so far, in MB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


class Zeros:
    """A file of so many bytes that begins with a word, for boto3."""

    def __init__(self, word: bytes, size: int) -> None:
        self._word, self._left = word, size

    def read(self, size: int = -1) -> bytes:
        size = min(self._left if size < 0 else size, self._left)
        self._left -= size
        word, self._word = self._word[:size], self._word[size:]
        return word + b"x" * (size - len(word))


def memory(arguments: argparse.Namespace) -> bool:
    with running() as clary:
        deploy(clary, 1, 4)
        s3, runtime = clary.client("s3"), clary.client("sagemaker-runtime")
        pids = {"control": clary.children("control")[0], "gateway": clary.children("gateway")[0]}
        peaks: dict[str, list[float]] = {}
        for megabytes in (10, arguments.megabytes):
            size = megabytes * 1_000_000
            s3.upload_fileobj(Zeros(b"count ", size), BUCKET, "in/large")
            for pid in pids.values():
                reset_peak(pid)
            begun = time.monotonic()
            given = runtime.invoke_endpoint_async(EndpointName=ENDPOINT, InputLocation=f"s3://{BUCKET}/in/large")
            said = wait_for(clary, given["OutputLocation"])
            assert said.read_bytes() == b"%d" % size, said.read_bytes()[:100]
            took_in = time.monotonic() - begun
            begun = time.monotonic()
            given = runtime.invoke_endpoint_async(EndpointName=ENDPOINT, Body=b"large %d" % size)
            assert wait_for(clary, given["OutputLocation"]).stat().st_size == size
            took_out = time.monotonic() - begun
            for name, pid in pids.items():
                peaks.setdefault(name, []).append(peak(pid))
            print(f"{megabytes} MB: in {took_in:.1f} s, out {took_out:.1f} s", flush=True)
        flat = True
        for name, (small, large) in peaks.items():
            flat = flat and large < small * 1.3 + 20
            print(f"{name:10s} peak memory {small:6.1f} MB, then {large:6.1f} MB")
        return flat


def wait_for(clary: Whole, url: str) -> Path:
    parts = urlsplit(url)
    path = clary.data / "s3" / parts.netloc / parts.path.lstrip("/")
    wait_until(path.exists, f"{url} is there", 900)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("kills", "rates", "memory"))
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between kills, on average")
    parser.add_argument("--megabytes", type=int, default=1000)
    arguments = parser.parse_args()
    stage = {"kills": kills, "rates": rates, "memory": memory}[arguments.stage]
    sys.exit(0 if stage(arguments) else 1)


if __name__ == "__main__":
    main()
