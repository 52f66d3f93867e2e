"""Settings that change what a Clary does, seen from outside."""

from __future__ import annotations

import os
from pathlib import Path

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.acceptance.conftest import IMAGE, model_archive, running

pytestmark = pytest.mark.acceptance


def test_a_model_on_this_machine_is_taken_from_an_allowed_folder_alone(tmp_path: Path) -> None:
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    for folder in (allowed, other):
        folder.mkdir()
        (folder / "model.tar.gz").write_bytes(model_archive("local"))
    (allowed / "link.tar.gz").symlink_to(other / "model.tar.gz")
    with running("--file-roots", str(allowed), "--account-id", "123456789012", "--region", "eu-west-1") as clary:
        sagemaker = clary.client("sagemaker", region="eu-west-1")
        container = {"Image": IMAGE, "ModelDataUrl": (allowed / "model.tar.gz").as_uri()}
        arn = sagemaker.create_model(ModelName="local", PrimaryContainer=container)["ModelArn"]
        assert arn == "arn:aws:sagemaker:eu-west-1:123456789012:model/local"
        for name, path in (("other", other / "model.tar.gz"), ("link", allowed / "link.tar.gz")):
            with pytest.raises(ClientError, match="file-roots"):
                sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": IMAGE, "ModelDataUrl": path.as_uri()})
        variant = {"VariantName": "A", "ModelName": "local", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName="local", ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName="local", EndpointConfigName="local")
        quick = {"Delay": 1, "MaxAttempts": 300}
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="local", WaiterConfig=quick)
        answer = clary.client("sagemaker-runtime", region="eu-west-1").invoke_endpoint(EndpointName="local", Body=b"1")
        assert b'"local"' in answer["Body"].read()


def test_auth_off_takes_requests_without_a_signature() -> None:
    with running("--auth", "off") as clary:
        client = boto3.client(
            "sagemaker", endpoint_url=clary.url, region_name="us-east-1", config=Config(signature_version=UNSIGNED)
        )
        assert client.list_models()["Models"] == []


def test_a_given_key_pair_is_the_one_that_counts() -> None:
    pair = {"CLARY_ACCESS_KEY_ID": "AKIAGIVEN", "CLARY_SECRET_ACCESS_KEY": "given"}
    with running(environment=pair) as clary:
        assert clary.environment["AWS_ACCESS_KEY_ID"] == "AKIAGIVEN"
        assert clary.client("sts").get_caller_identity()["Account"] == "000000000000"
        assert (clary.data / "credentials").stat().st_mode & 0o777 == 0o600
        assert (clary.data / "run").stat().st_mode & 0o077 == 0
        for path in (clary.data / "state").iterdir():
            assert path.stat().st_mode & 0o077 == 0, path
        log = clary.output()
        assert "given" not in log.replace("AKIAGIVEN", "")


def test_several_gateways_share_the_port() -> None:
    with running("--workers", "3") as clary:
        clary.create("shared")
        clary.wait("shared")
        assert {clary.invoke("shared")["name"] for _ in range(20)} == {"shared"}
        gateways = [
            pid for pid in Path("/proc").glob("[0-9]*")
            if "clary.server gateway " in _command(pid) and str(clary.data).encode() in _environment(pid)
        ]  # fmt: skip
        assert len(gateways) == 3


def test_slow_models_time_out_and_large_bodies_are_refused() -> None:
    with running("--model-timeout", "10", "--max-payload", "1") as clary:
        clary.create("slow")
        clary.wait("slow")
        with pytest.raises(ClientError) as caught:
            clary.invoke("slow", b"sleep3000")
        assert caught.value.response["OriginalStatusCode"] == 0
        with pytest.raises(ClientError, match="HTTP content length exceeded 1048576 bytes"):
            clary.invoke("slow", os.urandom(1024 * 1024 + 1))
        assert clary.invoke("slow", b"x" * 1024 * 1024)["name"] == "slow"


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""
