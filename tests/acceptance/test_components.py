"""Inference components with the real clients, on the process engine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.conftest import IMAGE, ROLE, Clary, model_archive, wait_until

pytestmark = pytest.mark.acceptance

LEAST = {"MinMemoryRequiredInMb": 128, "NumberOfCpuCoresRequired": 0.25}


def host(clary: Clary, name: str, **variant: Any) -> None:
    """Create an endpoint for components, and wait for it."""
    sagemaker = clary.client("sagemaker")
    production = {"VariantName": "AllTraffic", "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1, **variant}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ExecutionRoleArn=ROLE, ProductionVariants=[production])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


def specification(clary: Clary, name: str, needs: dict[str, Any] | None = None, **environment: str) -> dict[str, Any]:
    url = clary.upload(f"{name}/model.tar.gz", model_archive(name))
    container = {"Image": IMAGE, "ArtifactUrl": url, "Environment": environment}
    return {"Container": container, "ComputeResourceRequirements": needs or LEAST}


def add(clary: Clary, endpoint: str, name: str, copies: int = 1, **environment: str) -> None:
    clary.client("sagemaker").create_inference_component(
        InferenceComponentName=name,
        EndpointName=endpoint,
        VariantName="AllTraffic",
        Specification=specification(clary, name, **environment),
        RuntimeConfig={"CopyCount": copies},
    )


def wait(clary: Clary, name: str, status: str = "InService") -> dict[str, Any]:
    """Poll as the SDKs do, until it is neither Creating nor Updating."""
    sagemaker = clary.client("sagemaker")
    found: dict[str, Any] = {}

    def at_rest() -> bool:
        found.clear()
        found.update(sagemaker.describe_inference_component(InferenceComponentName=name))
        return found["InferenceComponentStatus"] not in ("Creating", "Updating")

    wait_until(at_rest, f"{name} is at rest", clary.output)
    assert found["InferenceComponentStatus"] == status, found
    return found


def gone(clary: Clary, name: str) -> bool:
    try:
        clary.client("sagemaker").describe_inference_component(InferenceComponentName=name)
    except ClientError as error:
        assert "could not find" in str(error).lower()
        return True
    return False


def invoke(clary: Clary, endpoint: str, name: str, body: bytes = b"hello") -> dict[str, Any]:
    answer = clary.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=endpoint, InferenceComponentName=name, Body=body
    )
    return dict(json.loads(answer["Body"].read()))


def remove(clary: Clary, endpoint: str, *names: str) -> None:
    sagemaker = clary.client("sagemaker")
    for name in names:
        sagemaker.delete_inference_component(InferenceComponentName=name)
    for name in names:
        wait_until(lambda name=name: gone(clary, name), f"{name} is gone", clary.output)  # type: ignore[misc]
    sagemaker.delete_endpoint(EndpointName=endpoint)
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=endpoint, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


def test_two_components_share_an_instance(clary: Clary) -> None:
    host(clary, "shared")
    for name in ("first", "second"):
        add(clary, "shared", name)
    for name in ("first", "second"):
        described = wait(clary, name)
        assert described["RuntimeConfig"]["CurrentCopyCount"] == described["RuntimeConfig"]["DesiredCopyCount"] == 1
        assert described["Specification"]["Container"]["DeployedImage"]["SpecifiedImage"] == IMAGE
        assert invoke(clary, "shared", name)["name"] == name
    with pytest.raises(ClientError) as missing:
        clary.invoke("shared")
    assert missing.value.response["Error"]["Code"] == "ValidationError"
    with pytest.raises(ClientError, match="delete its inference components first: first, second"):
        clary.client("sagemaker").delete_endpoint(EndpointName="shared")
    remove(clary, "shared", "first", "second")
