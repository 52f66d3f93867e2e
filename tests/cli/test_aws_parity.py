"""`clary sagemaker` beside the real `aws sagemaker`: the same command lines, the same requests, answers and codes.

The aws CLI here is version 1. Its exit codes are held against version 2's, which Clary has, by CODES.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import Loader

from clary.cli.aws import shapes
from clary.cli.aws.options import options_of
from tests.cli.aws_cases import ANSWERS, Case, cases

MODELS = Loader.BUILTIN_DATA_PATH
DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"
WORKER = Path(__file__).with_name("aws_worker.py")

CODES = (
    # (version 1's code, what its message says, version 2's code)
    (2, r"", 252),
    (255, r"^An error occurred \(", 254),
    (255, r"^(Parameter validation failed|Error parsing parameter|Unknown options|Bad value for --)", 252),
    (255, r"^(You must specify a region|Unable to locate credentials|The config profile)", 253),
    (255, r"", 255),
)
"""Version 1 leaves with 2 for what its argument parser refuses and with 255 for all else."""

_STUB = "version 1 stumbles over its own sample: the names that stand for values are shorter than the model allows"
_NUMBER = "an option's value that cannot be read is a usage error, and the message says of which option"
_AGAIN = "the direct way's attempt comes before botocore's"
_WORDS = "version 1 reports its own usage as an error of the program; here it is one of the command line"
_FRACTION = "the installed botocore sends times as precisely as they are given"
_ARN_OUTPUTS = (
    *("create-model", "create-endpoint-config", "create-endpoint", "update-endpoint", "describe-model"),
    *("describe-endpoint", "update-endpoint-weights-and-capacities"),
)
_LISTS = ("list-models", "list-endpoints", "list-endpoint-configs")

UNCOMPARED = {
    *("authorization", "host", "user-agent", "x-amz-date", "x-amz-content-sha256", "content-length"),
    *("accept-encoding", "amz-sdk-invocation-id", "amz-sdk-request"),
}
"""Headers that say who asks, when, or how a request is signed."""

TOKEN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
"""What makes a request the same however often it is sent, where the model has a member for it."""

DIFFERENCES: dict[str, tuple[set[str], str]] = {
    **{f"{name}: output skeleton": ({"stdout", "code", "message"}, _STUB) for name in (*_ARN_OUTPUTS, *_LISTS)},
    **{f"{name}: output skeleton, nothing given": ({"stdout", "code", "message"}, _STUB) for name in _LISTS},
    "shorthand bad: no such file": ({"code", "message"}, _NUMBER),
    "variants: no number": ({"code", "message"}, _NUMBER),
    "variants: no fraction": ({"code", "message"}, _NUMBER),
    "no time-out": ({"code", "message"}, _NUMBER),
    "table in colour": ({"stdout"}, "colorama, of version 1, resets the colour after each write, needed or not"),
    "URL without a scheme": ({"code", "message"}, "version 1 takes the host for the scheme and fails later"),
    "refused: server": ({"requests"}, _AGAIN),
    "refused: throttled": ({"requests"}, _AGAIN),
    "an answer that is a list": ({"requests"}, _AGAIN),
    "wait: on nothing": ({"code", "message"}, _WORDS),
    "pages: epoch with a fraction": ({"requests"}, _FRACTION),
}
"""By the name of a case: what is not compared there, and why. The same list is in docs/cli.md."""


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


def run_all(side: str, table: list[Case], folder: Path) -> dict[str, Outcome]:
    """Run the whole table on one side, in one process."""
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
    with subprocess.Popen(
        [sys.executable, str(WORKER), side],
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


def outcome(answer: dict[str, Any], requests: list[tuple[str, Any]], out: Path) -> Outcome:
    """Give an answer of a worker without what names the program."""
    message = answer["stderr"].strip()
    parsed = re.search(r"^\S+: error: (.*)\Z", message, re.DOTALL | re.MULTILINE)
    unknown = re.search(r"^Unknown options: .*\Z", message, re.DOTALL | re.MULTILINE)
    message = parsed[1] if parsed else unknown[0] if unknown else message
    outfile = out.read_bytes() if out.exists() else None
    out.unlink(missing_ok=True)
    return Outcome(requests, answer["code"], answer["stdout"], message, outfile)


def as_version_2(of_version_1: Outcome) -> Outcome:
    """Give what version 2 would do: the code of its own, and an invalid choice without the list of the valid ones."""
    code = of_version_1.code
    for given, pattern, meant in CODES:
        if code == given and re.search(pattern, of_version_1.message):
            code = meant
            break
    return replace(of_version_1, code=code)


def compared(found: Outcome, case: Case) -> dict[str, Any]:
    """Give what is compared of an outcome."""
    parts: dict[str, Any] = {
        "requests": found.requests,
        "code": found.code,
        "stdout": found.stdout,
        "message": found.message,
        "outfile": found.outfile,
    }
    if "--generate-cli-skeleton" in case.arguments and found.stdout:
        parts["stdout"] = _without_enums(json.loads(found.stdout))
    if "Invalid choice, valid choices are" in found.message or "Found invalid choice" in found.message:
        # Version 1 lists all choices, version 2 only those that are close.
        parts["message"] = re.findall(r"  \* .*", found.message)
    for part in DIFFERENCES.get(case.name, (set(), ""))[0]:
        del parts[part]
    return parts


def _without_enums(value: Any) -> Any:
    """Version 1 draws enum members at random; any word stands for any other."""
    if isinstance(value, dict):
        return {name: _without_enums(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_enums(item) for item in value]
    return "" if isinstance(value, str) else value


TABLE = cases()


@dataclass(frozen=True)
class Sides:
    """The outcomes of the table; `botocore` is Clary without its direct way, for what that may have done."""

    aws: dict[str, Outcome]
    clary: dict[str, Outcome]
    botocore: dict[str, Outcome]


SENDING = [case for case in TABLE if case.name.endswith((": minimal", ": refused")) or "describe-" in case.name]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Sides:
    folder = tmp_path_factory.mktemp("parity")
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
    tables = {"aws": TABLE, "clary": TABLE, "botocore": SENDING}
    with ThreadPoolExecutor(len(tables)) as pool:
        return Sides(*pool.map(lambda side: run_all(side, tables[side], folder), tables))


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_it_does_what_aws_does(case: Case, outcomes: Sides) -> None:
    assert compared(outcomes.clary[case.name], case) == compared(as_version_2(outcomes.aws[case.name]), case)


@pytest.mark.parametrize("case", SENDING, ids=lambda case: case.name)
def test_both_ways_to_call_do_the_same(case: Case, outcomes: Sides) -> None:
    assert outcomes.clary[case.name] == outcomes.botocore[case.name]


def test_every_difference_is_documented_with_its_reason() -> None:
    page = DOCUMENT.read_text()
    for name, (_, reason) in DIFFERENCES.items():
        assert f"| {reason} |" in page, name


def test_the_table_is_large_and_every_difference_is_one_of_its_cases() -> None:
    names = [case.name for case in TABLE]
    assert len(names) == len(set(names)) >= 150
    assert set(DIFFERENCES) <= set(names)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_listed_difference_is_there(name: str, outcomes: Sides) -> None:
    ours, theirs = outcomes.clary[name], as_version_2(outcomes.aws[name])
    for part in DIFFERENCES[name][0]:
        assert getattr(ours, part) != getattr(theirs, part), f"{part} does not differ any more: {name}"


@pytest.mark.parametrize("service", ["sagemaker", "sagemaker-runtime"])
def test_every_option_has_the_name_the_type_and_the_requiredness_that_aws_gives_it(
    service: str, tmp_path: Path
) -> None:
    answer = subprocess.run(
        [sys.executable, str(WORKER), "options", service],
        capture_output=True,
        check=True,
        text=True,
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "AWS_DATA_PATH": MODELS},
    )
    aws = json.loads(answer.stdout)
    for name, theirs in aws.items():
        operation = shapes.operation(service, name)
        ours = {
            option.name: [option.shape.type, option.required, option.hidden]
            for option in options_of(operation)
            if option.name != "cli-input-yaml"
        }
        assert ours == {option: facts for option, facts in theirs.items() if option != "outfile"}, name
        assert ("outfile" in theirs) == (operation.payload is not None), name
    assert set(shapes.index(service)) - set(aws) == (
        {"invoke-endpoint-with-response-stream"} & set(shapes.index(service))
    )
