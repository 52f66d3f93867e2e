"""What a user reads when a model does not start, and that nothing is ever stuck; test_failure_table.py has the rest."""

from __future__ import annotations

import os
import signal
import time

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.conftest import IMAGE, Clary, model_processes, running, wait_until

pytestmark = pytest.mark.acceptance


def test_a_missing_artifact_is_named(clary: Clary) -> None:
    sagemaker = clary.client("sagemaker")
    url = clary.upload("not-there/model.tar.gz", b"x")
    container = {"Image": IMAGE, "ModelDataUrl": url}
    sagemaker.create_model(ModelName="nodata", PrimaryContainer=container)
    clary.client("s3").delete_object(Bucket="models", Key="not-there/model.tar.gz")
    with pytest.raises(ClientError, match=f"Could not find model data at {url}\\."):
        sagemaker.create_model(ModelName="nodata-2", PrimaryContainer=container)
    _endpoint(clary, "nodata")
    reason = clary.wait("nodata", "Failed")["FailureReason"]
    assert reason.startswith('Failed to download model data for container "container_1" from URL: "s3://models/not-th')
    clary.delete("nodata")


def test_an_image_that_nobody_knows_is_refused_when_the_model_is_made(clary: Clary) -> None:
    sagemaker = clary.client("sagemaker")
    with pytest.raises(ClientError, match=r"Requested image example\.com/mine:1 not found\."):
        sagemaker.create_model(ModelName="noimage", PrimaryContainer={"Image": "example.com/mine:1"})


def test_with_deferred_checks_the_endpoint_says_what_is_missing_and_what_would_help() -> None:
    with running("--defer-checks") as clary:
        sagemaker = clary.client("sagemaker")
        container = {"Image": "example.com/mine:1", "ModelDataUrl": "s3://later/model.tar.gz"}
        sagemaker.create_model(ModelName="noimage", PrimaryContainer=container)
        _endpoint(clary, "noimage")
        reason = clary.wait("noimage", "Failed")["FailureReason"]
    assert "example.com/mine:1" in reason
    assert "catalogue" in reason


def test_an_endpoint_is_deleted_within_seconds_while_it_is_created(clary: Clary) -> None:
    clary.create("impatient", LOAD_SECONDS="3000")
    sagemaker = clary.client("sagemaker")
    started = time.monotonic()
    sagemaker.delete_endpoint(EndpointName="impatient")
    sagemaker.delete_endpoint(EndpointName="impatient")
    sagemaker.get_waiter("endpoint_deleted").wait(
        EndpointName="impatient", WaiterConfig={"Delay": 1, "MaxAttempts": 300}
    )
    assert time.monotonic() - started < 300, "much less than the model loads"
    sagemaker.delete_endpoint_config(EndpointConfigName="impatient")
    sagemaker.delete_model(ModelName="impatient")


def test_a_crashed_instance_is_restarted_while_the_endpoint_stays_in_service(clary: Clary) -> None:
    clary.create("phoenix", count=2)
    clary.wait("phoenix")
    before = set(model_processes(clary))
    assert len(before) == 2
    os.kill(min(before), signal.SIGKILL)
    seen = {clary.invoke("phoenix")["pid"] for _ in range(20)}  # the first of these may go to the dead one: retried
    assert max(before) in seen
    wait_until(lambda: len(model_processes(clary)) == 2, "two instances run again", clary.output)
    summary = clary.client("sagemaker").describe_endpoint(EndpointName="phoenix")
    assert summary["EndpointStatus"] == "InService"
    clary.delete("phoenix")


def _endpoint(clary: Clary, name: str) -> None:
    sagemaker = clary.client("sagemaker")
    variant = {"VariantName": "A", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
