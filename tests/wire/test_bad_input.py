"""Whatever a client sends, it gets an AWS error of the 400s that botocore reads, and no handler hears of it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from botocore.model import Shape
from botocore.parsers import create_parser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clary.wire.dispatch import Caller, Dispatcher
from clary.wire.failures import WireResponse

from .shapes import HOSTING, conforming, operation

CALLER = Caller(account_id="123456789012", region="us-east-1", access_key_id="AKID", request_id="req-1")
_drawn = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))

Path = tuple[str | int, ...]


class Recorder:
    """A dispatcher over all hosting operations whose handlers only note that they were called."""

    def __init__(self) -> None:
        self.called: list[dict[str, Any]] = []
        self._dispatcher = Dispatcher({("sagemaker", name): self._record for name in HOSTING})

    async def _record(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        self.called.append(request)
        return {}

    async def post(self, name: str, body: Any) -> WireResponse:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": name}
        return await self._dispatcher.handle("sagemaker", headers, raw, CALLER)

    async def refused(self, name: str, body: Any) -> str:
        """Post what must be refused; give the code that botocore reads."""
        response = await self.post(name, body)
        assert 400 <= response.status < 500, response
        assert self.called == []
        raw = {"status_code": response.status, "headers": dict(response.headers), "body": response.body}
        answer = create_parser("json").parse(raw, None)
        assert answer["Error"]["Message"]
        assert answer["ResponseMetadata"]["RequestId"] == "req-1"
        assert answer["Error"]["Code"] == response.headers["x-amzn-errortype"]
        return str(answer["Error"]["Code"])


def places(shape: Shape, value: Any, path: Path = ()) -> list[tuple[Path, Shape]]:
    """Every place in the value, with its shape."""
    found = [(path, shape)] if path else []
    match shape.type_name:
        case "structure":
            for name, item in value.items():
                found += places(shape.members[name], item, (*path, name))
        case "list":
            for index, item in enumerate(value):
                found += places(shape.member, item, (*path, index))
        case "map":
            for key, item in value.items():
                found += places(shape.value, item, (*path, key))
    return found


def replaced(value: Any, path: Path, item: Any) -> Any:
    changed = copy.deepcopy(value)
    holder = changed
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = item
    return changed


WRONG: dict[str, list[Any]] = {
    "structure": [1, "x", [], True],
    "list": [1, "x", {}, True],
    "map": [1, "x", [], True],
    "string": [1, 1.5, [], {}, False, "\ud800"],
    "integer": ["1", 1.5, [], {}, True, 10**30],
    "long": ["1", 1.5, [], {}, True, 10**30],
    "float": ["1", [], {}, True, 10**400],
    "double": ["1", [], {}, True, 10**400],
    "boolean": ["true", 0, [], {}],
    "timestamp": ["now", [], {}, True, 10**30],
}


def breaking(shape: Shape) -> list[Any]:
    """Values of the right type that break a rule of the shape."""
    facts = shape.metadata
    broken: list[Any] = []
    match shape.type_name:
        case "string":
            if "max" in facts:
                broken.append("a" * (facts["max"] + 1))
            if facts.get("min", 0) > 0:
                broken.append("")
            if "enum" in facts:
                broken.append("no such choice")
            if "pattern" in facts and facts["pattern"] not in (".*", r"[\S\s]*", "(?s).*"):
                broken.append("\n\0")
        case "integer" | "long" | "float":
            broken += [facts["min"] - 1] if "min" in facts else []
            broken += [facts["max"] + 1] if "max" in facts else []
        case "list":
            broken += [[]] if facts.get("min", 0) > 0 else []
    return broken


requests = st.sampled_from(HOSTING).flatmap(
    lambda name: st.tuples(st.just(name), conforming(operation(name).input_shape))
)


@settings(_drawn, max_examples=100)
@given(requests, st.data())
async def test_a_wrong_type_anywhere(request: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    name, value = request
    candidates = places(operation(name).input_shape, value)
    if not candidates:
        return
    path, shape = data.draw(st.sampled_from(candidates))
    wrong = data.draw(st.sampled_from(WRONG[shape.type_name]))
    assert await Recorder().refused(f"SageMaker.{name}", replaced(value, path, wrong)) == "SerializationException"


@settings(_drawn, max_examples=100)
@given(requests, st.data())
async def test_a_broken_rule_anywhere(request: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    name, value = request
    candidates = [
        (path, item) for path, shape in places(operation(name).input_shape, value) for item in breaking(shape)
    ]
    if not candidates:
        return
    path, item = data.draw(st.sampled_from(candidates))
    assert await Recorder().refused(f"SageMaker.{name}", replaced(value, path, item)) == "ValidationException"


@_drawn
@given(requests)
async def test_a_missing_required_member(request: tuple[str, dict[str, Any]]) -> None:
    name, value = request
    for member in operation(name).input_shape.required_members:
        for missing in ({key: item for key, item in value.items() if key != member}, value | {member: None}):
            assert await Recorder().refused(f"SageMaker.{name}", missing) == "ValidationException"


@_drawn
@given(requests, st.dictionaries(st.text(min_size=1, max_size=5).map("X-".__add__), st.integers(), min_size=1))
async def test_unknown_members_change_nothing(request: tuple[str, dict[str, Any]], unknown: dict[str, int]) -> None:
    name, value = request
    recorder = Recorder()
    assert (await recorder.post(f"SageMaker.{name}", value | unknown)).status == 200
    assert recorder.called == [value]


@_drawn
@given(st.sampled_from(HOSTING), st.binary(min_size=1, max_size=40))
async def test_bytes_that_mean_nothing(name: str, body: bytes) -> None:
    try:
        if isinstance(json.loads(body), dict):
            return
    except (ValueError, RecursionError):
        pass
    assert await Recorder().refused(f"SageMaker.{name}", body) == "SerializationException"


@_drawn
@given(requests, st.data())
async def test_a_body_that_was_cut_off(request: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    name, value = request
    body = json.dumps(value).encode()
    cut = body[: data.draw(st.integers(1, len(body) - 1))]
    assert await Recorder().refused(f"SageMaker.{name}", cut) == "SerializationException"


@_drawn
@given(st.text(max_size=30))
async def test_a_target_that_names_nothing(target: str) -> None:
    assert await Recorder().refused(target, b"{}") == "UnknownOperationException"


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"ModelName":' * 50_000,
        b'{"ModelName": NaN}',
        b'{"ModelName": "a", "ModelName": "b"}',
        b'{"ModelName": ' + b"1" * 10_000 + b"}",
        b'{"ModelName": "\\ud800"}',
        b'{"ModelName": "\xff"}',
        b"[]",
        b"null",
        b'"text"',
        b"12",
    ],
    ids=range(11),
)
async def test_hostile_json(body: bytes) -> None:
    assert await Recorder().refused("SageMaker.DescribeModel", body) == "SerializationException"
