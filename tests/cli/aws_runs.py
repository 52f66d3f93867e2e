"""Runs command lines on one side, `aws` or `clary`, against a service that records what it is sent."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from botocore.loaders import Loader

from tests.cli.aws_cases import ANSWERS, Case

MODELS = Loader.BUILTIN_DATA_PATH
WORKER = Path(__file__).with_name("aws_worker.py")

UNCOMPARED = {
    *("authorization", "host", "user-agent", "x-amz-date", "x-amz-content-sha256", "content-length"),
    *("accept-encoding", "amz-sdk-invocation-id", "amz-sdk-request"),
}
"""Headers that say who asks, when, or how a request is signed."""

TOKEN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
"""What makes a request the same however often it is sent, where the model has a member for it."""


@dataclass(frozen=True)
class Outcome:
    """What a command line did, in a form that both sides share."""

    requests: list[tuple[str, Any]]
    code: int
    stdout: str
    message: str
    outfile: bytes | None = None


class Service:
    """Records requests and answers them: with the answers of the case at hand, the last of which stays."""

    def __init__(self) -> None:
        self.case: Case | None = None
        self.requests: list[tuple[str, Any]] = []
        self._counts: dict[str, int] = {}
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                target = self.headers["X-Amz-Target"]
                status, answer = service.answer(target or self.path, self.headers, body)
                text = json.dumps(answer).encode() if answer is not None else b""
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1" if target else "text/csv")
                self.send_header("x-Amzn-Invoked-Production-Variant", "one")
                self.send_header("Content-Length", str(len(text)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def begin(self, case: Case) -> None:
        self.case, self.requests, self._counts = case, [], {}

    def answer(self, target: str, headers: Any, body: bytes) -> tuple[int, Any]:
        assert self.case is not None
        authorization = headers.get("Authorization", "")
        scope = re.sub(r"Credential=(\w+)/\d{8}/", r"\1/", " ".join(re.findall(r"Credential=[^,]+", authorization)))
        said = {name.lower(): value for name, value in headers.items() if name.lower() not in UNCOMPARED}
        sent = TOKEN.sub("(a token)", body.decode("latin-1"))
        self.requests.append((f"{target} {scope} {sorted(said.items())}", sent))
        name = target.partition(".")[2]
        answers = self.case.answers.get(name) or [(200, ANSWERS.get(name))]
        place = self._counts[name] = self._counts.get(name, -1) + 1
        return answers[min(place, len(answers) - 1)]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def furnished(folder: Path) -> Path:
    """Write the files that the command lines name."""
    (folder / "config").write_text(
        # Both are what version 2 does by default, or can be told to.
        "[default]\ncli_timestamp_format = iso8601\ncli_binary_format = raw-in-base64-out\n"
        "cli_follow_urlparam = false\n"
        "[profile other]\nregion = us-west-2\ncli_timestamp_format = iso8601\n"
        "[profile unchecked]\nparameter_validation = false\n"
    )
    (folder / "credentials").write_text("[other]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = secret\n")
    with (folder / "credentials").open("a") as file:
        file.write("[unchecked]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = secret\n")
    (folder / "image.txt").write_text("from a file\n")
    (folder / "tags.json").write_text('[{"Key": "a", "Value": "b"}]')
    (folder / "model.json").write_text('{"ModelName": "m"}')
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    return folder


def run_all(
    side: str, table: list[Case], folder: Path, python: str = sys.executable, more: Mapping[str, str] | None = None
) -> dict[str, Outcome]:
    """Run the whole table on one side, in one process: of that python, with more in its environment."""
    service = Service()
    home = folder / side
    home.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CLARY_"))},
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "AWS_CONFIG_FILE": str(folder / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": service.url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "2",
        "AWS_RETRY_MODE": "standard",
        "TZ": "Europe/Berlin",
    }
    if side == "aws":
        # It carries a botocore of its own, with older models.
        environment["AWS_DATA_PATH"] = MODELS
    environment |= more or {}
    with subprocess.Popen(
        [python, str(WORKER), side],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        cwd=home,
        text=True,
    ) as worker:
        assert worker.stdin and worker.stdout
        found = {}
        try:
            for case in table:
                service.begin(case)
                arguments = [word.replace("{folder}", str(folder)) for word in case.arguments]
                worker.stdin.write(json.dumps({"arguments": arguments, "environment": case.environment}) + "\n")
                worker.stdin.flush()
                answer = json.loads(worker.stdout.readline())
                found[case.name] = outcome(answer, service.requests, home / "out")
        finally:
            worker.stdin.close()
            service.stop()
    return found


def without_choices(message: str) -> str:
    """Give what is said of an invalid choice without the list of all valid ones, which not all versions have."""
    listed = "Invalid choice, valid choices are" in message or "Found invalid choice" in message
    return "\n".join(re.findall(r"  \* .*", message)) if listed else message


def outcome(answer: dict[str, Any], requests: list[tuple[str, Any]], out: Path) -> Outcome:
    """Give an answer of a worker without what names the program."""
    message = answer["stderr"].strip()
    parsed = re.search(r"^\S+: error: (.*)\Z", message, re.DOTALL | re.MULTILINE)
    unknown = re.search(r"^Unknown options: .*\Z", message, re.DOTALL | re.MULTILINE)
    message = parsed[1] if parsed else unknown[0] if unknown else message
    outfile = out.read_bytes() if out.exists() else None
    out.unlink(missing_ok=True)
    return Outcome(requests, answer["code"], answer["stdout"], message, outfile)
