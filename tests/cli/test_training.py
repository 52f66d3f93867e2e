"""Training: in the environment of the image, by a script, into an archive as SageMaker wants it."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import pytest

from clary.cli import training
from clary.cli.demo import IMAGE
from clary.core.containers import Progress
from clary.engines.catalogue import Catalogue, Recipe
from clary.engines.environments import Environments, PythonEnvironment


def test_the_model_is_trained_where_it_will_be_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Recipe] = []

    async def get(self: Environments, recipe: Recipe, model: Path, progress: Progress) -> PythonEnvironment:
        assert not model.exists()
        asked.append(recipe)
        progress("install")
        return PythonEnvironment(tmp_path / "key")

    monkeypatch.setattr(Environments, "get", get)
    said: list[str] = []
    assert training.training_python(tmp_path, IMAGE, said.append) == tmp_path / "key" / "bin" / "python"
    assert asked == [Catalogue().resolve(IMAGE)]
    assert said == ["install"]


def test_the_script_s_last_line_is_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho warming up\necho "{\\"accuracy\\": 0.9, \\"out\\": \\"$2\\"}"\n')
    python.chmod(0o755)
    assert training.train(python, tmp_path / "out") == {"accuracy": 0.9, "out": str(tmp_path / "out")}


def test_a_script_that_fails_is_told_with_its_last_lines(tmp_path: Path) -> None:
    # The Python of the tests has no scikit-learn.
    with pytest.raises(training.TrainingFailed, match=r"train\.py exited with 1: .*ModuleNotFoundError"):
        training.train(Path(sys.executable), tmp_path)


def test_an_archive_holds_the_folder_s_content_at_its_root(tmp_path: Path) -> None:
    (tmp_path / "model" / "code").mkdir(parents=True)
    (tmp_path / "model" / "model.joblib").write_text("m")
    (tmp_path / "model" / "code" / "inference.py").write_text("c")
    training.pack(tmp_path / "model", tmp_path / "model.tar.gz")
    with tarfile.open(tmp_path / "model.tar.gz") as tar:
        assert tar.getnames() == ["code", "code/inference.py", "model.joblib"]
