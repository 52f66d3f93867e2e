"""Adapters that are registered while a model serves, through the real server."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from .conftest import Launch, Server
from .multimodel.conftest import until

SCRIPT = """
import os

def model_fn(model_dir):
    return {"pid": os.getpid(), "adapters": {}}

def load_adapter_fn(model, name, adapter_dir):
    if adapter_dir == "/broken":
        raise ValueError("no such rank")
    model["adapters"][name] = adapter_dir

def unload_adapter_fn(model, name):
    del model["adapters"][name]

def predict_fn(data, model, context):
    name = context.get_request_header(0, "X-Amzn-SageMaker-Adapter-Identifier")
    return [model["pid"], sorted(model["adapters"].items()), model["adapters"].get(name)]
"""
NAMED = "X_Amzn_SageMaker_Adapter_Identifier"


@pytest.fixture(scope="module")
def shared(launch: Launch) -> Server:
    return launch(SCRIPT, SAGEMAKER_MODEL_SERVER_WORKERS="2")


@pytest.fixture
def server(shared: Server) -> Server:
    for adapter in listed(shared):
        assert shared.request("DELETE", f"/adapters/{adapter}")[0] == 200
    return shared


def listed(server: Server) -> dict[str, str]:
    said = json.loads(server.request("GET", "/adapters")[1])
    return {each["name"]: each["src"] for each in said["adapters"]}


def add(server: Server, name: str, source: str) -> tuple[int, bytes]:
    return server.request("POST", "/adapters", json.dumps({"name": name, "src": source, "preload": True}))[:2]


def ask_all(server: Server) -> dict[int, list[list[str]]]:
    """Invoke until both workers have answered; give what each has."""
    found: dict[int, list[list[str]]] = {}
    with ThreadPoolExecutor(8) as pool:

        def both() -> bool:
            for pid, adapters, _ in pool.map(lambda _: json.loads(server.invoke("[]")[1]), range(16)):
                found[pid] = adapters
            return found.keys() >= set(server.workers(2))

        until(both)
    return {pid: adapters for pid, adapters in found.items() if pid in server.workers(2)}


def test_an_adapter_that_one_worker_was_told_of_is_everywhere(server: Server) -> None:
    assert add(server, "french", "/adapters/1") == (200, b"Adapter french registered")
    assert list(ask_all(server).values()) == [[["french", "/adapters/1"]]] * 2
    assert json.loads(server.invoke("[]", **{NAMED: "french"})[1])[2] == "/adapters/1"
    assert server.request("DELETE", "/adapters/french")[:2] == (200, b"Adapter french unregistered")
    assert list(ask_all(server).values()) == [[]] * 2


def test_a_worker_that_comes_later_has_it_too(server: Server) -> None:
    add(server, "french", "/adapters/1")
    killed = server.workers(2)[0]
    os.kill(killed, signal.SIGKILL)
    until(lambda: killed not in server.workers(2))
    assert list(ask_all(server).values()) == [[["french", "/adapters/1"]]] * 2


def test_registering_again_replaces_it(server: Server) -> None:
    add(server, "french", "/adapters/1")
    assert add(server, "french", "/adapters/2")[0] == 200
    assert list(ask_all(server).values()) == [[["french", "/adapters/2"]]] * 2


def test_one_that_does_not_load_is_not_registered(server: Server) -> None:
    status, body = add(server, "broken", "/broken")
    assert (status, body.splitlines()[0]) == (500, b"no such rank")
    assert listed(server) == {}
    assert server.invoke("[]")[0] == 200


def test_what_is_not_registered_is_not_found(server: Server) -> None:
    assert server.invoke("[]", **{NAMED: "german"})[:2] == (404, b"Adapter german is not registered")
    for method in ("GET", "DELETE"):
        assert server.request(method, "/adapters/german")[0] == 404


def test_one_is_shown_by_its_name(server: Server) -> None:
    add(server, "french", "/adapters/1")
    add(server, "german", "/adapters/2")
    assert listed(server) == {"french": "/adapters/1", "german": "/adapters/2"}
    assert json.loads(server.request("GET", "/adapters/german")[1]) == {"name": "german", "src": "/adapters/2"}


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", '{"name": "a"}', '{"name": 1, "src": "b"}', '{"name": "a/b", "src": ""}']
)
def test_a_body_that_is_none_is_a_bad_request(server: Server, body: str) -> None:
    assert server.request("POST", "/adapters", body)[0] == 400


def test_other_methods_are_told_the_right_ones(server: Server) -> None:
    assert server.request("PUT", "/adapters")[2]["allow"] == "GET, POST"
    assert server.request("POST", "/adapters/french")[2]["allow"] == "GET, DELETE"


def test_a_script_without_the_functions_has_no_such_path(launch: Launch) -> None:
    server = launch("def model_fn(d): return 0\ndef predict_fn(x, m): return m")
    assert add(server, "french", "/adapters/1")[0] == 404
    server.stop()
