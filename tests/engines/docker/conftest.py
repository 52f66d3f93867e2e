"""A model server that does tricks, in an image of its own, and an engine whose containers end with the test."""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from clary.core.containers import Container, ContainerSpec
from clary.engines.context import EngineContext
from clary.engines.docker.engine import DockerEngine
from clary.engines.docker.identity import identity
from clary.objects import Objects
from tests.containers import BIND_LABEL, build, docker, left_of
from tests.engines.conftest import MakeSpec

SERVER = """\
#!/usr/bin/env python3
import http.server, json, os, pathlib, signal, socket, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(globals()[asked.pop("do")](**asked))

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

def describe():
    return {"environment": dict(os.environ), "argv": sys.argv[1:], "user": os.getuid(), "pid": os.getpid(),
            "hostname": socket.gethostname(), "shm": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
            "routes": pathlib.Path("/proc/net/route").read_text().splitlines()[1:],
            "capabilities": int(pathlib.Path("/proc/self/status").read_text().split("CapBnd:")[1].split()[0], 16),
            "privileges": pathlib.Path("/proc/self/status").read_text().split("NoNewPrivs:")[1].split()[0]}

def files(path):
    return sorted(os.listdir(path))

def read(path):
    return pathlib.Path(path).read_text()

def is_there(path):
    return pathlib.Path(path).exists()

def write(path):
    try:
        pathlib.Path(path).write_text("x")
    except OSError as error:
        return error.strerror
    return "written"

def say(lines, begin=0):
    for number in range(begin, begin + lines):
        print("line", number, flush=True)

def shout(size):
    print("y" * size, flush=True)

def resolve(name):
    try:
        return socket.gethostbyname(name)
    except OSError as error:
        return "no: " + str(error)

def connect(host, port):
    try:
        socket.create_connection((host, port), 2).close()
    except OSError as error:
        return "no: " + str(error)
    return "connected"

def leave(code):
    os._exit(code)

def die(number):
    signal.signal(number, signal.SIG_DFL) if number != 9 else None
    pid = os.fork()  # the first process of a container takes no deadly signal from within
    return pid

def eat(size):
    hog = bytearray(size)
    for place in range(0, size, 4096):
        hog[place] = 1
    return len(hog)

if os.environ.get("IGNORE_TERM"):
    signal.signal(signal.SIGTERM, lambda *_: print("not now", flush=True))
else:
    signal.signal(signal.SIGTERM, lambda *_: (print("asked to end", flush=True), os._exit(0)))
print("one line"), print("another line", file=sys.stderr, flush=True)
sys.stdout.flush()
if os.environ.get("EXIT"):
    sys.exit(int(os.environ["EXIT"]))
http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


def quiet(_: str) -> None:
    """Progress that nobody follows."""


def inspect(id: str) -> Any:
    """Give what Docker says of a container of ours."""
    return json.loads(docker("inspect", docker("ps", "-q", "--filter", f"label=clary.id={id}")))[0]


async def ask(container: Container, **question: object) -> Any:
    """Let the model do one of its tricks; it may need a moment to listen."""
    async with aiohttp.ClientSession() as session:
        for _ in range(6000):
            try:
                url = f"http://{container.host}:{container.port}/invocations"
                async with session.post(url, json=question) as answer:
                    return await answer.json(content_type=None)
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.05)
    raise AssertionError(f"nothing listens on {container.host}:{container.port}")


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(300):
        while not await holds():  # noqa: ASYNC110 - what is awaited is another process
            await asyncio.sleep(0.05)


async def exited(engine: DockerEngine, id: str) -> Container:
    """Wait until a container is seen as ended."""

    async def gone() -> bool:
        return any(container.id == id and container.phase == "exited" for container in await engine.observe())

    await until(gone)
    return next(container for container in await engine.observe() if container.id == id)


@pytest.fixture(scope="session")
def server_image() -> str:
    return build("clary/test-server:1", {"server.py": SERVER}, f"LABEL {BIND_LABEL}=true", 'ENTRYPOINT ["/server.py"]')


@pytest.fixture
def make_context(tmp_path: Path) -> Callable[..., EngineContext]:
    def make(**changes: Any) -> EngineContext:
        values: dict[str, Any] = {
            "data": tmp_path / "data",
            "logs": tmp_path / "data" / "logs",
            "objects": Objects(None, "", "", "us-east-1", (tmp_path / "models",)),
            "catalogue": None,
            "artifact_cache_bytes": 10**9,
            "max_artifact_bytes": 10**8,
            "region": "eu-west-1",
            "on_change": lambda _: None,
        }
        return EngineContext(**{**values, **changes})

    return make


@pytest.fixture
async def engine(make_context: Callable[..., EngineContext]) -> AsyncIterator[DockerEngine]:
    """An engine whose containers end with the test."""
    made = DockerEngine(make_context())
    yield made
    await end(made)


async def end(engine: DockerEngine) -> None:
    """Stop everything and close."""
    for container in await engine.observe():
        await engine.stop(container.id, 0)
    await engine.close()


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that refuses connections, and that nobody else gets meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


@pytest.fixture
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """No test leaves a container or a network behind."""
    yield
    for file in tmp_path.glob("**/run/docker/identity"):
        assert not left_of(identity(file.parents[2], file.parent))


@pytest.fixture
def make_spec(server_image: str) -> MakeSpec:
    def make(**changes: object) -> ContainerSpec:
        values: dict[str, object] = {
            "id": f"c-{uuid.uuid4().hex[:12]}",
            "endpoint": "iris",
            "variant": "AllTraffic",
            "instance_id": "i-0123456789abcdef0",
            "image": server_image,
            "deployment": "d1",
        }
        return ContainerSpec(**{**values, **changes})  # type: ignore[arg-type]  # the tests say what they change

    return make
