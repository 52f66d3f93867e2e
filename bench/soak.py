"""Does Clary's memory stay constant, and does it give back every connection and file, under everything at once?

A whole Clary under a mixed load as fast as it goes, so that minutes hold what half an hour of ordinary traffic does:
small and 6 MB bodies, chunked ones, connections kept and not, streams read half-way and left, clients that leave in
mid-request and in mid-answer, models that fail, hang up, break off and are too slow, sessions, OpenAI's path with
server-sent events, requests that are unsigned, wrongly signed or no HTTP at all, S3, endpoints that come and go, and a
control plane that is killed twice in the first third.

Memory is that of each process's last life, in quarters after a warm-up; descriptors are counted before the load and
after it, when idle connections have had their time. Ends with 1 where a process grew or kept something.

    .venv/bin/python bench/soak.py [--seconds 180] [--workers 2]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from whole import Whole, running, wait_until

GROWTH = 0.10
"""By how much the memory of a process may be larger in its last quarter than in its first."""
SPARE = 4
"""Descriptors that a process may have more than before: our own processes keep some connections to each other."""
SETTLE = 60.0
"""Seconds in which idle connections are given up: 30 for those to containers."""
WARM_UP = 0.2
"""The part of a process's life that is not looked at: caches and pools fill."""
PATH = "/endpoints/mixed/invocations"
STREAM = "/endpoints/mixed/invocations-response-stream"
LARGE = b"echo " + b"x" * 6_000_000
TIMEOUT = 30.0


@dataclass
class Sample:
    """One look at a process. Memory in MB."""

    at: float
    pid: int
    memory: float
    descriptors: int
    sockets: int


@dataclass
class Watch:
    """What was seen of Clary's own processes, by their names."""

    clary: Whole
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def look(self) -> dict[str, Sample]:
        """Look at every process once."""
        found = {}
        for name, pid in [("supervisor", self.clary.process.pid), *self._children()]:
            with contextlib.suppress(OSError):
                found[name] = _look(pid)
        return found

    def _children(self) -> list[tuple[str, int]]:
        gateways = self.clary.children("gateway")
        return [("control", pid) for pid in self.clary.children("control")] + [
            (f"gateway-{number}", pid) for number, pid in enumerate(gateways)
        ]

    async def follow(self) -> None:
        """Look once a second, for ever."""
        while True:
            for name, sample in self.look().items():
                self.samples.setdefault(name, []).append(sample)
            await asyncio.sleep(1.0)


def _look(pid: int) -> Sample:
    folder = Path(f"/proc/{pid}")
    links = []
    for each in (folder / "fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(each.readlink()))
    pages = int((folder / "statm").read_text().split()[1])
    memory = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return Sample(time.monotonic(), pid, memory, len(links), sum(link.startswith("socket:") for link in links))


class Load:
    """The clients. Each of their lives is a method; what it got is counted by its name."""

    def __init__(self, clary: Whole) -> None:
        self.clary = clary
        self.answers: Counter[str] = Counter()
        query = SigV4QueryAuth(
            Credentials(clary.pair.access_key_id, clary.pair.secret_access_key), "sagemaker", "us-east-1", expires=43200
        )
        host = "sagemaker.amazonaws.com"
        request = AWSRequest(
            "POST", f"https://{host}/", headers={"host": host}, params={"Action": "CallWithBearerToken"}
        )
        query.add_auth(request)
        url = f"{str(request.url).removeprefix('https://')}&Version=1"
        self._token = "sagemaker-api-key-" + base64.b64encode(url.encode()).decode()
        self.lives: dict[Callable[[], Awaitable[str]], int] = {
            self.kept: 6, self.one_shot: 2, self.large: 1, self.chunked: 1, self.failing: 2, self.too_slow: 2,
            self.stream_left: 2, self.stream_read: 1, self.events: 1, self.events_left: 1, self.leaves_in_request: 2,
            self.leaves_in_answer: 2, self.session: 1, self.rubbish: 2, self.unsigned: 2, self.objects: 1,
        }  # fmt: skip
        """How many clients lead each life at once."""

    async def live(self, life: Callable[[], Awaitable[str]], until: float) -> None:
        """Lead a life over and over; a broken connection is one more thing that may happen while processes die."""
        name = life.__name__  # type: ignore[attr-defined]
        while time.monotonic() < until:
            try:
                async with asyncio.timeout(TIMEOUT):
                    self.answers[f"{name} {await life()}"] += 1
            except (OSError, EOFError, asyncio.LimitOverrunError, TimeoutError) as error:
                self.answers[f"{name} {type(error).__name__}"] += 1
                await asyncio.sleep(0.05)

    # -- lives ---------------------------------------------------------------------------------------------------------

    async def kept(self) -> str:
        async with _Talk(self.clary.port) as talk:
            for number in range(100):
                status = await talk.ask(self.clary.request(PATH, b"number %d" % (number % 8)))
                self.answers["kept"] += 1
        return status

    async def one_shot(self) -> str:
        return await self._ask(self.clary.request(PATH, b"once", {"Connection": "close"}))

    async def large(self) -> str:
        return await self._ask(self.clary.request(PATH, LARGE))

    async def chunked(self) -> str:
        head, _, body = self.clary.request(PATH, b"echo in pieces").partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
        pieces = b"".join(b"1\r\n%b\r\n" % bytes([byte]) for byte in body)
        return await self._ask(b"\r\n".join([*lines, b"Transfer-Encoding: chunked\r\n\r\n"]) + pieces + b"0\r\n\r\n")

    async def failing(self) -> str:
        word = random.choice((b"fail 400", b"fail 503", b"cut", b"hang up"))
        with contextlib.suppress(EOFError):  # what is cut off is cut off here too
            return await self._ask(self.clary.request(PATH, word))
        return "cut"

    async def too_slow(self) -> str:
        return await self._ask(self.clary.request(PATH, random.choice((b"slow 0.3", b"slow 4"))))

    async def stream_read(self) -> str:
        return await self._ask(self.clary.request(STREAM, b"stream 20"))

    async def stream_left(self) -> str:
        async with _Talk(self.clary.port) as talk:
            talk.send(self.clary.request(STREAM, b"stream 50"))
            await talk.reader.readexactly(5000)
        return "left"

    def _for_openai(self) -> bytes:
        body = b"stream 20"
        return (
            f"POST /endpoints/mixed/openai/v1/chat/completions HTTP/1.1\r\nHost: here\r\n"
            f"Authorization: Bearer {self._token}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    async def events(self) -> str:
        return await self._ask(self._for_openai())

    async def events_left(self) -> str:
        async with _Talk(self.clary.port) as talk:
            talk.send(self._for_openai())
            await talk.reader.readexactly(5000)
        return "left"

    async def leaves_in_request(self) -> str:
        request = self.clary.request(PATH, LARGE)
        async with _Talk(self.clary.port, rude=random.random() < 0.5) as talk:
            talk.send(request[: random.choice((50, 300, 5000, 3_000_000))])
            await asyncio.sleep(0.05)
        return "left"

    async def leaves_in_answer(self) -> str:
        async with _Talk(self.clary.port, rude=random.random() < 0.5) as talk:
            talk.send(self.clary.request(PATH, random.choice((b"slow 1", LARGE))))
            await asyncio.sleep(0.1)
        return "left"

    async def session(self) -> str:
        header = "X-Amzn-SageMaker-Session-Id"
        async with _Talk(self.clary.port) as talk:
            await talk.ask(self.clary.request(PATH, b"hello", {header: "NEW_SESSION"}))
            opened = talk.headers.get("x-amzn-sagemaker-new-session-id", "none").partition(";")[0]
            await talk.ask(self.clary.request(PATH, b"more", {header: opened}))
            return await talk.ask(self.clary.request(PATH, b"bye", {header: opened}))

    async def rubbish(self) -> str:
        junk = random.choice((
            os.urandom(500), b"\x16\x03\x01" + os.urandom(200), b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n" + b"x: y\r\n" * 20_000, b"POST /%s HTTP/1.1\r\n" % (b"y" * 70_000),
        ))  # fmt: skip
        async with _Talk(self.clary.port) as talk:
            talk.send(junk)
            await asyncio.wait_for(talk.reader.read(100), 0.5)
        return "heard"

    async def unsigned(self) -> str:
        known = self.clary.request(PATH, b"once")
        return await self._ask(
            random.choice((
                f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode(),
                known.replace(b"Signature=", b"Signature=0"),
                self.clary.request("/endpoints/nobody/invocations", b"{}"),
                b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: SageMaker.ListModels\r\nContent-Length: 2\r\n\r\n{}",
            ))
        )  # fmt: skip

    async def objects(self) -> str:
        name = f"/models/soak-{random.randrange(20)}"
        await self._ask(self.clary.request(name, os.urandom(50_000), None, "PUT", s3=True))
        return await self._ask(self.clary.request(name, b"", None, "GET", s3=True))

    async def _ask(self, request: bytes) -> str:
        async with _Talk(self.clary.port) as talk:
            return await talk.ask(request)


class _Talk:
    """One connection; `rude`: it ends with a reset."""

    def __init__(self, port: int, *, rude: bool = False) -> None:
        self._port = port
        self._rude = rude
        self.headers: dict[str, str] = {}

    async def __aenter__(self) -> _Talk:
        self.reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._rude:
            self._writer.transport.abort()
        self._writer.close()

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def ask(self, request: bytes) -> str:
        """Send a request, read its answer to the end and give the status."""
        self.send(request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = [line.partition(": ") for line in head.split("\r\n")[1:-2]]
        self.headers = {name.lower(): value for name, _, value in lines}
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                await self.reader.readexactly(size + 2)
            await self.reader.readexactly(2)
        else:
            await self.reader.readexactly(int(self.headers.get("content-length", "0")))
        return head[9:12]


def churn(clary: Whole, until: float) -> int:
    """Create and delete endpoints, one after the other; give how many."""
    sagemaker, made = clary.client("sagemaker"), 0
    while time.monotonic() < until:
        name = f"fleeting-{made}"
        with contextlib.suppress(sagemaker.exceptions.ClientError):  # the control plane may be killed in between
            sagemaker.create_endpoint(EndpointName=name, EndpointConfigName="mixed")
            time.sleep(2)
            sagemaker.describe_endpoint(EndpointName=name)
            sagemaker.delete_endpoint(EndpointName=name)
            made += 1
    return made


async def load(clary: Whole, watch: Watch, seconds: float) -> None:
    """Put everything on Clary for so long."""
    clients, until = Load(clary), time.monotonic() + seconds
    watching = asyncio.create_task(watch.follow())
    churning = asyncio.create_task(asyncio.to_thread(churn, clary, until))

    async def kill_control() -> None:
        for _ in range(2):
            await asyncio.sleep(seconds / 8)
            os.kill(clary.children("control")[0], signal.SIGKILL)

    lives = [clients.live(life, until) for life, number in clients.lives.items() for _ in range(number)]
    await asyncio.gather(kill_control(), *lives)
    made = await churning
    watching.cancel()
    total = sum(number for text, number in clients.answers.items() if not text.startswith("kept "))
    print(f"{total} requests in {seconds:.0f} s; {made} endpoints came and went; the control plane was killed twice\n")
    for text, number in sorted(clients.answers.items()):
        print(f"  {number:8} {text}")


def verdict(before: dict[str, Sample], samples: dict[str, list[Sample]], after: dict[str, Sample]) -> bool:
    """Print the figures of each process; tell whether none grew and none kept anything."""
    print(f"\n{'':14}{'memory MB: first, last quarter':>32}{'growth':>8}{'descriptors: before, most, after':>36}")
    sound = True
    for name, seen in samples.items():
        life = [sample for sample in seen if sample.pid == seen[-1].pid]
        life = life[int(len(life) * WARM_UP) :]
        quarter = max(1, len(life) // 4)
        first, last = (statistics.median(s.memory for s in part) for part in (life[:quarter], life[-quarter:]))
        growth = last / first - 1
        kept = after[name].descriptors - before[name].descriptors
        ok = growth < GROWTH and kept <= SPARE
        sound = sound and ok
        most = max(s.descriptors for s in seen)
        print(
            f"{name:14}{first:24.1f}{last:8.1f}{growth:8.1%}"
            f"{before[name].descriptors:22}{most:6}{after[name].descriptors:8}   {'ok' if ok else 'LEAKS'}"
        )
    return sound


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with running("--workers", str(arguments.workers), "--model-timeout", "2") as clary:
        clary.deploy("mixed", 2)
        watch = Watch(clary)
        time.sleep(2)
        before = watch.look()
        uvloop.run(load(clary, watch, arguments.seconds))
        wait_until(lambda: len(clary.models()) == 2, "only the first endpoint is left")
        time.sleep(SETTLE)
        sound = verdict(before, watch.samples, watch.look())
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
