"""A stand-in for a running Clary: a few operations and buckets over HTTP, and the files that say where it is."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from clary.cli.main import main

Answer = tuple[int, dict[str, Any]]


class FakeClary:
    """Answers from `operations` (by operation name; the last answer of a list stays) and records every call."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.objects: dict[str, bytes] = {}
        self.parts: dict[int, bytes] = {}
        self.operations: dict[str, list[Answer]] = {"ListEndpoints": [(200, {"Endpoints": []})]}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        self._thread.start()
        (self.data / "run").mkdir()
        record = {"url": self.url, "pid": os.getpid(), "engine": "fake", "region": "eu-west-1", "account_id": "1" * 12}
        (self.data / "run" / "clary.json").write_text(json.dumps(record))
        (self.data / "credentials").write_text(
            "[default]\naws_access_key_id = AKIATEST\naws_secret_access_key = a/b'c%d\n"
        )

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def sagemaker(self, operation: str, request: dict[str, Any]) -> Answer:
        self.calls.append((operation, request))
        answers = self.operations.get(operation, [(200, {})])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def rest(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, dict[str, str], str]:
        key = path.lstrip("/")
        if path.startswith("/endpoints/"):
            self.calls.append(("InvokeEndpoint", json.loads(body)))
            return 200, {"x-Amzn-Invoked-Production-Variant": "AllTraffic"}, '{"predictions": ["versicolor"]}'
        if "partNumber" in query:
            self.parts[int(query["partNumber"][0])] = body
            return 200, {"ETag": f'"{len(body)}"'}, ""
        if method == "POST" and "uploads" in query:
            return 200, {}, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
        if method == "POST":
            self.objects[key] = b"".join(self.parts[number] for number in sorted(self.parts))
            return 200, {}, "<CompleteMultipartUploadResult><Key>k</Key></CompleteMultipartUploadResult>"
        if method == "DELETE":
            self.objects.pop(key, None)
            return 204, {}, ""
        self.objects[key] = body
        return 200, {"ETag": '"x"'}, ""


def _handler(fake: FakeClary) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            target = self.headers.get("X-Amz-Target")
            if target:
                status, answer = fake.sagemaker(target.partition(".")[2], json.loads(body))
                self._send(status, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(answer).encode())
                return
            place = urlsplit(self.path)
            query = parse_qs(place.query, keep_blank_values=True)
            status, headers, text = fake.rest(self.command, place.path, query, body)
            self._send(status, headers, text.encode())

        do_GET = do_PUT = do_POST = do_DELETE = _answer

        def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    return Handler


def refused(message: str, code: str = "ValidationException") -> Answer:
    """The answer of the hosting API to what it will not do."""
    return 400, {"__type": code, "message": message}


ABSENT = refused('Could not find endpoint "arn:aws:sagemaker:eu-west-1:111111111111:endpoint/tide".')


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the settings, the keys or the home of who runs it."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "CLARY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def clary(data: Path) -> Iterator[FakeClary]:
    fake = FakeClary(data)
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def run() -> Callable[..., Result]:
    """Run `clary` with arguments."""
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])
