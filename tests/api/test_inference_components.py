"""The rules of inference components, over a real store."""

from __future__ import annotations

from typing import Any

import pytest

from clary.core.resources import ENDPOINT, INFERENCE_COMPONENT
from clary.errors import AwsError

from .conftest import ARN, Api, specification

NEEDS = {"MinMemoryRequiredInMb": 1024}
BASE = {"BaseInferenceComponentName": "i", "Container": {"ArtifactUrl": "s3://b/a.tar.gz"}}


async def test_a_component_is_created_and_its_controller_told(api: Api) -> None:
    await api.host()
    api.notified.clear()
    made = await api.component(RuntimeConfig={"CopyCount": 2}, Tags=[{"Key": "a", "Value": "b"}])
    assert made == {"InferenceComponentArn": f"{ARN}:inference-component/i"}
    assert api.notified == ["h"]
    described = await api("DescribeInferenceComponent", InferenceComponentName="i")
    assert described["InferenceComponentStatus"] == "Creating"
    assert (described["EndpointName"], described["VariantName"]) == ("h", "AllTraffic")
    assert described["EndpointArn"] == f"{ARN}:endpoint/h"
    assert described["RuntimeConfig"] == {"DesiredCopyCount": 2, "CurrentCopyCount": 0}
    assert (await api("ListTags", ResourceArn=made["InferenceComponentArn"]))["Tags"] == [{"Key": "a", "Value": "b"}]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"EndpointName": "nobody"}, f'Could not find endpoint "{ARN}:endpoint/nobody".'),
        ({"VariantName": "green"}, 'has no variant "green". It has: AllTraffic.'),
        ({"RuntimeConfig": {"CopyCount": 0}}, "Inference components copy count an integer larger than 0"),
        ({"Specification": {"ComputeResourceRequirements": NEEDS}}, "exactly one of ModelName and Container"),
        ({"Specification": specification(ModelName="m")}, "exactly one of ModelName and Container"),
        ({"Specification": {"Container": {"Image": "i"}}}, "ComputeResourceRequirements is required"),
        ({"Specification": specification(Container={})}, "requires an Image"),
        ({"Specification": {"ModelName": "x", "ComputeResourceRequirements": NEEDS}}, "Could not find model"),
        ({"Specification": {"ModelName": "two", "ComputeResourceRequirements": NEEDS}}, "it must have one container"),
        (
            {"Specification": specification(ComputeResourceRequirements={**NEEDS, "MaxMemoryRequiredInMb": 512})},
            "MaxMemoryRequiredInMb must not be less",
        ),
        (
            {"Specification": specification(Container={"Image": "i", "ArtifactUrl": "s3://b/model.zip"})},
            "must point to a single gzip compressed tar archive",
        ),
        ({"Specification": specification(InstanceType="ml.m5.xlarge")}, "The specification is for ml.m5.xlarge"),
        ({"Specifications": [specification()]}, "not both"),
        ({"Specification": BASE | {"ComputeResourceRequirements": NEEDS}}, "is not supported for an adapter"),
        ({"Specification": BASE | {"Container": {}}}, "requires an ArtifactUrl"),
        ({"Specification": BASE}, "must be InService; its status is Creating"),
        ({"Specification": BASE | {"BaseInferenceComponentName": "x"}}, "Could not find inference component"),
        ({"InferenceComponentName": "i"}, "Cannot create already existing inference component"),
    ],
)
async def test_what_breaks_a_rule_is_refused(api: Api, members: dict[str, Any], words: str) -> None:
    await api("CreateModel", ModelName="two", Containers=[{"Image": "a"}, {"Image": "b"}])
    await api.host()
    await api.component()
    refused = {"InferenceComponentName": "new", "EndpointName": "h", "Specification": specification()} | members
    assert words in await api.refusal("CreateInferenceComponent", **refused)


async def test_endpoints_with_models_and_endpoints_that_do_not_serve_take_none(api: Api) -> None:
    await api.model()
    await api.config()
    await api.endpoint()
    new = {"InferenceComponentName": "new", "Specification": specification()}
    assert "Inference Components are not supported in this Endpoint" in await api.refusal(
        "CreateInferenceComponent", EndpointName="e", **new
    )
    await api.host()
    await api.becomes(ENDPOINT, "h", EndpointStatus="Creating")
    assert "must be InService" in await api.refusal("CreateInferenceComponent", EndpointName="h", **new)


async def test_a_specification_is_chosen_by_the_instances_type(api: Api) -> None:
    await api.host()
    several = [specification(InstanceType=each) for each in ("ml.m5.xlarge", "ml.m5.large")]
    new = {"InferenceComponentName": "new", "EndpointName": "h"}
    await api("CreateInferenceComponent", **new, Specifications=several)
    stored = await api.store.get(INFERENCE_COMPONENT, "new")
    assert stored is not None
    revisions: Any = stored.spec["_Revisions"]
    assert revisions["1"]["Specification"]["InstanceType"] == "ml.m5.large"
    assert "None of the Specifications is for ml.m5.large" in await api.refusal(
        "CreateInferenceComponent", **{**new, "InferenceComponentName": "other"}, Specifications=several[:1]
    )


async def test_an_update_makes_a_revision_unless_it_changes_nothing(api: Api) -> None:
    await api.host()
    await api.component()
    assert "Cannot update in-progress" in await api.refusal(
        "UpdateInferenceComponent", InferenceComponentName="i", RuntimeConfig={"CopyCount": 2}
    )

    async def revisions() -> dict[str, int]:
        stored = await api.store.get(INFERENCE_COMPONENT, "i")
        assert stored is not None
        found: Any = stored.spec["_Revisions"]
        return {number: each["CopyCount"] for number, each in found.items()}

    await api.serves()
    await api("UpdateInferenceComponent", InferenceComponentName="i", Specification=specification())
    assert await revisions() == {"1": 1}
    assert (await api("DescribeInferenceComponent", InferenceComponentName="i"))[
        "InferenceComponentStatus"
    ] == "Updating"
    await api.serves()
    runtime = {"CopyCount": 3}
    await api("UpdateInferenceComponentRuntimeConfig", InferenceComponentName="i", DesiredRuntimeConfig=runtime)
    assert await revisions() == {"1": 3}
    await api.serves()
    new = specification(Container={"Image": "new"})
    await api("UpdateInferenceComponent", InferenceComponentName="i", Specification=new, RuntimeConfig={"CopyCount": 2})
    assert await revisions() == {"1": 3, "2": 2}
    await api.serves(revision=2)
    await api("UpdateInferenceComponent", InferenceComponentName="i", Specification=specification())
    assert await revisions() == {"2": 2, "3": 2}


async def test_lists_are_filtered_by_endpoint_and_variant(api: Api) -> None:
    await api.host("h")
    await api.host("other", VariantName="green")
    await api.component("one")
    await api.component("two", EndpointName="other")

    async def names(**filters: str) -> list[str]:
        found = await api("ListInferenceComponents", SortBy="Name", SortOrder="Ascending", **filters)
        return [each["InferenceComponentName"] for each in found["InferenceComponents"]]

    assert await names() == ["one", "two"]
    assert await names(EndpointNameEquals="other") == ["two"]
    assert await names(VariantNameEquals="AllTraffic") == ["one"]
    assert await names(EndpointNameEquals="h", VariantNameEquals="green") == []
    assert await names(StatusEquals="InService") == []


async def test_what_others_need_is_not_deleted(api: Api) -> None:
    await api.host()
    await api.component()
    await api.serves()
    await api("CreateInferenceComponent", InferenceComponentName="a", EndpointName="h", Specification=BASE)
    described = await api("DescribeInferenceComponent", InferenceComponentName="a")
    assert described["Specification"] == BASE
    refused = await api.refusal("DeleteInferenceComponent", InferenceComponentName="i")
    assert "is a base inference component for one or more associated" in refused
    assert "delete its inference components first: a, i" in await api.refusal("DeleteEndpoint", EndpointName="h")
    for name in ("a", "i"):
        await api("DeleteInferenceComponent", InferenceComponentName=name)
        assert "DELETE_IN_PROGRESS" in await api.refusal("DeleteInferenceComponent", InferenceComponentName=name)
    await api("DeleteEndpoint", EndpointName="h")


async def test_an_adapter_has_no_copies_of_its_own_and_keeps_its_base(api: Api) -> None:
    await api.host()
    await api.component()
    await api.serves()
    await api("CreateInferenceComponent", InferenceComponentName="a", EndpointName="h", Specification=BASE)
    await api.serves("a")
    assert "as many copies as its base" in await api.refusal(
        "UpdateInferenceComponentRuntimeConfig", InferenceComponentName="a", DesiredRuntimeConfig={"CopyCount": 2}
    )
    for wanted in (specification(), BASE | {"BaseInferenceComponentName": "x"}):
        assert "cannot change BaseInferenceComponentName" in await api.refusal(
            "UpdateInferenceComponent", InferenceComponentName="a", Specification=wanted
        )
    nested = BASE | {"BaseInferenceComponentName": "a"}
    new = {"InferenceComponentName": "b", "EndpointName": "h", "Specification": nested}
    assert "is no base inference component" in await api.refusal("CreateInferenceComponent", **new)


async def test_copies_count_towards_what_one_clary_runs(api: Api) -> None:
    await api.host()
    await api.component(RuntimeConfig={"CopyCount": 150})
    with pytest.raises(AwsError, match="current utilization of 150 Instances and a request delta of 51"):
        await api.component("more", RuntimeConfig={"CopyCount": 51})


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"ExecutionRoleArn": None}, "ExecutionRoleArn is required"),
        ({"AsyncInferenceConfig": {"OutputConfig": {}}}, "AsyncInferenceConfig is not supported for endpoints with"),
    ],
)
async def test_configurations_for_components_have_rules_of_their_own(
    api: Api, members: dict[str, Any], words: str
) -> None:
    variant = {"VariantName": "v", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    given = {"ExecutionRoleArn": "arn:aws:iam::123456789012:role/clary", "ProductionVariants": [variant], **members}
    given = {name: value for name, value in given.items() if value is not None}
    assert words in await api.refusal("CreateEndpointConfig", EndpointConfigName="c", **given)
