"""The same requests to our server and to AWS's toolkit with its Java server: where do the answers differ, and why?"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.containers import docker, needs_docker
from tests.servers import multi_model_toolkit
from tests.serving.conftest import PATIENCE

from .conftest import Many, until

pytestmark = needs_docker

ECHO = """
import helper
def model_fn(model_dir): return helper.WORD
def input_fn(data, content_type): return [data, content_type]
def predict_fn(data, model, context):
    return [model, *data, context.get_request_header(0, "X-Amzn-SageMaker-Target-Model")]
"""

MODELS: Mapping[str, Mapping[str, str]] = {
    "a": {"code/inference.py": ECHO, "code/helper.py": "WORD = 'first'"},
    "b": {"code/inference.py": ECHO, "code/helper.py": "WORD = 'second'"},
    "raises": {"code/inference.py": "def model_fn(d): raise ValueError('no weights')"},
    "memory": {"code/inference.py": "def model_fn(d): raise MemoryError('much')"},
    "empty": {"README": "no script"},
    "picky": {"code/inference.py": "def model_fn(d): return 0\ndef predict_fn(x, m): raise ValueError('bad flower')"},
    "exits": {"code/inference.py": "import os\ndef model_fn(d): return 0\ndef predict_fn(x, m): os._exit(7)"},
}

Step = tuple[str, str, str]
"""Method, path, and what is sent: a model's name to load it, else a body."""

LIFE: list[Step] = [
    ("GET", "/ping", ""),
    ("GET", "/models", ""),
    ("POST", "/models", "a"),
    ("POST", "/models", "a"),
    ("POST", "/models", "b"),
    ("POST", "/models/a/invoke", "7"),
    ("POST", "/models/b/invoke", "7"),
    ("GET", "/models", ""),
    ("GET", "/models/a", ""),
    ("GET", "/models?limit=1", ""),
    ("GET", "/models?limit=1&next_page_token=1", ""),
    ("GET", "/models?limit=2", ""),
    ("GET", "/models?limit=0", ""),
    ("GET", "/models?limit=1000", ""),
    ("GET", "/models?limit=x", ""),
    ("GET", "/models?next_page_token=7", ""),
    ("DELETE", "/models/a", ""),
    ("DELETE", "/models/a", ""),
    ("GET", "/models/gone", ""),
    ("POST", "/models/a/invoke", "8"),
    ("POST", "/models", "a"),
    ("POST", "/models/a/invoke", "7"),
    ("DELETE", "/models/a", ""),
    ("DELETE", "/models/b", ""),
]
FAILURES: list[Step] = [
    *(
        step
        for name in ("raises", "memory", "empty", "missing")
        for step in (
            ("POST", "/models", name),
            ("POST", f"/models/{name}/invoke", "7"),
            ("DELETE", f"/models/{name}", ""),
        )
    ),
    ("POST", "/models", "picky"),
    ("POST", "/models/picky/invoke", "7"),
    ("DELETE", "/models/picky", ""),
    ("POST", "/models", "exits"),
    ("POST", "/models/exits/invoke", "7"),
    ("DELETE", "/models/exits", ""),
    ("GET", "/models", ""),
]
ODD: list[Step] = [
    ("POST", "/models", "{"),
    ("POST", "/models", "[]"),
    ("POST", "/models", '{"model_name": "a"}'),
    ("POST", "/models", '{"url": "/opt/ml/models/a/model"}'),
    ("PUT", "/models", ""),
    ("POST", "/models/a", ""),
    ("GET", "/models/a/invoke", ""),
    ("POST", "/ping", ""),
    ("POST", "/invocations", "7"),
    ("GET", "/", ""),
]

ZOMBIE = "AWS's keeps an entry of what it could not load, for a while or until it is deleted"

DIFFERENT: Mapping[str, tuple[int, set[int], str]] = {
    "GET /ping": (200, {200}, "AWS's has a body, which nobody reads"),
    "GET /models/a": (200, {200}, "a pid for an id, no milliseconds, a memory that was measured, no wait for a batch"),
    "GET /models?limit=0": (200, {200}, "AWS's gives an empty page that leads to itself"),
    "GET /models?limit=2": (200, {200}, "AWS's announces a page after the last one if that is full"),
    "GET /models?limit=1&next_page_token=1": (200, {200}, "the same"),
    "POST /models raises": (500, {500}, "we say why"),
    "POST /models/raises/invoke 7": (404, {404, 503}, ZOMBIE),
    "DELETE /models/raises": (404, {404, 200}, ZOMBIE),
    "POST /models memory": (507, {507}, "we say why"),
    "POST /models/memory/invoke 7": (404, {404, 503}, ZOMBIE),
    "DELETE /models/memory": (404, {404, 200}, ZOMBIE),
    "POST /models empty": (500, {500}, "we say why"),
    "POST /models/empty/invoke 7": (404, {404, 503}, ZOMBIE),
    "DELETE /models/empty": (404, {404, 200}, ZOMBIE),
    "POST /models/picky/invoke 7": (500, {500}, "the same first line; the traceback has other files"),
    "POST /models/exits/invoke 7": (500, {500}, "we name the model"),
    "POST /models {": (400, {400}, "we say what is wrong with the JSON"),
    "POST /models []": (400, {400}, "we name the member that is missing first"),
    'POST /models {"url": "/opt/ml/models/a/model"}': (400, {400}, "the same"),
    "GET /models/a/invoke": (405, {200, 404, 500}, "AWS's invokes with any method; the contract has POST"),
    "POST /ping": (405, {200}, "AWS's does not look at the method"),
    "POST /invocations 7": (404, {400}, "AWS's asks for a name; here is no such path"),
    "GET /": (404, {405}, "AWS's takes it for a description of its API, by another method"),
}
"""Our status, theirs, and why the answers are not the same."""


@dataclass(frozen=True)
class Place:
    """A server, and where it finds the models."""

    host: str
    port: int
    models: str

    def ask(self, method: str, path: str, sent: str) -> tuple[int, Any]:
        body, kind = sent, "text/csv"
        if path == "/models" and sent and sent[0] not in "{[":
            body, kind = json.dumps({"model_name": sent, "url": f"{self.models}/{sent}/model"}), "application/json"
        fields = {"Content-Type": kind, "Accept": "application/json", "X-Amzn-SageMaker-Target-Model": "x.tar.gz"}
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)) as connection:
            connection.request(method, path, body, fields)
            answer = connection.getresponse()
            text = answer.read().decode().replace(self.models, "/opt/ml/models")
            try:
                return answer.status, json.loads(text)
            except ValueError:
                return answer.status, text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, files in MODELS.items():
        for file, text in files.items():
            path = folder / name / "model" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return folder


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Iterator[Place]:
    name = f"clary-test-{uuid4().hex[:8]}"
    docker("network", "create", name)
    try:
        image = multi_model_toolkit()
        docker("run", "--detach", "--name", name, "--network", name, "--env", "SAGEMAKER_MULTI_MODEL=true",
               "--volume", f"{folder}:/opt/ml/models:ro", image, "serve")  # fmt: skip
        address = docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)
        place = Place(address, 8080, "/opt/ml/models")
        until(lambda: answers(place))
        yield place
    finally:
        docker("rm", "--force", "--volumes", name)
        docker("network", "rm", name)


def answers(place: Place) -> bool:
    try:
        return place.ask("GET", "/ping", "")[0] == 200
    except OSError:
        time.sleep(0.5)
        return False


@pytest.fixture(scope="module")
def ours(launch_many: Callable[..., Many], folder: Path) -> Iterator[Place]:
    server = launch_many().server
    yield Place("127.0.0.1", server.port, str(folder))
    server.stop()


@pytest.mark.parametrize("steps", [LIFE, FAILURES, ODD], ids=["life", "failures", "odd"])
def test_answers_are_those_of_awss_server_but_for_what_is_listed(ours: Place, theirs: Place, steps: list[Step]) -> None:
    for step in steps:
        label = " ".join(step).strip()
        mine, other = ours.ask(*step), theirs.ask(*step)
        if label in DIFFERENT:
            status, statuses, _ = DIFFERENT[label]
            assert (mine[0], other[0] in statuses) == (status, True), f"{label}: {mine} {other}"
        else:
            assert mine == other, label


def test_every_difference_is_still_looked_at() -> None:
    assert DIFFERENT.keys() <= {" ".join(step).strip() for step in (*LIFE, *FAILURES, *ODD)}
