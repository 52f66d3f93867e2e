"""Asynchronous inference with real clients: acknowledged, answered or failed in S3, and told of."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.conftest import IMAGE, ROLE, Clary, model_archive, wait_until

pytestmark = pytest.mark.acceptance

OUTPUT, FAILURE = "s3://results/out", "s3://results/failed"


def deploy(clary: Clary, name: str, *, count: int = 1, archive: bytes | None = None, **output: Any) -> None:
    """Create an asynchronous endpoint, and wait until it serves."""
    sagemaker = clary.client("sagemaker")
    url = clary.upload(f"{name}/model.tar.gz", archive or model_archive(name))
    clary.upload("keep", b"", bucket="results")
    container = {"Image": IMAGE, "ModelDataUrl": url}
    sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
    sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[
            {
                "VariantName": "AllTraffic",
                "ModelName": name,
                "InstanceType": "ml.clary.local",
                "InitialInstanceCount": count,
            }
        ],
        AsyncInferenceConfig={
            "OutputConfig": {"S3OutputPath": OUTPUT, "S3FailurePath": FAILURE, **output},
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 4},
        },
    )
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    clary.wait(name)


def fetch(clary: Clary, url: str) -> dict[str, Any] | None:
    """Get an object; None where it is not there."""
    parts = urlsplit(url)
    s3 = clary.client("s3")
    try:
        return dict(s3.get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/")))
    except s3.exceptions.NoSuchKey:
        return None


def arrived(clary: Clary, url: str) -> dict[str, Any]:
    """Wait for an object."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found.extend(filter(None, [fetch(clary, url)]))
        return bool(found)

    wait_until(there, f"{url} is there", clary.output)
    return found[0]


def test_a_request_is_acknowledged_at_once_and_answered_in_s3(clary: Clary) -> None:
    deploy(clary, "later")
    runtime = clary.client("sagemaker-runtime")
    location = clary.upload("inputs/one", b"sleep0.5", bucket="results")
    begun = time.monotonic()
    accepted = runtime.invoke_endpoint_async(
        EndpointName="later", InputLocation=location, ContentType="text/x-question", InferenceId="mine"
    )
    assert time.monotonic() - begun < 0.4
    assert accepted["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert accepted["InferenceId"] == "mine"
    assert accepted["OutputLocation"].startswith(f"{OUTPUT}/")
    assert "mine" not in accepted["OutputLocation"]
    assert accepted["FailureLocation"].startswith(f"{FAILURE}/")
    answer = arrived(clary, accepted["OutputLocation"])
    assert answer["ContentType"] == "application/json"
    said = json.loads(answer["Body"].read())
    assert (said["name"], said["got"], said["type"]) == ("later", "sleep0.5", "text/x-question")
    assert fetch(clary, accepted["FailureLocation"]) is None

    inline = runtime.invoke_endpoint_async(
        EndpointName="later", Body=b"here", S3OutputPathExtension="a/b", Filename="answer.json"
    )
    assert inline["OutputLocation"] == f"{OUTPUT}/a/b/answer.json"
    assert json.loads(arrived(clary, inline["OutputLocation"])["Body"].read())["got"] == "here"

    failing = runtime.invoke_endpoint_async(EndpointName="later", Body=b"fail503")
    text = arrived(clary, failing["FailureLocation"])["Body"].read().decode()
    assert text.startswith('Received server error (503) from primary with message "{')
    assert fetch(clary, failing["OutputLocation"]) is None

    with pytest.raises(ClientError, match="asynchronous endpoint") as refused:
        runtime.invoke_endpoint(EndpointName="later", Body=b"x")
    assert refused.value.response["Error"]["Code"] == "ValidationError"
    clary.delete("later")
