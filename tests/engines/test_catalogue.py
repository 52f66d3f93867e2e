"""Which images are known, and what stands for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from clary.engines.catalogue import Catalogue
from clary.errors import LaunchFailure, SettingsError

ECR = "683313688378.dkr.ecr.us-east-1.amazonaws.com"


@pytest.mark.parametrize(
    ("image", "name", "package", "python"),
    [
        (f"{ECR}/sagemaker-scikit-learn:1.2-1-cpu-py3", "sagemaker-scikit-learn", "scikit-learn~=1.2.0", None),
        (f"{ECR}/sagemaker-scikit-learn:1.4-2-cpu-py3", "sagemaker-scikit-learn", "scikit-learn~=1.4.0", None),
        (f"{ECR}/sagemaker-scikit-learn:1.4-2-py312", "sagemaker-scikit-learn", "scikit-learn~=1.4.0", "3.12"),
        (f"{ECR}/sagemaker-scikit-learn:0.23-1-cpu-py3", "sagemaker-scikit-learn", "scikit-learn==1.1.3", None),
        (f"{ECR}/sagemaker-xgboost:1.7-1", "sagemaker-xgboost", "xgboost~=1.7.0", None),
        (f"{ECR}/sagemaker-xgboost:3.0-5", "sagemaker-xgboost", "xgboost~=3.0.0", None),
        ("433757028032.dkr.ecr.us-west-2.amazonaws.com/xgboost:1", "sagemaker-xgboost", "xgboost~=1.7.0", None),
        ("7.dkr.ecr.cn-north-1.amazonaws.com.cn/pytorch-inference:2.6.0-cpu-py312", "pytorch-inference",
         "torch~=2.6.0", "3.12"),
        ("7.dkr.ecr.x.amazonaws.com/huggingface-pytorch-inference:2.6.0-transformers4.49.0-gpu-py312-cu124-ubuntu22.04",
         "huggingface-pytorch-inference", "transformers~=4.49.0", "3.12"),
        ("1.dkr.ecr.x.amazonaws.com/mlflow-pyfunc:3.1.0", "mlflow-pyfunc", "mlflow==3.1.0", None),
        ("mlflow-pyfunc", "mlflow-pyfunc", "mlflow", None),
    ],
)  # fmt: skip
def test_awss_images_are_known_by_repository(image: str, name: str, package: str, python: str | None) -> None:
    recipe = Catalogue().resolve(image)
    assert (recipe.name, recipe.python) == (name, python)
    assert package in recipe.packages


def test_plain_python_runs_what_the_model_brings() -> None:
    assert Catalogue().resolve("python").runtime == "serve"
    assert Catalogue().resolve("docker.io/library/python:3.12-slim").python == "3.12"


@pytest.mark.parametrize(
    ("image", "many"),
    [
        (f"{ECR}/sagemaker-scikit-learn:1.2-1-cpu-py3", True),
        (f"{ECR}/sagemaker-xgboost:3.0-5", True),
        ("own", True),
        ("mlflow-pyfunc", False),
        ("python:3.11", False),
    ],
)
def test_what_serves_one_model_is_no_multi_model_container(image: str, many: bool, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[[image]]\nname = 'own'\npattern = 'own'\ncommand = ['my-server', '{port}']\n")
    recipe = Catalogue(file).resolve(image)
    if many:
        recipe.require_many(image)
    else:
        with pytest.raises(LaunchFailure, match="multi-models=true Docker label"):
            recipe.require_many(image)


def test_a_digest_and_a_port_in_the_registry_do_no_harm() -> None:
    assert Catalogue().resolve("localhost:5000/mlflow-pyfunc:3.1.0@sha256:abc").packages == ("mlflow==3.1.0",)


def test_an_unknown_image_is_explained() -> None:
    with pytest.raises(LaunchFailure) as failure:
        Catalogue().resolve(f"{ECR}/linear-learner:1")
    assert failure.value.step == "image"
    for part in ("linear-learner", "sagemaker-scikit-learn", "mlflow-pyfunc", "--catalogue", "[[image]]"):
        assert part in failure.value.message


def test_the_users_entries_come_first(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        "[[image]]\nname = 'mine'\npattern = 'sagemaker-xgboost'\ntag = '(?P<v>.*)'\n"
        "command = ['run', '{v}', '{port}']\n"
    )
    recipe = Catalogue(file).resolve("sagemaker-xgboost:9")
    assert (recipe.name, recipe.runtime, recipe.command) == ("mine", "command", ("run", "9", "{port}"))
    assert Catalogue(file).resolve("python").name == "python"


@pytest.mark.parametrize(
    "text",
    [
        "[[image]]\nname = 'x'\n",
        "[[image]]\nname = 'x'\npattern = '('\nruntime = 'serve'\n",
        "[[image]]\nname = 'x'\npattern = 'x'\nruntime = 'magic'\n",
        "[[image]]\nname = 'x'\npattern = 'x'\nruntime = 'serve'\ncommand = ['x']\n",
        "[[image]]\nname = 'x'\npattern = 'x'\ncolour = 'red'\nruntime = 'serve'\n",
        "no toml",
    ],
)
def test_a_catalogue_that_cannot_be_used_is_refused_at_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(SettingsError, match="--catalogue"):
        Catalogue(tmp_path / "mine.toml")


def test_the_resolution_changes_with_what_would_be_run() -> None:
    one, two = (Catalogue().resolve(f"sagemaker-xgboost:{tag}").resolved for tag in ("3.0-5", "3.2-0"))
    assert one != two
    assert one.startswith("clary-process/sagemaker-xgboost@sha256:")
    assert len(one.rpartition(":")[2]) == 64
