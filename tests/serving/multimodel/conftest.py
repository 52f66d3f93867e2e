"""A real multi-model server and models for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import PATIENCE, Launch, Server

PID = """
import os
def model_fn(model_dir): return os.getpid()
def predict_fn(data, model): return model
"""


class Many:
    """A running multi-model server, and a folder for models as the platform lays them out."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self._folder = folder

    def write(self, name: str, script: str | None, files: Mapping[str, str] | None = None) -> Path:
        """Lay out a model; give what its `url` is."""
        model = self._folder / name / "model"
        for file, text in {**({"code/inference.py": script} if script is not None else {}), **(files or {})}.items():
            path = model / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return model

    def load(self, name: str) -> tuple[int, Any]:
        body = {"model_name": name, "url": str(self._folder / name / "model")}
        return self.json("POST", "/models", json.dumps(body), Content_Type="application/json")

    def add(self, name: str, script: str, files: Mapping[str, str] | None = None) -> None:
        """Lay out a model and load it."""
        self.write(name, script, files)
        assert self.load(name) == (200, {"status": "Workers scaled"}), self.server.log

    def invoke(self, name: str, body: str = "[]", **headers: str) -> tuple[int, Any]:
        return self.json("POST", f"/models/{name}/invoke", body, **{"Content_Type": "application/json", **headers})

    def unload(self, name: str) -> tuple[int, Any]:
        return self.json("DELETE", f"/models/{name}")

    def describe(self, name: str) -> tuple[int, Any]:
        return self.json("GET", f"/models/{name}")

    def names(self) -> list[str]:
        status, said = self.json("GET", "/models")
        assert status == 200
        return [model["modelName"] for model in said["models"]]

    def json(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, Any]:
        status, answer, fields = self.server.request(method, path, body, **headers)
        return status, json.loads(answer) if fields.get("content-type") == "application/json" else answer.decode()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="session")
def launch_many(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Many]:
    def start(**environment: str) -> Many:
        return Many(launch(SAGEMAKER_MULTI_MODEL="true", **environment), tmp_path_factory.mktemp("models"))

    return start


@pytest.fixture(scope="package")
def shared(launch_many: Callable[..., Many]) -> Many:
    """One server for all that leaves it as it was."""
    return launch_many()


@pytest.fixture
def many(shared: Many, tmp_path: Path) -> Iterator[Many]:
    assert shared.names() == []
    yield Many(shared.server, tmp_path)
    for name in shared.names():
        assert shared.unload(name)[0] == 200
