"""What `clary sagemaker` has beyond the aws CLI of version 1: YAML, streams, and the Clary that it finds by itself."""

from __future__ import annotations

import binascii
import io
import json
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import Result

from clary.cli.aws import direct, documents, shapes, skeleton
from clary.cli.aws.command import main
from tests.cli.conftest import FakeClary, refused

DESCRIBE = ["describe-endpoint", "--endpoint-name", "e"]
CREATED = {"EndpointName": "e", "EndpointStatus": "InService", "CreationTime": 1732300000.5}


@pytest.fixture(autouse=True)
def kept_models(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("TZ", "UTC")


@pytest.fixture
def found(clary: FakeClary, data: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClary:
    """A Clary that runs on the default data folder."""
    monkeypatch.setenv("CLARY_DATA", str(data))
    clary.operations["DescribeEndpoint"] = [(200, CREATED)]
    return clary


def test_without_an_endpoint_it_talks_to_the_clary_that_runs_here(
    found: FakeClary, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("sagemaker", [*DESCRIBE, "--query", "EndpointStatus", "--output", "text"]) == 0
    assert capsys.readouterr().out == "InService\n"
    assert found.names() == ["DescribeEndpoint"]


def test_without_a_clary_it_sends_nothing_and_says_how_to_start_one(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLARY_DATA", str(data))
    assert main("sagemaker", DESCRIBE) == 253
    assert "up --data" in capsys.readouterr().err


def test_it_is_a_command_of_clary_and_its_exit_code_is_clarys(found: FakeClary, run: Callable[..., Result]) -> None:
    found.operations["DescribeEndpoint"] = [refused("Could not find endpoint")]
    result = run("sagemaker", *DESCRIBE)
    assert result.exit_code == 254
    assert result.stderr == (
        "\nAn error occurred (ValidationException) when calling the DescribeEndpoint operation: "
        "Could not find endpoint\n"
    )


@pytest.mark.parametrize("way", ["direct", "botocore"])
def test_both_ways_to_call_print_the_same(
    way: str, found: FakeClary, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if way == "botocore":
        monkeypatch.setattr(direct, "serves", lambda *_: False)
    assert main("sagemaker", DESCRIBE) == 0
    assert json.loads(capsys.readouterr().out) == {**CREATED, "CreationTime": "2024-11-22T18:26:40.500000+00:00"}
    assert found.calls == [("DescribeEndpoint", {"EndpointName": "e"})]


def test_the_direct_way_imports_no_botocore(found: FakeClary, tmp_path: Path) -> None:
    import os
    import subprocess

    script = (
        "import sys; from clary.cli.aws.command import main; code = main('sagemaker', sys.argv[1:]);"
        "sys.exit(code or 'botocore' in sys.modules)"
    )
    assert main("sagemaker", DESCRIBE) == 0  # from now on the model is kept
    answer = subprocess.run([sys.executable, "-c", script, *DESCRIBE], capture_output=True, env=dict(os.environ))
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("variable", ["AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "HTTP_PROXY"])
def test_what_is_out_of_the_ordinary_is_left_to_botocore(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from clary.cli.aws.place import Place
    from clary.cli.aws.profile import Profile
    from clary.credentials import Credentials

    operation = shapes.operation("sagemaker", "describe-endpoint")
    place = Place("http://127.0.0.1:1", "us-east-1", Credentials("a", "b"))
    options: Any = SimpleNamespace(debug=False)
    assert direct.serves(operation, place, options, Profile(None, {}))
    monkeypatch.setenv(variable, "x")
    assert not direct.serves(operation, place, options, Profile(None, {}))


def test_yaml_goes_out_and_comes_in(found: FakeClary, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("sagemaker", [*DESCRIBE, "--output", "yaml"]) == 0
    assert capsys.readouterr().out == (
        "CreationTime: '2024-11-22T18:26:40.500000+00:00'\nEndpointName: e\nEndpointStatus: InService\n"
    )
    text = (
        "ModelName: off\nTags: [{Key: when, Value: 2024-01-01}, {Key: at, Value: 1:30}]\nEnableNetworkIsolation: true"
    )
    assert main("sagemaker", ["create-model", "--cli-input-yaml", text, "--model-name", "wins"]) == 0
    assert found.calls[-1] == (
        "CreateModel",
        {
            "ModelName": "wins",
            "Tags": [{"Key": "when", "Value": "2024-01-01"}, {"Key": "at", "Value": "1:30"}],
            "EnableNetworkIsolation": True,
        },
    )


def test_one_whole_document_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("sagemaker", ["create-model", "--cli-input-yaml", "{}", "--cli-input-json", "{}"]) == 252
    assert "Only one --cli-input- parameter may be specified." in capsys.readouterr().err
    assert main("sagemaker", ["create-model", "--cli-input-yaml", "a: ["]) == 252
    assert main("sagemaker", ["create-model", "--cli-input-yaml", "- a"]) == 252


@pytest.mark.parametrize("service", ["sagemaker", "sagemaker-runtime"])
def test_a_skeleton_in_yaml_says_the_same_as_one_in_json(service: str) -> None:
    for name in shapes.index(service):
        operation = shapes.operation(service, name)
        text = skeleton.yaml_input(operation)
        assert documents.read({"cli-input-yaml": text}) == skeleton.sample_input(operation), name


def test_a_skeleton_in_yaml_says_what_each_member_is_and_which_are_required(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("sagemaker", ["create-model", "--generate-cli-skeleton", "yaml-input"]) == 0
    text = capsys.readouterr().out
    assert text.startswith('ModelName: ""  # [REQUIRED] The name of the new model.\nPrimaryContainer:  # The location ')
    said = "Whether the container hosts a single model or multiple models. Valid values are: SingleModel, MultiModel."
    assert f'\n  Mode: "SingleModel"  # {said}\n' in text
    assert set(yaml.safe_load(text)) == set(shapes.operation("sagemaker", "create-model").names)


def test_pages_that_a_document_asks_for_are_got_by_hand(found: FakeClary) -> None:
    found.operations["ListModels"] = [(200, {"Models": [], "NextToken": "t"})]
    assert main("sagemaker", ["list-models", "--cli-input-json", '{"MaxResults": 1}']) == 0
    assert found.calls == [("ListModels", {"MaxResults": 1})]


def test_times_are_printed_as_they_were_sent_where_the_profile_says_so(
    found: FakeClary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config").write_text("[default]\ncli_timestamp_format = wire\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert main("sagemaker", [*DESCRIBE, "--query", "CreationTime"]) == 0
    assert capsys.readouterr().out == "1732300000.5\n"


def test_models_are_kept_and_a_cache_that_cannot_be_written_does_no_harm(
    found: FakeClary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    assert main("sagemaker", DESCRIBE) == 0
    assert {path.name for path in (tmp_path / "kept").rglob("*.json")} == {
        "index.json",
        "waiters.json",
        "DescribeEndpoint.json",
    }
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert main("sagemaker", DESCRIBE) == 0


def test_a_damaged_cache_is_read_anew(found: FakeClary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    assert main("sagemaker", DESCRIBE) == 0
    for path in (tmp_path / "kept").rglob("*.json"):
        path.write_text('{"half": ')
    assert main("sagemaker", DESCRIBE) == 0


class Runtime:
    """An endpoint: it keeps what it is sent, and answers with a body or with events."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.events: list[Callable[[], bytes]] = [lambda: event(b"\xffa"), lambda: event(b"b")]
        runtime = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                runtime.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                streamed = self.path.endswith("invocations-response-stream")
                self.send_response(200)
                self.send_header("Content-Type", "application/vnd.amazon.eventstream" if streamed else "text/csv")
                self.send_header("x-Amzn-Invoked-Production-Variant", "one")
                self.send_header(*(("Transfer-Encoding", "chunked") if streamed else ("Content-Length", "6")))
                self.send_header("Connection", "close")
                self.end_headers()
                if not streamed:
                    self.wfile.write(b"\xff\x00body")
                    return
                for make in runtime.events:
                    data = make()
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
                self.wfile.write(b"0\r\n\r\n")

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()


PART = {":message-type": "event", ":event-type": "PayloadPart", ":content-type": "application/octet-stream"}


def event(payload: bytes, **named: str) -> bytes:
    """Give a PayloadPart, or what the headers say, in AWS's event stream encoding."""
    headers = b""
    for name, value in (named or PART).items():
        headers += struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack("!I", binascii.crc32(prelude)) + headers + payload
    return message + struct.pack("!I", binascii.crc32(message))


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    made = Runtime()
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", f"http://127.0.0.1:{made.server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    yield made
    made.server.shutdown()
    made.server.server_close()
    made.thread.join()


INVOKE = {
    "invoke-endpoint": b"\xff\x00body",
    "invoke-endpoint-with-response-stream": b"\xffab",
}


@pytest.mark.parametrize("operation", INVOKE)
def test_a_body_goes_to_the_outfile_and_the_rest_is_printed(
    operation: str, runtime: Runtime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [operation, "--endpoint-name", "e", "--body", "AAH/", str(tmp_path / "out")]
    assert main("sagemaker-runtime", words) == 0
    assert (tmp_path / "out").read_bytes() == INVOKE[operation]
    assert json.loads(capsys.readouterr().out)["InvokedProductionVariant"] == "one"
    assert runtime.bodies == [b"\x00\x01\xff"]


@pytest.mark.parametrize("operation", INVOKE)
def test_a_body_on_standard_output_is_alone_there(
    operation: str, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = io.TextIOWrapper(io.BytesIO())
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", out)
        assert main("sagemaker-runtime", [operation, "--endpoint-name", "e", "--body", "", "-"]) == 0
    assert out.buffer.getvalue() == INVOKE[operation]  # type: ignore[attr-defined]  # BytesIO
    assert json.loads(capsys.readouterr().err)["InvokedProductionVariant"] == "one"


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (["--body", "fileb://{}"], b"\xff\x00"),
        (["--body", "1,2", "--cli-binary-format", "raw-in-base64-out"], b"1,2"),
    ],
)
def test_bytes_come_from_a_file_or_as_they_are(words: list[str], body: bytes, runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"\xff\x00")
    words = [word.format(tmp_path / "in") for word in words]
    assert main("sagemaker-runtime", ["invoke-endpoint", "--endpoint-name", "e", *words, str(tmp_path / "out")]) == 0
    assert runtime.bodies == [body]


def test_a_body_that_is_no_base64_is_not_sent(runtime: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("sagemaker-runtime", ["invoke-endpoint", "--endpoint-name", "e", "--body", "1,2", "out"]) == 255
    assert 'Invalid base64: "1,2"' in capsys.readouterr().err
    assert runtime.bodies == []


def test_base64_is_read_as_version_2_reads_it(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("aGk=\n")  # as `base64` writes it
    words = ["--endpoint-name", "e", "--body", f"file://{tmp_path / 'in'}", str(tmp_path / "out")]
    assert main("sagemaker-runtime", ["invoke-endpoint", *words]) == 0
    assert runtime.bodies == [b"hi"]


class Waiting(io.RawIOBase):
    """Standard output whose reader lets the server go on once it has read something."""

    def __init__(self, heard: threading.Event) -> None:
        self.heard = heard
        self.pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.pieces.append(bytes(data))
        self.heard.set()
        return len(data)


@pytest.mark.parametrize("to_file", [True, False])
def test_a_stream_is_passed_on_as_it_comes(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, to_file: bool
) -> None:
    """The server says the second word only when the first one can be read on this side."""
    out, heard, seen = tmp_path / "out", threading.Event(), []
    standard = Waiting(heard)

    def second() -> bytes:
        if to_file:
            seen.append(poll(lambda: out.exists() and out.read_bytes() == b"one "))
        else:
            seen.append(heard.wait(60) and b"".join(standard.pieces) == b"one ")
        return event(b"two")

    runtime.events = [lambda: event(b"one "), second]
    words = ["invoke-endpoint-with-response-stream", "--endpoint-name", "e", "--body", ""]
    with monkeypatch.context() as patch:
        if not to_file:
            patch.setattr("sys.stdout", io.TextIOWrapper(io.BufferedWriter(standard)))
        assert main("sagemaker-runtime", [*words, str(out) if to_file else "-"]) == 0
    assert seen == [True]
    assert (out.read_bytes() if to_file else b"".join(standard.pieces)) == b"one two"


def poll(holds: Callable[[], bool]) -> bool:
    """Wait until something holds, a minute at most."""
    return any(holds() or time.sleep(0.01) for _ in range(6000))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("ModelStreamError", "An error occurred (ModelStreamError)"), ("InternalStreamFailure", "InternalStreamFailure")],
)
def test_a_stream_that_breaks_off_leaves_what_came_and_fails(
    kind: str, expected: str, runtime: Runtime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = event(b'{"Message": "the model stopped"}', **{":message-type": "exception", ":exception-type": kind})
    runtime.events = [lambda: event(b"one "), lambda: broken]
    words = ["--endpoint-name", "e", "--body", "", str(tmp_path / "out")]
    assert main("sagemaker-runtime", ["invoke-endpoint-with-response-stream", *words]) == 254
    assert expected in capsys.readouterr().err
    assert (tmp_path / "out").read_bytes() == b"one "


def test_a_request_that_is_sent_again_is_the_same_request(found: FakeClary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    found.operations["CreateModelPackage"] = [(500, {}), (200, {"ModelPackageArn": "arn:p"})]
    line = ["create-model-package", "--model-package-group-name", "g", "--source-uri", "s3://b/k"]
    assert main("sagemaker", line) == 0
    (_, first), (_, again) = found.calls
    assert len(first["ClientToken"]) == 36
    assert again == first
    found.operations["CreateModelPackage"] = [(200, {"ModelPackageArn": "arn:p"})]
    assert main("sagemaker", [*line, "--client-token", "mine"]) == 0
    assert found.calls[-1][1]["ClientToken"] == "mine"
