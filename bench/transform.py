"""Batch transform beside a client written by hand: the same million lines to the same container, as many at once.

The client is what one would write for this one container and nothing else: uvloop, a protocol of a few lines that knows
its answers have a Content-Length, no retries, no filters, no journal. It reads from the same S3 and writes to it. Both
run in turn; the ratio is of medians in one run: records per second of the job, from TransformStartTime to
TransformEndTime, over the client's.

Peak memory is that of agent, gateway and control plane from the upload of the input to the end of the job, for a
container that answers what it is sent, so that the output is as large. 10 GB need 40 GB of disk.

    .venv/bin/python bench/transform.py [--lines 1000000] [--rounds 3] [--only multi|single|memory] [--sizes 10MB 1GB]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import random
import statistics
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from obstore.store import S3Store
from whole import ROLE, Whole, running

from clary.core.routing import RouteTable

MIB = 1024 * 1024
PAYLOAD = 6 * MIB
LINE = 40
"""Bytes, about."""
LOOK = 1.0
"""Seconds between looks at a job. To describe one takes milliseconds of the cores on which it works; its times are its
own, and do not depend on this."""
SIZES = {"10MB": 10**7, "1GB": 10**9, "3GB": 3 * 10**9, "10GB": 10**10}
"""Bytes of input, about, for which memory is looked at."""

SERVE = '''#!/usr/bin/env python3
"""Answers each line with the sum of its fields, or (ECHO) with itself. Nothing but the standard library."""
import asyncio, os, time


class Container(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.pieces, self.missing, self.head = transport, [], 0, b""

    def data_received(self, data):
        if not self.head:
            self.head, _, data = data.partition(b"\\r\\n\\r\\n")
            _, named, rest = self.head.lower().partition(b"content-length: ")
            self.missing = int(rest.partition(b"\\r\\n")[0]) if named else 0
        self.pieces.append(data)
        self.missing -= len(data)
        if self.missing <= 0:
            body = b"".join(self.pieces)
            if self.head.startswith(b"GET /execution"):
                status, answer = b"404 Not Found", b""
            else:
                answer = body if "ECHO" in os.environ else sums(body.splitlines())
                status = b"200 OK"
            self.head, self.pieces = b"", []
            if PAUSE:
                time.sleep(PAUSE)
            self.transport.write(
                b"HTTP/1.1 %b\\r\\nContent-Type: text/csv\\r\\nContent-Length: %d\\r\\n\\r\\n%b"
                % (status, len(answer), answer)
            )


def sums(lines):
    return b"".join(b"%.3f\\n" % sum(map(float, line.split(b","))) for line in lines)


async def main():
    port = int(os.environ["SAGEMAKER_BIND_TO_PORT"])
    server = await asyncio.get_running_loop().create_server(Container, "127.0.0.1", port)
    await server.serve_forever()


asyncio.run(main())
'''


# -- the client written by hand ----------------------------------------------------------------------------------------


class Connection(asyncio.Protocol):
    """One of the client's connections."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.pieces: list[bytes] = []
        self.missing = -1

    def ask(self, body: bytes) -> asyncio.Future[bytes]:
        self.future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        head = b"POST /invocations HTTP/1.1\r\nHost: model\r\nContent-Type: text/csv\r\nContent-Length: %d\r\n\r\n"
        self.transport.write(head % len(body) + body)
        return self.future

    def data_received(self, data: bytes) -> None:
        if self.missing < 0:
            head, _, data = data.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            self.missing = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.pieces.append(data)
        self.missing -= len(data)
        if self.missing == 0:
            answer, self.pieces, self.missing = b"".join(self.pieces), [], -1
            self.future.set_result(answer)


def requests(data: bytes, single: bool) -> Iterator[bytes]:
    if single:
        yield from data.splitlines(keepends=True)
        return
    start = 0
    while start < len(data):
        end = len(data) if len(data) - start <= PAYLOAD else data.rindex(b"\n", start, start + PAYLOAD) + 1
        yield data[start:end]
        start = end


async def client(store: S3Store, port: int, concurrency: int, single: bool) -> float:
    """Do it by hand; give the seconds that it took."""
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    data = bytes(await (await store.get_async("big/input.csv")).bytes_async())
    todo = enumerate(requests(data, single))
    answers: dict[int, bytes] = {}

    async def work() -> None:
        _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
        for number, body in todo:
            answers[number] = await connection.ask(body)

    await asyncio.gather(*(work() for _ in range(concurrency)))
    await store.put_async("hand.out", b"".join(answers[number] for number in range(len(answers))))
    return time.perf_counter() - begun


# -- the job -----------------------------------------------------------------------------------------------------------


class Bench:
    def __init__(self, clary: Whole) -> None:
        self.clary = clary
        self.s3, self.sagemaker = clary.client("s3"), clary.client("sagemaker")
        for bucket in ("models", "data"):
            self.s3.create_bucket(Bucket=bucket)
        self.s3.put_object(Bucket="models", Key="model.tar.gz", Body=archive())
        container = {"Image": "python:3.11", "ModelDataUrl": "s3://models/model.tar.gz"}
        self.sagemaker.create_model(ModelName="sums", PrimaryContainer=container, ExecutionRoleArn=ROLE)
        self.number = 0
        self.peaks: dict[str, int] = {}

    def job(self, source: str, concurrency: int, single: bool, **environment: str) -> float:
        """Run a job; give the seconds that it took, and keep the peaks of memory."""
        self.number += 1
        name = f"job-{self.number}"
        self.sagemaker.create_transform_job(
            TransformJobName=name,
            ModelName="sums",
            MaxConcurrentTransforms=concurrency,
            MaxPayloadInMB=6,
            BatchStrategy="SingleRecord" if single else "MultiRecord",
            Environment=environment,
            TransformInput={
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://data/{source}"}},
                "ContentType": "text/csv",
                "SplitType": "Line",
            },
            TransformOutput={"S3OutputPath": "s3://data/out"},
            TransformResources={"InstanceType": "ml.clary.local", "InstanceCount": 1},
        )
        stop = threading.Event()
        watching = threading.Thread(target=self.watch, args=(stop,))
        watching.start()
        described: dict[str, Any] = {}

        def ended() -> bool:
            described.update(self.sagemaker.describe_transform_job(TransformJobName=name))
            return described["TransformJobStatus"] not in ("InProgress", "Stopping")

        try:
            while not ended():
                time.sleep(LOOK)
        finally:
            stop.set()
            watching.join()
        assert described["TransformJobStatus"] == "Completed", described
        return float((described["TransformEndTime"] - described["TransformStartTime"]).total_seconds())

    def upload(self, piece: bytes, times: int) -> None:
        """Write an object that is a piece over and over; never all of it is in memory."""
        where = {"Bucket": "data", "Key": "big/input.csv"}
        upload = {**where, "UploadId": self.s3.create_multipart_upload(**where)["UploadId"]}
        parts = [
            {"PartNumber": number, "ETag": self.s3.upload_part(**upload, PartNumber=number, Body=piece)["ETag"]}
            for number in range(1, times + 1)
        ]
        self.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})

    def watch(self, stop: threading.Event) -> None:
        """Note the peaks of resident memory, in bytes, by process."""
        self.peaks = {}
        while not stop.wait(0.05 if "agent" not in self.peaks else LOOK):  # the kernel keeps the peak
            controls = self.clary.children("control")
            found = {"control plane": controls, "gateway": self.clary.children("gateway")}
            found["agent"] = [pid for control in controls for pid in agents_of(control)]
            for name, pids in found.items():
                for pid in pids:
                    with contextlib.suppress(OSError):
                        status = Path(f"/proc/{pid}/status").read_text()
                        peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
                        self.peaks[name] = max(self.peaks.get(name, 0), peak)

    def by_hand(self, concurrency: int, single: bool) -> float:
        """Run the client in a process of its own, against a container of the endpoint `sums`."""
        pair = self.clary.pair
        port = self.port()
        command = [sys.executable, __file__, "--client", self.clary.url, pair.access_key_id, pair.secret_access_key]
        done = subprocess.run(
            [*command, str(port), str(concurrency), str(int(single))], capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    def port(self) -> int:
        table = RouteTable.from_json(json.loads((self.clary.data / "run" / "routes.json").read_bytes()))
        return table.endpoints["sums"].variants[0].targets[0].hops[0].port

    def deploy(self) -> None:
        variant = {"VariantName": "A", "ModelName": "sums", "InstanceType": "ml.clary.local", "InitialInstanceCount": 1}
        self.sagemaker.create_endpoint_config(EndpointConfigName="sums", ProductionVariants=[variant])
        self.sagemaker.create_endpoint(EndpointName="sums", EndpointConfigName="sums")
        waiter = self.sagemaker.get_waiter("endpoint_in_service")
        waiter.wait(EndpointName="sums", WaiterConfig={"Delay": 1})


def agents_of(parent: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            with contextlib.suppress(OSError):
                if b"clary.server\0transform" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found


def archive(pause: float = 0.0) -> bytes:
    """Pack the container; `pause` in seconds, before each answer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        member, serve = tarfile.TarInfo("serve"), SERVE.replace("PAUSE", str(pause)).encode()
        member.size, member.mode = len(serve), 0o755
        packed.addfile(member, io.BytesIO(serve))
    return buffer.getvalue()


def lines(number: int) -> bytes:
    """Make that many lines of five numbers."""
    draw = random.Random(1)
    some = b"".join(b",".join(b"%.4f" % draw.uniform(-9, 9) for _ in range(5)) + b"\n" for _ in range(10_000))
    whole, rest = divmod(number, 10_000)
    return some * whole + b"".join(some.splitlines(keepends=True)[:rest])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--only", choices=("multi", "single", "memory"))
    parser.add_argument("--sizes", choices=SIZES, nargs="+", default=["10MB", "1GB"])
    asked = parser.parse_args()
    with running("--log-level", "warning") as clary:
        bench = Bench(clary)
        if asked.only != "memory":
            bench.deploy()
            bench.s3.put_object(Bucket="data", Key="big/input.csv", Body=lines(asked.lines))
        for kind in ("multi", "single"):
            if asked.only in (None, kind):
                compare(bench, asked, single=kind == "single")
    if asked.only in (None, "memory"):
        for size in asked.sizes:
            memory(size)


def compare(bench: Bench, asked: argparse.Namespace, *, single: bool) -> None:
    concurrency = asked.concurrency if single else 2
    times: dict[str, list[float]] = {"job": [], "by hand": []}
    for _ in range(asked.rounds):
        times["job"].append(bench.job("big/", concurrency, single))
        times["by hand"].append(bench.by_hand(concurrency, single))
    same = bench.s3.get_object(Bucket="data", Key="out/input.csv.out")["Body"].read()
    assert same == bench.s3.get_object(Bucket="data", Key="hand.out")["Body"].read(), "the outputs differ"
    rates = {name: asked.lines / statistics.median(found) for name, found in times.items()}
    kind = "SingleRecord" if single else "MultiRecord"
    print(f"{kind}, {asked.lines:,} lines, {concurrency} at once; seconds: {times}")
    print(f"{kind}: job {rates['job']:,.0f} lines/s, by hand {rates['by hand']:,.0f}, "
          f"ratio {rates['job'] / rates['by hand']:.2f}", flush=True)  # fmt: skip


def memory(size: str) -> None:
    """Look at peaks in a Clary of its own: the kernel never takes one back."""
    piece = lines(200_000)
    with running("--log-level", "warning") as clary:
        bench = Bench(clary)
        bench.upload(piece, max(1, SIZES[size] // len(piece)))
        seconds = bench.job("big/", 2, single=False, ECHO="1")
        given, made = (bench.s3.head_object(Bucket="data", Key=key) for key in ("big/input.csv", "out/input.csv.out"))
        assert given["ContentLength"] == made["ContentLength"], "something is missing"
        peaks = ", ".join(f"{name} {peak / MIB:.0f} MiB" for name, peak in sorted(bench.peaks.items()))
        print(f"peak memory, {size} of input: {peaks} ({seconds:.1f} s)", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--client"]:
        import uvloop

        url, key, secret, port, number, is_single = sys.argv[2:]
        made = S3Store(
            "data",
            config={"endpoint": url, "region": "us-east-1", "access_key_id": key, "secret_access_key": secret},
            client_options={"allow_http": True},
        )
        print(uvloop.run(client(made, int(port), int(number), is_single == "1")))
    else:
        main()
