"""A model that is a few lines of standard library, and an engine to run it."""

from __future__ import annotations

import asyncio
import io
import tarfile
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Protocol

import aiohttp
import pytest

from clary.core.containers import ContainerSpec, ModelData
from clary.engines.context import EngineContext
from clary.engines.process import ProcessEngine
from clary.objects import Objects

SERVER = """\
import http.server, json, os, pathlib, signal, subprocess, sys

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

def describe():
    return {"environment": dict(os.environ), "argv": sys.argv[1:], "pid": os.getpid(), "cwd": os.getcwd(),
            "session": os.getsid(0), "files": sorted(os.listdir(os.environ["SM_MODEL_DIR"]))}

def write(path):
    try:
        pathlib.Path(path).write_text("x")
    except OSError as error:
        return error.strerror
    return "written"

def read(path):
    return pathlib.Path(path).read_text()

def is_there(path):
    return pathlib.Path(path).exists()

def stubborn_child(new_session):
    code = "import signal,time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(1000)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=new_session)
    child.stdout.readline()
    return child.pid

def leave(code):
    os._exit(code)

def die(number):
    os.kill(os.getpid(), number)
    signal.pause()  # another thread may be the one that the signal hits, a moment later

print("one line"), print("another line", flush=True)
if os.environ.get("EXIT"):
    sys.exit(int(os.environ["EXIT"]))
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


def pack(path: Path, files: Mapping[str, str | bytes], modes: Mapping[str, int] | None = None) -> str:
    """Write a model.tar.gz and give its file:// URL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.mode = (modes or {}).get(name, 0o644)
            tar.addfile(member, io.BytesIO(data))
    return path.as_uri()


class MakeSpec(Protocol):
    def __call__(self, **changes: object) -> ContainerSpec: ...


async def ask(port: int, **question: object) -> object:
    """Let the model do one of its tricks; it may need a moment to listen."""
    async with aiohttp.ClientSession() as session:
        for _ in range(6000):
            try:
                async with session.post(f"http://127.0.0.1:{port}/invocations", json=question) as answer:
                    return await answer.json(content_type=None)
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.05)
    raise AssertionError(f"nothing listens on {port}")


@pytest.fixture
def make_context(tmp_path: Path) -> Callable[..., EngineContext]:
    def make(on_change: Callable[[str], object] = lambda _: None) -> EngineContext:
        return EngineContext(
            data=tmp_path / "data",
            logs=tmp_path / "data" / "logs",
            objects=Objects(None, "", "", "us-east-1", (tmp_path / "models",)),
            catalogue=None,
            artifact_cache_bytes=10**9,
            max_artifact_bytes=10**8,
            region="eu-west-1",
            on_change=on_change,
        )

    return make


@pytest.fixture
async def engine(make_context: Callable[..., EngineContext]) -> AsyncIterator[ProcessEngine]:
    """An engine whose containers end with the test."""
    made = ProcessEngine(make_context())
    yield made
    for container in await made.observe():
        await made.stop(container.id, 0)
    await made.close()


@pytest.fixture
def make_spec(tmp_path: Path) -> MakeSpec:
    url = pack(tmp_path / "models" / "server.tar.gz", {"serve.py": SERVER})

    def make(**changes: object) -> ContainerSpec:
        values: dict[str, object] = {
            "id": f"c-{uuid.uuid4().hex[:12]}",
            "endpoint": "iris",
            "variant": "AllTraffic",
            "instance_id": "i-0123456789abcdef0",
            "image": "python",
            "model_data": (ModelData(url),),
            "deployment": "d1",
        }
        return ContainerSpec(**{**values, **changes})  # type: ignore[arg-type]  # the tests say what they change

    return make
