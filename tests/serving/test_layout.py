from __future__ import annotations

from pathlib import Path

import pytest

from clary.serving.layout import Layout


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("environment", "model_dir", "program"),
    [
        ({}, "/opt/ml/model", "inference.py"),
        ({"SAGEMAKER_BASE_DIR": "/x"}, "/x/model", "inference.py"),
        ({"SM_MODEL_DIR": "/y", "SAGEMAKER_BASE_DIR": "/x"}, "/y", "inference.py"),
        ({"SAGEMAKER_PROGRAM": "serve.py"}, "/opt/ml/model", "serve.py"),
        ({"SAGEMAKER_PROGRAM": "serve"}, "/opt/ml/model", "serve.py"),
    ],
)
def test_the_environment_names_the_places(environment: dict[str, str], model_dir: str, program: str) -> None:
    layout = Layout.from_environment(environment)
    assert (str(layout.model_dir), layout.program) == (model_dir, program)
    assert layout.named == ("SAGEMAKER_PROGRAM" in environment)


def test_a_script_is_a_file_or_a_package(tmp_path: Path) -> None:
    assert not Layout(tmp_path).has_script
    write(tmp_path, "code/inference/__init__.py")
    assert Layout(tmp_path).has_script


def test_a_missing_script_shows_what_is_there(tmp_path: Path) -> None:
    text = str(Layout(write(tmp_path, "model.joblib", "code/other.py"), "run.py", named=True).missing_script())
    assert "code/run.py is not in its files" in text
    assert "SAGEMAKER_PROGRAM names it: run.py" in text
    assert text.endswith("    model.joblib\n    code/other.py")


def test_an_extra_top_folder_is_pointed_at(tmp_path: Path) -> None:
    text = str(Layout(write(tmp_path, "iris/code/inference.py")).missing_script())
    assert "extra top folder, iris/" in text


def test_a_script_beside_the_model_is_pointed_at(tmp_path: Path) -> None:
    assert "it belongs in code/" in str(Layout(write(tmp_path, "inference.py")).missing_script())


def test_a_large_tree_is_cut_short(tmp_path: Path) -> None:
    write(tmp_path, *(f"shard-{number:03}" for number in range(100)), "a/b/c/d/e/f")
    text = str(Layout(tmp_path).missing_script())
    assert "shard-039" in text
    assert "shard-040" not in text
    assert text.endswith("...")


def test_an_absent_model_folder_is_nothing(tmp_path: Path) -> None:
    assert str(Layout(tmp_path / "gone").missing_script()).endswith("(nothing)")
