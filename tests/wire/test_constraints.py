"""AWS's exact words for every violation, all of them at once, in the model's order."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.model import ServiceModel, Shape
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.errors import SerializationException, ValidationException
from clary.wire import constraints

from .shapes import HOSTING, conforming, operation


def complaint(name: str, value: dict[str, Any]) -> str:
    with pytest.raises(ValidationException) as caught:
        constraints.check(operation(name).input_shape, value)
    assert (caught.value.code, caught.value.status) == ("ValidationException", 400)
    return caught.value.message


def shape_of(**shapes: dict[str, Any]) -> Shape:
    """Give the first of some shapes of a model of their own."""
    facts = {"metadata": {"protocol": "json", "endpointPrefix": "test"}, "operations": {}, "shapes": shapes}
    return ServiceModel(facts, "test").shape_for(next(iter(shapes)))


@pytest.mark.parametrize(
    ("name", "value", "item"),
    [
        (
            "DescribeModel",
            {},
            "Value null at 'modelName' failed to satisfy constraint: Member must not be null",
        ),
        (
            "DescribeModel",
            {"ModelName": "my_model"},
            "Value 'my_model' at 'modelName' failed to satisfy constraint: Member must satisfy regular expression "
            r"pattern: [a-zA-Z0-9]([\-a-zA-Z0-9]*[a-zA-Z0-9])?",
        ),
        (
            "DescribeModel",
            {"ModelName": "m" * 64},
            f"Value '{'m' * 64}' at 'modelName' failed to satisfy constraint: "
            "Member must have length less than or equal to 63",
        ),
        (
            "ListModels",
            {"MaxResults": 0},
            "Value '0' at 'maxResults' failed to satisfy constraint: Member must have value greater than or equal to 1",
        ),
        (
            "ListModels",
            {"MaxResults": 101},
            "Value '101' at 'maxResults' failed to satisfy constraint: "
            "Member must have value less than or equal to 100",
        ),
        (
            "ListModels",
            {"SortOrder": "Sideways"},
            "Value 'Sideways' at 'sortOrder' failed to satisfy constraint: "
            "Member must satisfy enum value set: [Ascending, Descending]",
        ),
        (
            "CreateModel",
            {"ModelName": "m", "ExecutionRoleArn": "arn"},
            "Value 'arn' at 'executionRoleArn' failed to satisfy constraint: "
            "Member must have length greater than or equal to 20; "
            "Value 'arn' at 'executionRoleArn' failed to satisfy constraint: Member must satisfy regular expression "
            r"pattern: arn:aws[a-z\-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+",
        ),
        (
            "CreateModel",
            {"ModelName": "m", "Tags": [{"Key": "a", "Value": ""}, {"Key": "", "Value": ""}]},
            "Value '' at 'tags.2.member.key' failed to satisfy constraint: "
            "Member must have length greater than or equal to 1",
        ),
        (
            "CreateModel",
            {"ModelName": "m", "Containers": [{"Image": "a", "Environment": {"K": "v"}}, *[{"Image": "b"}] * 15]},
            "Value '[{Image=a, Environment={K=v}}, " + ", ".join(["{Image=b}"] * 15) + "]' at 'containers' failed to "
            "satisfy constraint: Member must have length less than or equal to 15",
        ),
        (
            "CreateModel",
            {"ModelName": "m", "VpcConfig": {"SecurityGroupIds": ["sg-1", "sg_2"], "Subnets": ["s"]}},
            "Value '[sg-1, sg_2]' at 'vpcConfig.securityGroupIds' failed to satisfy constraint: Member must satisfy "
            "constraint: [Member must have length less than or equal to 32, Member must have length greater than or "
            "equal to 0, Member must satisfy regular expression pattern: [-0-9a-zA-Z]+]",
        ),
        (
            "CreateModel",
            {"ModelName": "m", "PrimaryContainer": {"Environment": {"1A": "x"}}},
            "Value '{1A=x}' at 'primaryContainer.environment' failed to satisfy constraint: Map keys must satisfy "
            "constraint: [Member must have length less than or equal to 1024, Member must have length greater than or "
            "equal to 0, Member must satisfy regular expression pattern: [a-zA-Z_][a-zA-Z0-9_]*]",
        ),
        (
            "DeleteTags",
            {"ResourceArn": "arn:aws:sagemaker:us-east-1:123456789012:model/m", "TagKeys": []},
            "Value '[]' at 'tagKeys' failed to satisfy constraint: Member must have length greater than or equal to 1",
        ),
    ],
)
def test_the_words_are_aws_words(name: str, value: dict[str, Any], item: str) -> None:
    count = item.count("failed to satisfy constraint: ")
    head = "1 validation error" if count == 1 else f"{count} validation errors"
    assert complaint(name, value) == f"{head} detected: {item}"


def test_an_enum_inside_a_list_names_its_index() -> None:
    variant = {"VariantName": "v", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.t3.medium"}
    message = complaint("CreateEndpointConfig", {"EndpointConfigName": "c", "ProductionVariants": [variant]})
    assert message.startswith(
        "1 validation error detected: Value 'ml.t3.medium' at 'productionVariants.1.member.instanceType' failed to "
        "satisfy constraint: Member must satisfy enum value set: [ml."
    )


def test_violations_come_in_the_models_order_and_length_before_pattern() -> None:
    value = {"ExecutionRoleArn": "x" * 20, "PrimaryContainer": {"Image": "a b"}, "ModelName": "_" * 64}
    message = complaint("CreateModel", value)
    assert message.startswith("4 validation errors detected: ")
    places = [part.split("'")[3] for part in message.split("; ")]
    assert places == ["modelName", "modelName", "primaryContainer.image", "executionRoleArn"]
    assert message.index("length less than") < message.index("regular expression")


def test_an_empty_name_fails_on_the_pattern_not_on_the_length() -> None:
    assert "length" not in complaint("DescribeEndpoint", {"EndpointName": ""})


def test_the_code_is_the_services() -> None:
    with pytest.raises(ValidationException) as caught:
        constraints.check(operation("DescribeModel").input_shape, {}, code="ValidationError")
    assert (caught.value.code, caught.value.status) == ("ValidationError", 400)


def test_sensitive_values_are_not_repeated() -> None:
    shape = operation("CreateModelCard").input_shape
    with pytest.raises(ValidationException) as caught:
        constraints.check(shape, {"ModelCardName": "c", "Content": "s" * 200_000, "ModelCardStatus": "Draft"})
    assert caught.value.message.startswith("1 validation error detected: Value at 'content' failed to satisfy")


def test_what_holds_a_sensitive_value_is_not_repeated_either() -> None:
    shape = shape_of(
        Login={"type": "structure", "members": {"Password": {"shape": "Secret"}, "More": {"shape": "Logins"}}},
        Logins={"type": "list", "member": {"shape": "Login"}, "max": 1},
        Secret={"type": "string", "sensitive": True},
    )
    with pytest.raises(ValidationException) as caught:
        constraints.check(shape, {"More": [{"Password": "hunter2"}, {}]})
    assert "hunter2" not in caught.value.message
    assert "Value at 'more' failed to satisfy" in caught.value.message


def test_a_hostile_text_does_not_hold_the_pattern_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraints, "_PATTERN_SECONDS", 0.05)
    shape = shape_of(
        Slow={"type": "structure", "members": {"Text": {"shape": "Text"}}},
        Text={"type": "string", "pattern": r"[a-z0-9]([-a-z0-9]*[a-z0-9]){0,39}?"},
    )
    with pytest.raises(ValidationException, match="regular expression pattern"):
        constraints.check(shape, {"Text": "a" * 3000 + "!"})


def test_deep_nesting_is_refused() -> None:
    nested: dict[str, Any] = {}
    for _ in range(5_000):
        nested = {"SubExpressions": [nested]}
    with pytest.raises(SerializationException, match="nested too deeply"):
        constraints.check(operation("Search").input_shape, {"Resource": "Model", "SearchExpression": nested})


@settings(max_examples=5, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", HOSTING)
def test_what_keeps_the_models_rules_passes(name: str, data: st.DataObject) -> None:
    shape = operation(name).input_shape
    constraints.check(shape, data.draw(conforming(shape)))
