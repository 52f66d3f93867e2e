"""Conditions of policies: on what is asked for, on tags, and on the circumstances."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.api.authorization.conftest import MODEL, PACKAGE, Guarded, policy
from tests.api.conftest import ACCOUNT, ARN, variant

VPC = {"VpcConfig": {"Subnets": ["s"], "SecurityGroupIds": ["g"]}}


async def test_tags_at_creation_need_addtags_and_may_be_asked_for(guarded: Guarded) -> None:
    tags = [{"Key": "team", "Value": "search"}]
    await guarded.user(policy("sagemaker:CreateModel"))
    assert "sagemaker:AddTags on resource: " in await guarded.denial("u", "CreateModel", **MODEL, Tags=tags)
    asked = {"StringEquals": {"aws:RequestTag/team": "search"}, "ForAllValues:StringEquals": {"aws:TagKeys": ["team"]}}
    await guarded.user(policy("sagemaker:*", Condition=asked), name="v")
    await guarded.denial("v", "CreateModel", **MODEL)
    await guarded.denial("v", "CreateModel", **MODEL, Tags=[*tags, {"Key": "more", "Value": ""}])
    await guarded("v", "CreateModel", **MODEL, Tags=tags)


async def test_tags_of_a_resource_may_be_asked_for(guarded: Guarded) -> None:
    await guarded("owner", "CreateModel", **MODEL, Tags=[{"Key": "Team", "Value": "search"}])
    await guarded.user(policy("sagemaker:*", Condition={"StringEquals": {"aws:ResourceTag/team": "search"}}))
    await guarded.user(
        policy("sagemaker:*", Condition={"StringEquals": {"sagemaker:ResourceTag/Team": "ads"}}), name="v"
    )
    await guarded("u", "DescribeModel", ModelName="m")
    await guarded.denial("v", "DescribeModel", ModelName="m")


@pytest.mark.parametrize(
    ("condition", "members"),
    [
        ({"ForAnyValue:StringEquals": {"sagemaker:VpcSubnets": "s"}}, VPC),
        ({"StringEquals": {"sagemaker:VpcSecurityGroupIds": "g"}, "Null": {"sagemaker:VpcSubnets": "false"}}, VPC),
        ({"Bool": {"sagemaker:NetworkIsolation": "true"}}, {"EnableNetworkIsolation": True}),
    ],
)
async def test_conditions_on_models(guarded: Guarded, condition: Any, members: dict[str, Any]) -> None:
    await guarded.user(policy("sagemaker:*", Condition=condition))
    await guarded.denial("u", "CreateModel", **MODEL)
    await guarded("u", "CreateModel", **MODEL, **members)


async def test_conditions_on_configurations_and_the_configuration_of_an_endpoint(guarded: Guarded) -> None:
    await guarded("owner", "CreateModel", **MODEL)
    instances = {
        "ForAllValues:StringLike": {"sagemaker:InstanceTypes": "ml.m5.*"},
        "ArnLike": {"sagemaker:ModelArn": f"{ARN}:model/m"},
    }
    await guarded.user(policy("sagemaker:CreateEndpointConfig", Condition=instances))
    small, large = variant(), variant(InstanceType="ml.p4d.24xlarge")
    await guarded.denial("u", "CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[large])
    await guarded("u", "CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[small])
    await guarded.user(policy("sagemaker:CreateEndpoint", f"{ARN}:endpoint/*"), name="v")
    assert f"on resource: {ARN}:endpoint-config/c" in await guarded.denial(
        "v", "CreateEndpoint", EndpointName="e", EndpointConfigName="c"
    )


@pytest.mark.parametrize(
    ("condition", "members", "allowed"),
    [
        ({"StringEquals": {"sagemaker:ModelApprovalStatus": "PendingManualApproval"}}, {}, True),
        ({"StringNotEquals": {"sagemaker:ModelApprovalStatus": "Approved"}}, {}, True),
        (
            {"StringNotEquals": {"sagemaker:ModelApprovalStatus": "Approved"}},
            {"ModelApprovalStatus": "Approved"},
            False,
        ),
        (
            {"StringEquals": {"sagemaker:CustomerMetadataProperties/Stage": "test"}},
            {"CustomerMetadataProperties": {"stage": "test"}},
            True,
        ),
        (
            {"StringEquals": {"sagemaker:CustomerMetadataProperties/Stage": "test"}},
            {"CustomerMetadataProperties": {"stage": "live"}},
            False,
        ),
        ({"StringEqualsIfExists": {"sagemaker:CustomerMetadataProperties/Stage": "test"}}, {}, True),
        ({"Null": {"sagemaker:CustomerMetadataProperties/Stage": "false"}}, {}, False),
        (
            {"StringEquals": {"sagemaker:ModelLifeCycle:stage": "Development"}},
            {"ModelLifeCycle": {"Stage": "Development", "StageStatus": "Pending"}},
            True,
        ),
    ],
    ids=str,
)
async def test_conditions_on_the_registry(
    guarded: Guarded, condition: Any, members: dict[str, Any], allowed: bool
) -> None:
    await guarded("owner", "CreateModelPackageGroup", ModelPackageGroupName="g")
    await guarded.user(policy("sagemaker:*", Condition=condition))
    if allowed:
        await guarded("u", "CreateModelPackage", **PACKAGE, **members)
    else:
        await guarded.denial("u", "CreateModelPackage", **PACKAGE, **members)


async def test_what_is_removed_from_the_metadata_may_be_asked_for(guarded: Guarded) -> None:
    await guarded("owner", "CreateModelPackageGroup", ModelPackageGroupName="g")
    await guarded("owner", "CreateModelPackage", **PACKAGE)
    kept = {"ForAnyValue:StringEquals": {"sagemaker:CustomerMetadataPropertiesToRemove": "audit"}}
    deny = policy("*", Condition=kept)
    deny["Statement"]["Effect"] = "Deny"
    await guarded.user(policy("*"), deny)
    change = {"ModelPackageArn": f"{ARN}:model-package/g/1", "CustomerMetadataPropertiesToRemove": ["a", "audit"]}
    assert "explicit deny" in await guarded.denial("u", "UpdateModelPackage", **change)
    await guarded("u", "UpdateModelPackage", **{**change, "CustomerMetadataPropertiesToRemove": ["a"]})


async def test_whoever_may_not_isolate_gets_the_default_and_who_must_is_denied_it(guarded: Guarded) -> None:
    await guarded.user(policy("sagemaker:*", Condition={"Bool": {"sagemaker:NetworkIsolation": "false"}}))
    await guarded("u", "CreateModel", **MODEL)
    deny = policy("*", Condition={"Bool": {"sagemaker:NetworkIsolation": "false"}})
    deny["Statement"]["Effect"] = "Deny"
    await guarded.user(policy("*"), deny, name="v")
    assert "explicit deny" in await guarded.denial("v", "CreateModel", **{**MODEL, "ModelName": "m2"})
    await guarded("v", "CreateModel", **{**MODEL, "ModelName": "m2"}, EnableNetworkIsolation=True)


@pytest.mark.parametrize(
    ("condition", "source", "allowed"),
    [
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, "10.9.8.7", True),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, "127.0.0.1", False),
        ({"Bool": {"aws:SecureTransport": "false"}}, "", True),
        ({"StringLike": {"aws:UserAgent": "Boto3/*"}}, "", True),
        ({"StringNotEquals": {"aws:SourceVpce": "vpce-1"}}, "", True),
        ({"ArnLike": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:user/u"}}, "", True),
        ({"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, "", True),
        ({"NumericLessThan": {"aws:EpochTime": "1"}}, "", False),
    ],
    ids=str,
)
async def test_conditions_on_the_circumstances(guarded: Guarded, condition: Any, source: str, allowed: bool) -> None:
    await guarded.user(policy("sagemaker:*", Condition=condition))
    guarded.callers["u"] = replace(guarded.callers["u"], source_ip=source, user_agent="Boto3/1.43")
    if allowed:
        await guarded("u", "ListModels")
    else:
        await guarded.denial("u", "ListModels")
