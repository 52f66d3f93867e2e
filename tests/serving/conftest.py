"""A real environment and a real server: the toolkit and gunicorn live in a venv of their own, built once."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import uv

from clary.engines.ports import Ports

ROOT = Path(__file__).parents[2]
SERVING = ROOT / "src" / "clary" / "serving"
PACKAGES = ("gunicorn>=23", "sagemaker-inference>=1.10.1", "scikit-learn>=1.5", "xgboost-cpu>=3")
PATIENCE = 600.0  # a deadline against hanging for ever, not an expectation of speed


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter of a script runtime's environment."""
    cache = Path(os.environ.get("CLARY_TEST_CACHE") or ROOT / ".venvs")
    venv = cache / f"serving-{hashlib.sha256(' '.join(PACKAGES).encode()).hexdigest()[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    with venv.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may begin at the same time
        if not (venv / "complete").exists():
            command = uv.find_uv_bin()
            subprocess.run([command, "venv", "-q", "--clear", "--python", "3.11", venv], check=True)
            install = [command, "pip", "install", "-q", "--python", venv / "bin" / "python"]
            subprocess.run([*install, *PACKAGES], check=True)
            (venv / "complete").touch()
    return venv / "bin" / "python"


@pytest.fixture(scope="session")
def pythonpath(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the package under the name that it has in a model's environment, and nothing else."""
    folder = tmp_path_factory.mktemp("pythonpath")
    (folder / "clary_serving").symlink_to(SERVING)
    return folder


class Server:
    """One running model server."""

    def __init__(self, python: Path, pythonpath: Path, model_dir: Path, environment: Mapping[str, str]) -> None:
        self._ports = Ports(uuid.uuid4().hex)  # nobody else's until it is given back, unlike any free port
        self.port = self._ports.take().port
        self.model_dir = model_dir
        self._log = model_dir.parent / f"{model_dir.name}-{self.port}.log"
        settings = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(pythonpath),
            "SM_MODEL_DIR": str(model_dir),
            "TMPDIR": str(model_dir.parent),
            "SAGEMAKER_BIND_TO_PORT": str(self.port),
            "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [python, "-m", "clary_serving", "serve"], env=settings, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def request(
        self, method: str, path: str, body: Any = None, *, timeout: float = PATIENCE, **headers: str
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """Send one request on a connection of its own; header names are written with underscores."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)) as connection:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, fields, encode_chunked="Transfer-Encoding" in fields)
            response = connection.getresponse()
            return response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}

    def invoke(self, body: Any, **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
        return self.request("POST", "/invocations", body, **headers)

    def wait_until_loaded(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            try:
                assert self.request("GET", "/ping")[0] == 200
            except ConnectionError:
                time.sleep(0.05)
            else:
                return

    def workers(self, count: int = 1) -> list[int]:
        """Give the workers' process ids, once there are `count` of them."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        deadline = time.monotonic() + PATIENCE
        while len(pids := children.read_text().split()) < count:
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)
        return [int(pid) for pid in pids]

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        self._ports.close()


Launch = Callable[..., Server]


@pytest.fixture(scope="session")
def launch(python: Path, pythonpath: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """Start servers: `launch(script, files={...}, wait=False, SAGEMAKER_PROGRAM=...)`."""
    servers: list[Server] = []

    def start(
        script: str | None = None, *, files: Mapping[str, bytes] | None = None, wait: bool = True, **environment: str
    ) -> Server:
        model_dir = tmp_path_factory.mktemp("model")
        contents = dict(files or {})
        if script is not None:
            contents["code/inference.py"] = script.encode()
        for name, content in contents.items():
            path = model_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        server = Server(python, pythonpath, model_dir, environment)
        servers.append(server)
        if wait:
            server.wait_until_loaded()
        return server

    yield start
    for server in servers:
        server.stop()
