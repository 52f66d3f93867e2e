"""https on the port: the same clients, and a Clary that reaches its own S3 through it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest

from tests.acceptance.conftest import BIN, Clary, running

pytestmark = pytest.mark.acceptance


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a self-signed certificate for this machine's loopback address, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=clary -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clary]:
    cert, key = certificate(tmp_path_factory.mktemp("tls"))
    with running("--tls-cert", str(cert), "--tls-key", str(key)) as clary:
        yield clary


def exported(clary: Clary) -> dict[str, str]:
    lines = clary.clary("env", "--shell", "sh").stdout.splitlines()
    return dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))


def test_an_endpoint_is_deployed_and_invoked_over_https(secured: Clary, monkeypatch: pytest.MonkeyPatch) -> None:
    assert secured.url.startswith("https://127.0.0.1:")
    monkeypatch.setenv("AWS_CA_BUNDLE", exported(secured)["AWS_CA_BUNDLE"])
    secured.create("over-tls")  # uploads, and the control plane and the engine read what was uploaded
    secured.wait("over-tls")
    assert secured.invoke("over-tls")["got"] == "hello"
    assert secured.invoke("over-tls", b"x" * 3_000_000)["got"] == "x" * 100
    secured.delete("over-tls")


def test_the_commands_need_no_bundle_and_others_find_it_in_env(secured: Clary) -> None:
    assert secured.clary("roles", "list").returncode == 0
    found = exported(secured)
    environment = {**secured.environment, **found, "CLARY_DATA": str(secured.data)}
    listed = subprocess.run(
        [str(BIN / "aws"), "sagemaker", "list-models"], env=environment, capture_output=True, text=True, timeout=300
    )
    assert listed.returncode == 0, listed.stderr
    clean = {k: v for k, v in environment.items() if not k.startswith("AWS_")}
    listed = subprocess.run(
        [str(BIN / "clary"), "sagemaker", "list-models"], env=clean, capture_output=True, text=True, timeout=300
    )
    assert listed.returncode == 0, listed.stderr


def test_who_does_not_trust_the_certificate_is_told_so(secured: Clary) -> None:
    with pytest.raises(botocore.exceptions.SSLError):
        secured.client("sagemaker").list_models()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tls-cert", "cert.pem"], "given together with --tls-key"),
        (["--tls-cert", "cert.pem", "--tls-key", "absent.pem"], "absent.pem cannot be read"),
        (["--tls-cert", "cert.pem", "--tls-key", "cert.pem"], "are not a PEM certificate and its unencrypted key"),
    ],
)
def test_what_cannot_be_used_is_refused_at_start(tmp_path: Path, arguments: list[str], said: str) -> None:
    certificate(tmp_path)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CLARY_"))}
    command = [str(BIN / "clary"), "up", "--data", str(tmp_path / "data"), "--port", "0", *arguments]
    ended = subprocess.run(command, env=clean, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode != 0
    assert said in ended.stderr, ended.stderr


@pytest.mark.parametrize(("secure", "allowed"), [("true", True), ("false", False)])
def test_policies_may_ask_for_tls(
    secured: Clary, secure: str, allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", exported(secured)["AWS_CA_BUNDLE"])
    file = tmp_path / "policy.json"
    condition = {"Bool": {"aws:SecureTransport": secure}}
    statement = {"Effect": "Allow", "Action": ["sagemaker:*", "s3:*"], "Resource": "*", "Condition": condition}
    file.write_text(json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    made = secured.clary("keys", "create", f"tls-{secure}", "--policy", str(file)).stdout.splitlines()
    key = dict(line.removeprefix("export ").split("=", 1) for line in made)
    pair = {"aws_access_key_id": key["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": key["AWS_SECRET_ACCESS_KEY"]}

    def outcome(call: Callable[[], object]) -> str:
        try:
            call()
        except botocore.exceptions.ClientError as error:
            return str(error.response["Error"]["Code"])
        return "allowed"

    def client(service: str) -> Any:
        return boto3.client(service, endpoint_url=secured.url, region_name="us-east-1", **pair)

    # The control plane, the invocation path and S3: an endpoint that is not there is no matter of policies.
    seen = [
        outcome(client("sagemaker").list_models),
        outcome(lambda: client("sagemaker-runtime").invoke_endpoint(EndpointName="nobody", Body=b"")),
        outcome(client("s3").list_buckets),
    ]
    denied = ["AccessDeniedException", "AccessDeniedException", "AccessDenied"]
    assert seen == (["allowed", "ValidationError", "allowed"] if allowed else denied)
