"""A real registry, a real Docker, and images that are made here: what the tests of images share."""

from __future__ import annotations

import asyncio
import base64
import ctypes
import gzip
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import socket
import subprocess
import tarfile
import threading
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

SOCKET = "/var/run/docker.sock"
USER, PASSWORD = "ada", "the registry's secret"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def docker_answers() -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(SOCKET)
        except OSError:
            return False
    return True


needs_docker = pytest.mark.skipif(not docker_answers(), reason="needs Docker: start dockerd (Debian: docker.io)")
needs_registry = pytest.mark.skipif(
    not docker_answers() or shutil.which("docker-registry") is None,
    reason="needs Docker and a registry: start dockerd, install docker-registry (Debian: docker.io, docker-registry)",
)


MADE: list[str] = []
"""Names that this process has given. Docker has others of the same kind, which other processes still need."""


def unique(name: str) -> str:
    MADE.append(f"clary-test-{name}-{uuid.uuid4().hex[:8]}")
    return MADE[-1]


def layer(size: int = 64) -> bytes:
    """Give a layer with one file of so many bytes that no compression makes smaller."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(uuid.uuid4().hex)
        member.size = size
        tar.addfile(member, io.BytesIO(os.urandom(size)))
    return buffer.getvalue()


@dataclass
class Registry:
    """One that runs; images are put into it over HTTP, so that Docker has not seen them before it pulls."""

    host: str
    password: str | None = None

    def put(
        self, path: str, tag: str = "1", *, layers: Sequence[bytes] = (), architecture: str = "amd64", label: str = ""
    ) -> str:
        """Push an image and give its digest."""
        layers = layers or [layer()]
        packed = [gzip.compress(each, 1) for each in layers]
        config = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "config": {"Labels": {"made-for": label or "tests"}},
                "rootfs": {"type": "layers", "diff_ids": [digest(each) for each in layers]},
            }
        ).encode()
        for blob in (*packed, config):
            self._blob(path, blob)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described(config, "application/vnd.docker.container.image.v1+json"),
            "layers": [described(each, "application/vnd.docker.image.rootfs.diff.tar.gzip") for each in packed],
        }
        return self._manifest(path, tag, MANIFEST, manifest)

    def put_list(self, path: str, tag: str, architecture: str) -> None:
        """Push an image that is there for one architecture only, and says so."""
        image = self.put(path, f"{tag}-{architecture}", architecture=architecture)
        size = len(self._ask("GET", f"{path}/manifests/{image}", accept=MANIFEST)[1])
        entry = {
            "mediaType": MANIFEST,
            "digest": image,
            "size": size,
            "platform": {"os": "linux", "architecture": architecture},
        }
        self._manifest(path, tag, LIST, {"schemaVersion": 2, "mediaType": LIST, "manifests": [entry]})

    def _blob(self, path: str, blob: bytes) -> None:
        headers, _ = self._ask("POST", f"{path}/blobs/uploads/")
        place = headers["Location"]
        self._ask("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest(blob)}", blob)

    def _manifest(self, path: str, tag: str, kind: str, manifest: dict[str, Any]) -> str:
        headers, _ = self._ask("PUT", f"{path}/manifests/{tag}", json.dumps(manifest).encode(), kind)
        return str(headers["Docker-Content-Digest"])

    def _ask(
        self,
        method: str,
        place: str,
        body: bytes | None = None,
        kind: str = "application/octet-stream",
        accept: str = "",
    ) -> tuple[Any, bytes]:
        url = place if place.startswith("http") else f"http://{self.host}/v2/{place}"
        request = urllib.request.Request(url, body, {"Content-Type": kind, "Accept": accept or "*/*"}, method=method)
        if self.password is not None:
            request.add_header(
                "Authorization", f"Basic {base64.b64encode(f'{USER}:{self.password}'.encode()).decode()}"
            )
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.headers, answer.read()


def digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def described(blob: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": kind, "size": len(blob), "digest": digest(blob)}


def htpasswd(user: str, password: str) -> str:
    """Give a line with bcrypt, which the registry insists on: the C library has it, Python's own has not."""
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    hashed: bytes = crypt(password.encode(), b"$2y$05$" + uuid.uuid4().hex[:22].encode())
    return f"{user}:{hashed.decode()}\n"


@contextmanager
def running(
    folder: Path, *, password: str | None = None, address: str = "127.0.0.1", tls: bool = False
) -> Iterator[Registry]:
    """Run a registry in a folder of its own: open, with basic auth, or with TLS by an authority that nobody knows."""
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"{address}:0"},
    }
    if password is not None:
        (folder / "htpasswd").write_text(htpasswd(USER, password))
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    if tls:
        make_certificate(folder, address)
        config["http"]["tls"] = {"certificate": str(folder / "cert.pem"), "key": str(folder / "key.pem")}
    (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        yield Registry(f"{address}:{port_of(process, folder / 'log')}", password)
    finally:
        process.terminate()
        process.wait(300)


def make_certificate(folder: Path, address: str) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=registry",
         "-addext", f"subjectAltName=IP:{address}", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip


def port_of(registry: subprocess.Popen[bytes], log: Path) -> int:
    """Wait until a registry says where it listens."""
    deadline = time.monotonic() + 300
    while (found := re.search(r'msg="listening on [^ "]+:([0-9]+)', log.read_text())) is None:
        assert registry.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return int(found[1])


def outside_address() -> str | None:
    """Give an address of this machine that Docker does not take for loopback, where it insists on TLS."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if address.startswith("127.") else address


TRICKLE = 100_000_000
"""Bytes of the layer of `trickling`: more than a test has time for."""


@asynccontextmanager
async def trickling() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A registry whose one layer takes ages; the event says that whoever pulled it has gone."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["x"]}})
    kind = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described(config.encode(), "application/vnd.docker.container.image.v1+json"),
            "layers": [{"mediaType": kind, "size": TRICKLE, "digest": digest(b"")}],
        }
    )
    broken_off = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if "/manifests/" in request.path:
            headers = {"Docker-Content-Digest": digest(manifest.encode())}
            return web.Response(body=manifest, content_type=MANIFEST, headers=headers)
        if "/blobs/" not in request.path or request.path.endswith(digest(config.encode())):
            return web.Response(text=config)
        layer = web.StreamResponse(headers={"Content-Length": str(TRICKLE)})
        await layer.prepare(request)
        try:
            for _ in range(TRICKLE // 10_000):
                await layer.write(bytes(10_000))
                await asyncio.sleep(0.02)  # here it is cancelled when the other side closes
        finally:
            broken_off.set()
        return layer

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}", broken_off
    finally:
        await runner.cleanup()


@asynccontextmanager
async def dying_docker(socket: Path) -> AsyncIterator[None]:
    """A Docker that has no image and is gone in the middle of a pull."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/version"):
            return web.json_response({"ApiVersion": "1.41"})
        if request.method == "GET":
            return web.json_response({"message": "no such image"}, status=404)
        pulling = web.StreamResponse()
        await pulling.prepare(request)
        await pulling.write(b'{"status": "Pulling fs layer"}\n')
        assert request.transport is not None
        request.transport.close()
        return pulling

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    try:
        yield
    finally:
        await runner.cleanup()


class Broken:
    """Says it is a registry and answers every question with one status, or not at all."""

    def __init__(self, status: int) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path == "/v2/" else status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Broken:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class FakeLambda:
    """The Invoke operation of Lambda, as botocore calls it. `answers`: what each function gives, by its name."""

    def __init__(self) -> None:
        fake = self
        self.answers: dict[str, Any] = {}
        self.errors: dict[str, str] = {}
        self.status = 200
        self.asked: list[tuple[str, bytes]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                arn = urllib.parse.unquote(self.path.split("/")[3])
                fake.asked.append((arn, self.rfile.read(int(self.headers["Content-Length"]))))
                name = arn.split(":")[6]
                known = name in fake.answers
                body = json.dumps(fake.answers[name] if known else {"Type": "User", "Message": "not found"}).encode()
                self.send_response(fake.status if known else 404)
                if not known:
                    self.send_header("x-amzn-ErrorType", "ResourceNotFoundException")
                if name in fake.errors:
                    self.send_header("X-Amz-Function-Error", fake.errors[name])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> FakeLambda:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def give(username: str, password: str) -> dict[str, Any]:
    """Give what AWS documents that such a function returns."""
    return {"Credentials": {"Username": username, "Password": password}}
