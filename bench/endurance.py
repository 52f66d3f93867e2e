"""Do invocations fail while the processes of Clary are killed and come back?

Two stages, on a whole Clary of two gateway workers with an endpoint of three instances. All requests are signed; three
clients of four keep their connection, the fourth opens one for each request.

1. kill -9 of the control plane and of one instance at a time, no retries: nothing at all may fail;
2. one gateway worker besides. Who is killed cannot answer what it has read, so the client does what SDKs do: it asks
   once more where a connection ends before the first byte of an answer (botocore's standard mode, three attempts).

Whoever was killed has to be back before the next of its kind is killed. Ends with 1 where anything failed.

    .venv/bin/python bench/endurance.py [--requests 100000] [--connections 16] [--workers 2] [--kills 5] [--pause 2]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import uvloop
from whole import Whole, running

ENDPOINT = "steady"
INSTANCES = 3
PATH = f"/endpoints/{ENDPOINT}/invocations"
VARIETY = 64
"""Different requests that are sent in turn."""
TIMEOUT = 60.0
"""Seconds, as SDKs have it; an answer that takes longer is a failure."""


@dataclass
class Record:
    """What came of the requests of a stage. Times in seconds."""

    attempts: int
    """How often a request is sent at most."""
    requests: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    """Attempts after the first, by what ended the one before."""
    failures: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)
    pids: Counter[int] = field(default_factory=Counter)
    """Answers by the process of the instance that gave them."""


class Unanswered(Exception):
    """The connection ended before the first byte of the answer."""


class Client:
    """One thread of an SDK's caller: one connection, kept alive, looked at before it is used again.

    Or one for each request, as a command line has it: new connections are what a dying listener may lose.
    """

    def __init__(self, port: int, record: Record, *, keep_alive: bool) -> None:
        self._port = port
        self._record = record
        self._keep_alive = keep_alive
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> None:
        """Send a request, again where that is allowed, and write down what came of it."""
        record = self._record
        record.requests += 1
        begun = time.monotonic()
        for attempt in range(1, record.attempts + 1):
            try:
                async with asyncio.timeout(TIMEOUT):
                    status, body = await self._once(request)
                if status == 200:
                    record.pids[json.loads(body)["pid"]] += 1
                else:
                    record.failures[f"{status} {body[:200].decode()}"] += 1
                break
            except Unanswered as error:
                self.close()
                if attempt == record.attempts:
                    record.failures[f"{error}"] += 1
                    break
                record.retries[f"{error}"] += 1
                await asyncio.sleep(random.random() * 2 ** (attempt - 1))
            except (OSError, EOFError, TimeoutError) as error:
                self.close()
                record.failures[f"in mid-answer: {error!r}"] += 1
                break
        record.slowest = max(record.slowest, time.monotonic() - begun)

    async def _once(self, request: bytes) -> tuple[int, bytes]:
        try:
            if self._stream is not None and _dropped(self._stream[1]):
                self.close()
            if self._stream is None:
                self._stream = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._stream
            writer.write(request)
            first = await reader.read(65536)
        except OSError as error:
            raise Unanswered(type(error).__name__) from error
        if not first:
            raise Unanswered("closed")
        while b"\r\n\r\n" not in first:
            first += await reader.readexactly(1)
        head, _, body = first.partition(b"\r\n\r\n")
        _, _, rest = head.lower().partition(b"content-length: ")
        body += await reader.readexactly(int(rest.partition(b"\r\n")[0]) - len(body))
        if not self._keep_alive or b"connection: close" in head.lower():
            self.close()
        return int(head[9:12]), body

    def close(self) -> None:
        if self._stream is not None:
            self._stream[1].close()
            self._stream = None


def _dropped(writer: asyncio.StreamWriter) -> bool:
    """Tell, as urllib3 does before it uses a connection again, whether the other side has ended it."""
    if writer.transport.is_closing():
        return True
    poll = select.poll()
    poll.register(writer.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


class Reaper:
    """Kills one process of a kind after the other; each has to come back first."""

    def __init__(self, kind: str, pids: Callable[[], list[int]], back: Callable[[], bool]) -> None:
        self.kind = kind
        self._pids = pids
        self._back = back

    async def run(self, record: Record, kills: int, pause: float) -> None:
        """Kill that often, with a pause of about that many seconds after each return."""
        for _ in range(kills):
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            before = self._pids()
            victim = random.choice(before)
            os.kill(victim, signal.SIGKILL)
            record.kills[self.kind] += 1
            async with asyncio.timeout(120):
                while victim in (now := self._pids()) or len(now) < len(before) or not self._back():  # noqa: ASYNC110
                    await asyncio.sleep(0.1)


def reapers(clary: Whole) -> list[Reaper]:
    """Give one for each kind of process: control plane, instances, gateway workers."""
    return [
        Reaper("control", lambda: clary.children("control"), lambda: True),
        Reaper("instance", clary.models, lambda: clary.ready(ENDPOINT) == INSTANCES),
        Reaper("gateway", lambda: clary.children("gateway"), lambda: True),
    ]


async def stage(clary: Whole, record: Record, killers: list[Reaper], arguments: argparse.Namespace) -> None:
    """Ask until there were enough requests and enough kills."""
    bodies = [f'{{"number": {number}}}'.encode() for number in range(VARIETY)]
    killing = asyncio.gather(*(each.run(record, arguments.kills, arguments.pause) for each in killers))

    async def ask(number: int) -> None:
        client = Client(clary.port, record, keep_alive=number % 4 != 0)
        while record.requests < arguments.requests or not killing.done():
            await client.ask(clary.request(PATH, random.choice(bodies), {"Content-Type": "application/json"}))
        client.close()

    await asyncio.gather(*(ask(number) for number in range(arguments.connections)))
    await killing


def show(name: str, record: Record, seconds: float) -> None:
    killed = ", ".join(f"{kind} {number}" for kind, number in record.kills.items())
    print(f"\n{name}: {record.requests} requests in {seconds:.0f} s, {record.requests / seconds:.0f} a second")
    print(f"  killed     {killed}; {len(record.pids)} instances answered")
    print(f"  failures   {record.failures.total()}")
    for text, number in record.failures.most_common(8):
        print(f"             {number} x {text}")
    print(f"  retries    {record.retries.total()} {dict(record.retries) or ''}")
    print(f"  slowest    {record.slowest:.2f} s", flush=True)


async def run(clary: Whole, arguments: argparse.Namespace) -> bool:
    """Run both stages; tell whether nothing failed."""
    kinds = reapers(clary)
    failed = 0
    for name, killers, attempts in (
        ("control plane and instances are killed, no retries", kinds[:2], 1),
        ("gateway workers besides, three attempts", kinds, 3),
    ):
        record = Record(attempts)
        begun = time.monotonic()
        await stage(clary, record, killers, arguments)
        show(name, record, time.monotonic() - begun)
        failed += record.failures.total()
    return not failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000, help="in each stage, at least")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=5, help="of each kind, in each stage")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between kills of a kind, on average")
    arguments = parser.parse_args()
    with running("--workers", str(arguments.workers)) as clary:
        clary.deploy(ENDPOINT, INSTANCES)
        whole = uvloop.run(run(clary, arguments))
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
