"""CreateEndpoint, DescribeEndpoint and DeleteEndpoint: what is stored, who is woken, what is shown when."""

from __future__ import annotations

from typing import Any

import pytest

from clary.api.endpoints import DEPLOYMENT
from clary.core.resources import ENDPOINT, Resource
from clary.errors import AwsError

from .conftest import ARN, Api, variant

BLUE_GREEN = {"TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}}
ROLLING = {"MaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": 50}, "WaitIntervalInSeconds": 0}


@pytest.fixture
async def ready(api: Api) -> Api:
    """A model `m` and a configuration `c`."""
    await api.model()
    await api.config()
    return api


async def stored(api: Api, name: str = "e") -> Resource:
    found = await api.store.get(ENDPOINT, name)
    assert found is not None
    return found


async def become(api: Api, **status: Any) -> None:
    """Write a status, as the controller does."""
    assert await api.store.set_status(await stored(api), status)


def public(answer: dict[str, Any]) -> dict[str, Any]:
    return {member: value for member, value in answer.items() if not member.startswith("_")}


async def test_create_is_creating_and_wakes_the_controller(ready: Api) -> None:
    assert await ready.endpoint() == {"EndpointArn": f"{ARN}:endpoint/e"}
    assert ready.notified == ["e"]
    assert public(await ready("DescribeEndpoint", EndpointName="e")) == {
        "EndpointName": "e",
        "EndpointArn": f"{ARN}:endpoint/e",
        "EndpointConfigName": "c",
        "EndpointStatus": "Creating",
        "CreationTime": 1_700_000_000.0,
        "LastModifiedTime": 1_700_000_000.0,
    }


async def test_the_deployment_is_kept_as_it_was_when_the_endpoint_was_created(ready: Api) -> None:
    await ready.endpoint()
    await ready("DeleteModel", ModelName="m")
    await ready("DeleteEndpointConfig", EndpointConfigName="c")
    assert (await stored(ready)).spec[DEPLOYMENT] == {
        "EndpointConfig": {
            "EndpointConfigName": "c",
            "ProductionVariants": [variant(InitialVariantWeight=1.0)],
            "EnableNetworkIsolation": False,
        },
        "Models": {
            "m": {
                "ModelName": "m",
                "PrimaryContainer": {"Image": "image", "Mode": "SingleModel"},
                "EnableNetworkIsolation": False,
            }
        },
    }


async def test_an_unknown_configuration_is_refused_and_wakes_nobody(ready: Api) -> None:
    refusal = await ready.refusal("CreateEndpoint", EndpointName="e", EndpointConfigName="nope")
    assert refusal == f'Could not find endpoint configuration "{ARN}:endpoint-config/nope".'
    assert ready.notified == []


async def test_a_model_that_was_deleted_after_the_configuration_was_made_is_refused(ready: Api) -> None:
    await ready("DeleteModel", ModelName="m")
    refusal = await ready.refusal("CreateEndpoint", EndpointName="e", EndpointConfigName="c")
    assert refusal == f'Could not find model "{ARN}:model/m".'


async def test_two_deployment_policies_are_refused(ready: Api) -> None:
    policies = {"BlueGreenUpdatePolicy": BLUE_GREEN, "RollingUpdatePolicy": ROLLING}
    refusal = await ready.refusal("CreateEndpoint", EndpointName="e", EndpointConfigName="c", DeploymentConfig=policies)
    assert "BlueGreenUpdatePolicy" in refusal


async def test_names_collide_in_any_case(ready: Api) -> None:
    await ready.endpoint("Demo")
    refusal = await ready.refusal("CreateEndpoint", EndpointName="demo", EndpointConfigName="c")
    assert refusal == f'Cannot create already existing endpoint "{ARN}:endpoint/demo".'
    assert (await ready("DescribeEndpoint", EndpointName="DEMO"))["EndpointName"] == "Demo"
    assert ready.notified == ["Demo"]


async def test_the_status_of_the_controller_is_shown_and_wins(ready: Api) -> None:
    await ready.endpoint()
    ready.clock.now += 3
    variants = [{"VariantName": "AllTraffic", "CurrentWeight": 1.0}]
    await become(ready, EndpointStatus="InService", EndpointConfigName="other", ProductionVariants=variants)
    described = await ready("DescribeEndpoint", EndpointName="e")
    assert described["EndpointStatus"] == "InService"
    assert described["EndpointConfigName"] == "other"
    assert described["ProductionVariants"] == variants
    assert described["LastModifiedTime"] == described["CreationTime"] + 3


async def test_the_last_deployment_config_is_shown_once_something_was_deployed(ready: Api) -> None:
    await ready.endpoint(DeploymentConfig={"BlueGreenUpdatePolicy": BLUE_GREEN})
    assert "LastDeploymentConfig" not in await ready("DescribeEndpoint", EndpointName="e")
    await become(ready, EndpointStatus="InService")
    described = await ready("DescribeEndpoint", EndpointName="e")
    assert described["LastDeploymentConfig"] == {"BlueGreenUpdatePolicy": BLUE_GREEN}


async def test_what_the_configuration_says_of_the_whole_endpoint_is_shown(ready: Api) -> None:
    capture = {"InitialSamplingPercentage": 20, "DestinationS3Uri": "s3://b/p", "CaptureOptions": []}
    asynchronous = {"OutputConfig": {"S3OutputPath": "s3://b/out"}}
    await ready.config("d", DataCaptureConfig=capture, AsyncInferenceConfig=asynchronous)
    await ready.endpoint(EndpointConfigName="d")
    described = await ready("DescribeEndpoint", EndpointName="e")
    assert described["AsyncInferenceConfig"] == asynchronous
    assert described["DataCaptureConfig"] == {
        "EnableCapture": True,
        "CaptureStatus": "Started",
        "CurrentSamplingPercentage": 20,
        "DestinationS3Uri": "s3://b/p",
        "KmsKeyId": "",
    }


async def test_capture_that_is_switched_off_is_stopped(ready: Api) -> None:
    capture = {
        "EnableCapture": False,
        "InitialSamplingPercentage": 20,
        "DestinationS3Uri": "s3://b/p",
        "CaptureOptions": [],
        "KmsKeyId": "key",
    }
    await ready.config("d", DataCaptureConfig=capture)
    await ready.endpoint(EndpointConfigName="d")
    summary = (await ready("DescribeEndpoint", EndpointName="e"))["DataCaptureConfig"]
    assert (summary["EnableCapture"], summary["CaptureStatus"], summary["KmsKeyId"]) == (False, "Stopped", "key")


@pytest.mark.parametrize("status", ["Creating", "InService", "Updating", "SystemUpdating", "RollingBack", "Failed"])
async def test_delete_is_accepted_in_every_state(ready: Api, status: str) -> None:
    await ready.endpoint()
    await become(ready, EndpointStatus=status, FailureReason="because")
    assert await ready("DeleteEndpoint", EndpointName="E") == {}
    described = await ready("DescribeEndpoint", EndpointName="e")
    assert (described["EndpointStatus"], described["FailureReason"]) == ("Deleting", "because")
    assert ready.notified == ["e", "e"]


async def test_deleting_again_wakes_the_controller_and_changes_nothing(ready: Api) -> None:
    await ready.endpoint()
    await ready("DeleteEndpoint", EndpointName="e")
    before = await stored(ready)
    ready.clock.now += 1
    await ready("DeleteEndpoint", EndpointName="e")
    assert await stored(ready) == before
    assert ready.notified == ["e", "e", "e"]


async def test_a_name_is_taken_until_nothing_of_the_endpoint_is_left(ready: Api) -> None:
    await ready.endpoint()
    await ready("DeleteEndpoint", EndpointName="e")
    refusal = await ready.refusal("CreateEndpoint", EndpointName="e", EndpointConfigName="c")
    assert refusal.startswith("Cannot create already existing endpoint")
    await ready.store.remove(ENDPOINT, "e")
    await ready.endpoint()


async def test_more_containers_than_a_clary_runs_are_refused_in_the_services_words(api: Api) -> None:
    await api.model()
    await api.config("most", ProductionVariants=[variant(InitialInstanceCount=199)])
    await api.config("two", ProductionVariants=[variant(InitialInstanceCount=2, InstanceType="ml.c5.large")])
    await api("CreateModel", ModelName="pipeline", Containers=[{"Image": "a"}, {"Image": "b"}])
    pair = variant(ModelName="pipeline", InitialInstanceCount=101)
    await api.config("pairs", ProductionVariants=[pair])
    with pytest.raises(AwsError) as refused:
        await api.endpoint("pairs", EndpointConfigName="pairs")
    assert (refused.value.code, refused.value.status) == ("ResourceLimitExceeded", 400)
    assert "a request delta of 202 Instances" in refused.value.message
    await api.endpoint("most", EndpointConfigName="most")
    with pytest.raises(AwsError) as refused:
        await api.endpoint("two", EndpointConfigName="two")
    assert refused.value.message.startswith(
        "The account-level service limit 'ml.c5.large for endpoint usage' is 200 Instances, with current utilization "
        "of 199 Instances and a request delta of 2 Instances. Please use AWS Service Quotas to request an increase for "
        "this quota. If AWS Service Quotas is not available, contact AWS support to request an increase for this quota."
    )
    failed = await api.store.get(ENDPOINT, "most")
    assert failed is not None
    await api.store.set_status(failed, {"EndpointStatus": "Failed"})
    await api.endpoint("two", EndpointConfigName="two")


async def test_variants_are_described_with_what_their_configuration_says_of_routing(api: Api) -> None:
    await api.model()
    routing = {"RoutingStrategy": "RANDOM"}
    await api.config(
        ProductionVariants=[variant(RoutingConfig=routing)],
        ShadowProductionVariants=[variant(VariantName="dark")],
        DataCaptureConfig={
            "EnableCapture": False,
            "InitialSamplingPercentage": 5,
            "DestinationS3Uri": "s3://bucket/x",
            "CaptureOptions": [{"CaptureMode": "Input"}],
        },
    )
    await api.endpoint()
    endpoint = await api.store.get(ENDPOINT, "e")
    assert endpoint is not None
    serving = {
        "EndpointStatus": "InService",
        "ProductionVariants": [{"VariantName": "AllTraffic", "CurrentInstanceCount": 1}],
        "ShadowProductionVariants": [{"VariantName": "dark", "CurrentInstanceCount": 1}],
    }
    await api.store.set_status(endpoint, serving)
    described = await api("DescribeEndpoint", EndpointName="e")
    assert described["ProductionVariants"] == [
        {"VariantName": "AllTraffic", "CurrentInstanceCount": 1, "RoutingConfig": routing}
    ]
    assert described["ShadowProductionVariants"] == serving["ShadowProductionVariants"]
    assert described["DataCaptureConfig"] == {
        "EnableCapture": False,
        "CaptureStatus": "Stopped",
        "CurrentSamplingPercentage": 5,
        "DestinationS3Uri": "s3://bucket/x",
        "KmsKeyId": "",
    }
