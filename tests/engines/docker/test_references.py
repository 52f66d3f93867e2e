"""Names of images, read as Docker reads them."""

from __future__ import annotations

import pytest

from clary.engines.docker.references import parse, repository_of
from clary.errors import LaunchFailure

DIGEST = f"sha256:{'a' * 64}"
ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com"


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("team/model:3", "docker.io/team/model:3"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
        ("localhost/model", "localhost/model:latest"),
        ("localhost:5000/a/b/c:1.2-3_x", "localhost:5000/a/b/c:1.2-3_x"),
        (f"{ECR}/xgboost:1.7-1", f"{ECR}/xgboost:1.7-1"),
        (f"{ECR}/xgboost:1.7-1@{DIGEST}", f"{ECR}/xgboost@{DIGEST}"),
        (f"model@{DIGEST}", f"docker.io/library/model@{DIGEST}"),
        ("[::1]:5000/model", "[::1]:5000/model:latest"),
        ("Registry.Local/model", "Registry.Local/model:latest"),
    ],
)
def test_a_name_in_full(image: str, full: str) -> None:
    assert str(parse(image)) == full


@pytest.mark.parametrize(
    "image",
    ["Team/Model", "model:", "a b", "model@sha256:12", "../model", "host:5000//model", "/model", "a/-b", "x?y=z", ""],
)
def test_what_is_no_name_is_refused(image: str) -> None:
    with pytest.raises(LaunchFailure, match="not the name of an image") as raised:
        parse(image)
    assert raised.value.step == "image"


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        ("nginx", "nginx"),
        ("host:5000/model", "host:5000/model"),
        ("host:5000/model:1", "host:5000/model"),
        (f"host:5000/model:1@{DIGEST}", "host:5000/model"),
    ],
)
def test_a_repository_is_given_as_it_was_written(image: str, repository: str) -> None:
    assert repository_of(image) == repository
