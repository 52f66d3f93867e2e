"""Both directions against botocore: what its serializer writes we read, what we write its parser reads."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.model import Shape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clary.wire import codec, model

from .shapes import HOSTING, operation, typed

OPERATIONS = sorted(model.service("sagemaker").operation_names)
_drawn = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


def sent_by_botocore(name: str, value: dict[str, Any]) -> bytes:
    serializer = create_serializer("json", include_validation=False)
    request = serializer.serialize_to_request(value, operation(name))
    assert request["headers"]["X-Amz-Target"] == f"SageMaker.{name}"
    body: bytes = request["body"]
    return body


def read_by_botocore(shape: Shape, body: bytes) -> dict[str, Any]:
    raw = {"status_code": 200, "headers": {"x-amzn-requestid": "req-1"}, "body": body}
    answer: dict[str, Any] = create_parser("json").parse(raw, shape)
    assert answer.pop("ResponseMetadata")["RequestId"] == "req-1"
    return answer


def for_botocore(shape: Shape, value: Any) -> Any:
    """Our Python values as boto3 has them: times are datetimes."""
    match shape.type_name:
        case "structure":
            return {name: for_botocore(shape.members[name], item) for name, item in value.items()}
        case "list":
            return [for_botocore(shape.member, item) for item in value]
        case "map":
            return {key: for_botocore(shape.value, item) for key, item in value.items()}
        case "timestamp":
            return datetime.fromtimestamp(value, UTC)
    return value


def alike(left: Any, right: Any) -> bool:
    """Equal, and times equal to the millisecond: botocore's floats and ours round apart below that."""
    match left, right:
        case dict(), dict():
            return left.keys() == right.keys() and all(alike(left[key], right[key]) for key in left)
        case list(), list():
            return len(left) == len(right) and all(map(alike, left, right))
        case datetime(), datetime():
            return abs((left - right).total_seconds()) < 0.0005
        case float(), float():
            return math.isclose(left, right, rel_tol=1e-12, abs_tol=0.0005)
    return bool(left == right)


@pytest.mark.parametrize("name", HOSTING)
@_drawn
@given(st.data())
def test_requests_arrive_as_botocore_was_given_them(name: str, data: st.DataObject) -> None:
    shape = operation(name).input_shape
    value = data.draw(typed(shape))
    received = codec.decode(shape, codec.parse(sent_by_botocore(name, for_botocore(shape, value))))
    assert alike(received, value)


@pytest.mark.parametrize("name", [name for name in HOSTING if operation(name).output_shape is not None])
@_drawn
@given(st.data())
def test_answers_are_read_by_botocore_as_they_were_meant(name: str, data: st.DataObject) -> None:
    shape = operation(name).output_shape
    value = data.draw(typed(shape))
    assert alike(read_by_botocore(shape, codec.dump(codec.encode(shape, value))), for_botocore(shape, value))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(OPERATIONS), st.data())
def test_any_operation_of_the_service_makes_the_round_trip(name: str, data: st.DataObject) -> None:
    for shape in (operation(name).input_shape, operation(name).output_shape):
        if shape is not None:
            value = data.draw(typed(shape))
            assert alike(codec.decode(shape, codec.parse(codec.dump(codec.encode(shape, value)))), value)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_input_shape_is_understood_down_to_its_leaves(name: str) -> None:
    shape = operation(name).input_shape
    if shape is None:
        return
    value = sample(shape)
    received = codec.decode(shape, codec.parse(sent_by_botocore(name, for_botocore(shape, value))))
    assert alike(received, value)


def sample(shape: Shape, within: tuple[str, ...] = ()) -> Any:
    """One value with every member set; a shape inside itself stays empty."""
    inner = (*within, shape.name)
    match shape.type_name:
        case "structure":
            names = [] if shape.name in within else list(shape.members)
            if shape.is_tagged_union:
                names = list(shape.members)[:1]
            return {name: sample(shape.members[name], inner) for name in names}
        case "list":
            return [] if shape.name in within else [sample(shape.member, inner)]
        case "map":
            return {"key": sample(shape.value, inner)}
        case "string":
            return "text"
        case "integer" | "long":
            return 5
        case "float" | "double":
            return 0.5
        case "boolean":
            return True
        case "timestamp":
            return 1529870369.986
    raise AssertionError(shape.type_name)
