"""Multi-model endpoints with real clients on the process engine: loads, evictions, failures, restarts."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import ROLE, Clary, running
from tests.acceptance.multi_model import SERVER

pytestmark = pytest.mark.acceptance

IMAGE = "many:1"
CATALOGUE = """\
[[image]]
name = "many"
pattern = 'many'
command = ["{{python}}", "{server}"]
"""


def packed(weight: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("weight.txt")
        member.size = len(weight)
        archive.addfile(member, io.BytesIO(weight.encode()))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def clary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clary]:
    folder = tmp_path_factory.mktemp("many")
    (folder / "server.py").write_text(SERVER)
    (folder / "catalogue.toml").write_text(CATALOGUE.format(server=folder / "server.py"))
    with running("--catalogue", str(folder / "catalogue.toml")) as started:
        yield started


def create(clary: Clary, name: str, models: dict[str, str], *, count: int = 1, cache: bool = True, **env: str) -> None:
    """Create a multi-model endpoint, and its models: weights by key."""
    sagemaker = clary.client("sagemaker")
    for key, weight in {"first.tar.gz": "1", **models}.items():
        clary.upload(f"{name}/{key}", packed(weight))
    container = {
        "Image": IMAGE, "Mode": "MultiModel", "ModelDataUrl": f"s3://models/{name}/", "Environment": env,
        "MultiModelConfig": {"ModelCacheSetting": "Enabled" if cache else "Disabled"},
    }  # fmt: skip
    sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant = {
        "VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.clary.local", "InitialInstanceCount": count,
    }  # fmt: skip
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    clary.wait(name)


def invoke(clary: Clary, name: str, target: str, body: bytes = b"x") -> dict[str, Any]:
    runtime = clary.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName=name, TargetModel=target, Body=body)
    return dict(json.loads(answer["Body"].read()))


def test_each_request_is_answered_by_the_model_that_it_names(clary: Clary, tmp_path: Path) -> None:
    create(clary, "many", {"a.tar.gz": "10", "deep/er/b.tar.gz": "20"})
    said = invoke(clary, "many", "a.tar.gz")
    assert (said["weight"], said["target"], said["multi"]) == ("10", "a.tar.gz", "true")
    assert invoke(clary, "many", "deep/er/b.tar.gz")["weight"] == "20"
    assert invoke(clary, "many", "a.tar.gz")["loads"] == 1
    clary.upload("many/late.tar.gz", packed("30"))
    assert invoke(clary, "many", "late.tar.gz")["weight"] == "30"
    out = tmp_path / "out"
    done = clary.aws(
        "sagemaker-runtime", "invoke-endpoint", "--endpoint-name", "many", "--target-model", "a.tar.gz",
        "--body", "eA==", str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["weight"] == "10"
