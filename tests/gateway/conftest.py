"""A gateway in this process, containers that do as they are told, and a client that sees every byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from clary.core.resources import Partition
from clary.core.routing import EndpointRoute, Hop, RouteTable, Target, VariantRoute
from clary.gateway import short
from clary.gateway.control import ControlPlane
from clary.gateway.front import Front
from clary.gateway.listener import listener
from clary.gateway.outbox import Outbox
from clary.gateway.state import Limits, State
from clary.gateway.streamed import Streamed
from clary.gateway.worker import Door
from clary.wire.sigv4 import Verifier

KEY, SECRET, REGION = "AKIATEST", "secret", "us-east-1"
PARTITION = Partition("123456789012", REGION)

Script = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Container:
    """A server that hands each request, read whole, to a script."""

    script: Script
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                request = head + await reader.readexactly(length)
                self.requests.append(request)
                await self.script(request, reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


def answer(body: bytes, status: bytes = b"200 OK", headers: bytes = b"Content-Type: text/plain\r\n") -> bytes:
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, headers, len(body), body)


def says(raw: bytes) -> Script:
    """Make a script that answers every request with these bytes."""

    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return script


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Gateway:
    """A gateway under test."""

    port: int
    state: State
    door: Door
    deadlines: asyncio.Task[None]
    servers: list[asyncio.Server | socket.socket] = field(default_factory=list)
    s3_requests: list[Streamed] = field(default_factory=list)

    def route(self, name: str, *variants: VariantRoute, status: str = "InService") -> None:
        self.put(EndpointRoute(name, status, variants))

    def put(self, route: EndpointRoute) -> None:
        self.state.routes.table = RouteTable(1, {**self.state.routes.table.endpoints, route.name: route})

    async def container(self, script: Script) -> Container:
        container = Container(script)
        self.servers.append(await container.start())
        return container

    async def serve(self, name: str, script: Script) -> Container:
        """Start one container behind an endpoint of one variant."""
        container = await self.container(script)
        self.route(name, variant(container))
        return container

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def invoke(self, name: str, body: bytes = b"{}", **headers: str) -> Reply:
        return await self.send(self.signed(f"/endpoints/{name}/invocations", body, headers))

    def signed(
        self, path: str, body: bytes, headers: dict[str, str] | None = None, secret: str = SECRET, method: str = "POST"
    ) -> bytes:
        """Give a whole request, signed by botocore."""
        named = {name.replace("_", "-"): value for name, value in (headers or {}).items()}
        request = AWSRequest(method, f"http://127.0.0.1:{self.port}{path}", headers=named, data=body)
        SigV4Auth(Credentials(KEY, secret), "sagemaker", REGION).add_auth(request)
        request.headers["Host"] = f"127.0.0.1:{self.port}"
        lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        return f"{method} {path} HTTP/1.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def gone(self) -> Container:
        """Give a container that takes no connections, with a port that nobody else gets meanwhile."""
        held = socket.socket()
        held.bind(("127.0.0.1", 0))
        self.servers.append(held)
        return Container(says(b""), held.getsockname()[1])

    def time_out(self, deadlines: dict[Any, float]) -> None:
        """Make what is under way overdue, so that no test has to be faster than the limit that it waits for."""
        assert deadlines
        for late in list(deadlines):
            deadlines[late] = 0.0

    async def send(self, raw: bytes) -> Reply:
        reader, writer = await self.connect()
        writer.write(raw)
        try:
            return await read_reply(reader)
        finally:
            writer.close()


def variant(*containers: Container, name: str = "AllTraffic", weight: float = 1.0) -> VariantRoute:
    targets = tuple(
        Target(f"i-{container.port}", (Hop(f"c-{container.port}", "127.0.0.1", container.port),))
        for container in containers
    )
    return VariantRoute(name, weight, targets)


def pipeline(*containers: Container, direct: bool = False) -> VariantRoute:
    """Give a variant of one instance that runs these containers, named `container-1` and so on."""
    hops = tuple(
        Hop(f"c-{each.port}", "127.0.0.1", each.port, f"container-{n}") for n, each in enumerate(containers, 1)
    )
    names = tuple(hop.name for hop in hops) if direct else ()
    return VariantRoute("AllTraffic", 1.0, (Target("i-1", hops),), names)


async def wait_for(true: Callable[[], object]) -> None:
    """Wait until something is true; a minute at most."""
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


async def wait_until_still(number: Callable[[], int]) -> None:
    """Wait until a number stays as it is for many turns of the loop: a pause alone may be one of the machine's."""
    before, quiet = number(), 0
    while quiet < 50:
        await asyncio.sleep(0.005)
        now = number()
        before, quiet = now, quiet + 1 if now == before else 0


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    else:
        body = await reader.read()
    return Reply(int(head[0].split()[1]), headers, body)


def interpreted(state: State) -> Outbox:
    """Give the outbox that is not compiled."""
    return Outbox(state.loop, state.deadlines, state.stream_deadlines)


@contextlib.asynccontextmanager
async def running(folder: Path, *, shortcut: bool = True) -> AsyncIterator[Gateway]:
    """Run a gateway in this process; `shortcut`: with what is compiled, where it is."""
    state = State(
        PARTITION,
        Verifier({KEY: SECRET}, REGION, time.time),
        folder,
        Limits(1_000_000, 600.0),
    )
    if not shortcut:
        state.outbox = state.pool.outbox = interpreted(state)
    control = ControlPlane(folder / "control.sock")

    async def s3(request: Streamed) -> None:
        under_test.s3_requests.append(request)
        body = b"".join([piece async for piece in request.body])
        await request.answer(200, [], b"s3 got %d" % len(body))

    door = Door(Front(state, control, s3).open, state.outbox, short.way(state) if shortcut else None)
    deadlines = asyncio.create_task(state.watch_deadlines())
    under_test = Gateway(0, state, door, deadlines)
    sock = listener("127.0.0.1", 0)
    under_test.port = sock.getsockname()[1]
    server = await asyncio.get_running_loop().create_server(door.connect, sock=sock)
    try:
        yield under_test
    finally:
        deadlines.cancel()
        server.close()
        await door.drain(0.1)
        state.pool.close()
        await control.close()
        for other in under_test.servers:
            other.close()
        await asyncio.sleep(0.01)  # the containers see that their connections have ended


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path) as started:
        yield started
