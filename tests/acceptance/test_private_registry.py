"""A private registry from end to end: a Lambda function gives a right login, a wrong one, and another in time."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import ROLE, Clary, wait_until
from tests.acceptance.conftest import running as clary_running
from tests.containers import build, docker, needs_docker
from tests.engines.docker import registry as registries
from tests.engines.docker.registry import PASSWORD, USER, FakeLambda, give, needs_registry, unique

pytestmark = [pytest.mark.acceptance, needs_docker, needs_registry]

ARN = "arn:aws:lambda:us-east-1:123456789012:function:registry-login"
ROTATED = "the secret after the rotation"
SERVER = """\
#!/usr/bin/env python3
import http.server

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def image(folder: Path) -> Iterator[str]:
    """An image that is in the registry alone."""
    with registries.running(folder, password=PASSWORD) as registry:
        name = f"{registry.host}/{unique('served')}:1"
        build(name, {"server.py": SERVER}, 'ENTRYPOINT ["/server.py"]')
        auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (folder / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))
        docker("--config", str(folder), "push", "-q", name)
        docker("rmi", name)
        yield name
        docker("rmi", "-f", *docker("images", "-q", name.rpartition(":")[0]).split())


@pytest.fixture
def functions() -> Iterator[FakeLambda]:
    with FakeLambda() as here:
        yield here


@pytest.fixture
def clary(functions: FakeLambda, tmp_path: Path) -> Iterator[Clary]:
    keys = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "lambda's secret"}
    network = unique("vpc")
    (tmp_path / "clary.toml").write_text(f'[networks]\nsubnet-1 = "{network}"\nsg-1 = "{network}"\n')
    docker("network", "create", network)
    words = ("--engine", "docker", "--lambda-endpoint", functions.url, "--config", str(tmp_path / "clary.toml"))
    with clary_running(*words, environment=keys) as started:
        yield started
    docker("network", "rm", network)


def create_model(clary: Clary, name: str, image: str) -> None:
    config = {"RepositoryAccessMode": "Vpc", "RepositoryAuthConfig": {"RepositoryCredentialsProviderArn": ARN}}
    clary.client("sagemaker").create_model(
        ModelName=name,
        PrimaryContainer={"Image": image, "ImageConfig": config},
        ExecutionRoleArn=ROLE,
        VpcConfig={"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
    )


def create(clary: Clary, name: str, image: str) -> None:
    create_model(clary, name, image)
    sagemaker = clary.client("sagemaker")
    shape = {"VariantName": "A", "ModelName": name, "InstanceType": "ml.clary.local", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[shape])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)


def pinned(endpoint: dict[str, Any]) -> str:
    (variant,) = endpoint["ProductionVariants"]
    return str(variant["DeployedImages"][0]["ResolvedImage"])


def test_right_wrong_and_rotated_credentials(clary: Clary, image: str, functions: FakeLambda, folder: Path) -> None:
    host = image.partition("/")[0]
    functions.answers["registry-login"] = give(USER, PASSWORD)
    create(clary, "right", image)
    resolved = pinned(clary.wait("right"))
    assert resolved.startswith(f"{image.rpartition(':')[0]}@sha256:")
    assert clary.client("sagemaker-runtime").invoke_endpoint(EndpointName="right", Body=b"x")["Body"].read() == b"ok"
    with pytest.raises(Exception, match=f"Requested image {host}/none:1 not found"):
        create_model(clary, "missing", f"{host}/none:1")

    (folder / "htpasswd").write_text(registries.htpasswd(USER, ROTATED))
    create(clary, "wrong", image)
    reason = clary.wait("wrong", "Failed")["FailureReason"]
    assert f"The registry {host} refused the login for {image} that {ARN} gave." in reason
    assert f"docker login {host}" in clary.clary("doctor", "wrong").stdout
    restart(clary, "right")
    assert pinned(clary.wait("right")) == resolved, "what runs needs no registry to be started again"

    functions.answers["registry-login"] = give(USER, ROTATED)
    create(clary, "rotated", image)
    assert pinned(clary.wait("rotated")) == resolved
    for secret in (PASSWORD, ROTATED, "lambda's secret"):
        assert secret not in clary.output() + reason
        files = (file for file in clary.data.rglob("*") if file.is_file())
        assert not [file for file in files if secret.encode() in file.read_bytes()]
    for name in ("right", "wrong", "rotated"):
        clary.delete(name)


def restart(clary: Clary, endpoint: str) -> None:
    """Remove the container behind Clary's back, and wait for the next one."""
    (before,) = clary.containers(endpoint)
    docker("rm", "-f", before)
    wait_until(lambda: clary.containers(endpoint) not in ([], [before]), "it is started again", clary.output)
