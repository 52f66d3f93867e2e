"""Invocations of inference components: by name, in the service's words where there is none to take them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from clary.core.routing import EndpointRoute, Hop, RouteTable, Target, VariantRoute
from clary.gateway.meter import Concurrency
from tests.gateway.conftest import Container, Gateway, answer, says, variant
from tests.gateway.test_pipeline import header

NAME = "X_Amzn_SageMaker_Inference_Component"


async def serve(gateway: Gateway, **members: Any) -> Container:
    """Start an endpoint `demo` with a component `llm` of one copy, whose route is as it is said."""
    container = await gateway.container(says(answer(b"said")))
    component = EndpointRoute("demo", "InService", (variant(container, name="v"),), component="llm")
    gateway.put(EndpointRoute("demo", "InService", (), components={"llm": replace(component, **members)}))
    return container


async def test_a_component_is_invoked_by_its_name(gateway: Gateway) -> None:
    container = await serve(gateway)
    reply = await gateway.invoke("demo", b"x", **{NAME: "llm"})
    assert (reply.status, reply.body) == (200, b"said")
    assert reply.headers["x-amzn-invoked-production-variant"] == "v"
    assert header(container, "x-amzn-sagemaker-inference-component") is None, "it is nothing to the container"
    assert gateway.state.load == {}


async def test_an_adapters_container_is_told_which_it_is(gateway: Gateway) -> None:
    container = await serve(gateway, adapter="llm-0a1b")
    spoofed = {NAME: "llm", "X_Amzn_SageMaker_Adapter_Identifier": "other"}
    assert (await gateway.invoke("demo", b"x", **spoofed)).status == 200
    assert header(container, "x-amzn-sagemaker-adapter-identifier") == "llm-0a1b"
    assert header(container, "x-amzn-sagemaker-adapter-alias") == "llm"
    await serve(gateway)


@pytest.mark.parametrize(
    ("members", "headers", "status", "code", "words"),
    [
        ({}, {}, 400, "ValidationError", "Inference Component Name header is required for endpoints"),
        ({}, {NAME: "other"}, 400, "ValidationError", "Inference Component other of endpoint demo of account"),
        ({"status": "Failed"}, {NAME: "llm"}, 400, "ValidationError", "Its status is Failed"),
        ({"status": "Deleting"}, {NAME: "llm"}, 400, "ValidationError", "Its status is Deleting"),
        ({"status": "Creating"}, {NAME: "llm"}, 429, "ModelNotReadyException", "is being created"),
        (
            {"variants": (variant(name="v"),), "copies": 0}, {NAME: "llm"}, 400, "ValidationError",
            "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress "
            "(if configured) or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API.",
        ),
        (
            {"variants": (variant(name="v"),), "status": "Updating"}, {NAME: "llm"}, 400, "ValidationError",
            "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress ",
        ),
        (
            {"variants": (variant(name="v"),)}, {NAME: "llm"}, 503, "ServiceUnavailable",
            "No copy of inference component llm of endpoint demo is ready",
        ),
    ],
)  # fmt: skip
async def test_what_cannot_be_invoked_is_refused(
    gateway: Gateway, members: dict[str, Any], headers: dict[str, str], status: int, code: str, words: str
) -> None:
    container = await serve(gateway, **members)
    reply = await gateway.invoke("demo", b"x", **headers)
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (status, code)
    assert words in json.loads(reply.body)["Message"]
    assert container.requests == []


async def test_the_error_codes_of_raw_clients(gateway: Gateway) -> None:
    await serve(gateway)
    assert json.loads((await gateway.invoke("demo")).body)["ErrorCode"] == "INFERENCE_COMPONENT_NAME_MISSING"


async def test_an_endpoint_with_models_takes_no_name(gateway: Gateway) -> None:
    await gateway.serve("plain", says(answer(b"")))
    reply = await gateway.invoke("plain", b"x", **{NAME: "llm"})
    assert reply.status == 400
    assert json.loads(reply.body)["Message"] == (
        "Inference Component Name header is not allowed for endpoints to which you dont plan to deploy inference "
        "components. Please remove the Inference Component Name header and try again."
    )


async def test_a_models_error_names_the_components_log_group(gateway: Gateway) -> None:
    container = await gateway.container(says(answer(b"no", status=b"400 Bad Request")))
    component = EndpointRoute("demo", "InService", (variant(container, name="v"),), component="llm")
    gateway.put(EndpointRoute("demo", "InService", (), components={"llm": component}))
    document = json.loads((await gateway.invoke("demo", b"x", **{NAME: "llm"})).body)
    assert document["LogStreamArn"].endswith(":log-group:/aws/sagemaker/InferenceComponents/llm")
    assert "Here: clary logs llm" in document["Message"]


async def test_invocations_are_counted_for_the_component_too(gateway: Gateway) -> None:
    await serve(gateway)
    await gateway.invoke("demo", b"x", **{NAME: "llm"})
    await serve(gateway, variants=(variant(name="v"),), copies=0)
    await gateway.invoke("demo", b"x", **{NAME: "llm"})
    told = {
        (point.series.name, tuple(value for _, value in point.series.dimensions)): point.statistics.sum
        for point in gateway.state.meter.take()
    }
    assert told["Invocations", ("llm",)] == told["Invocations", ("demo", "v")] == 2
    assert told["InvocationsPerCopy", ("llm",)] == 1
    assert told["NoCapacityInvocationFailures", ("llm",)] == 1
    assert ("InvocationsPerInstance", ("demo", "v")) not in told


def test_concurrency_is_also_counted_by_copy() -> None:
    copies = tuple(Target(each, (Hop(each, "127.0.0.1", 1),)) for each in ("a", "b"))
    base = EndpointRoute("demo", "InService", (VariantRoute("v", 1.0, copies),), component="llm", copies=2)
    adapter = replace(base, component="tongue", adapter="tongue-1")
    endpoint = EndpointRoute("demo", "InService", (), components={"llm": base, "tongue": adapter})
    found = Concurrency().of(RouteTable(1, {"demo": endpoint}), {"a": 3, "gone": 5})
    assert found == {("demo", "v"): 3, ("", "llm"): 1.5}


def test_routes_of_components_survive_the_way_to_the_gateways() -> None:
    component = EndpointRoute("demo", "Updating", (variant(name="v"),), component="llm", copies=0, adapter="llm-1")
    table = RouteTable(3, {"demo": EndpointRoute("demo", "InService", (), components={"llm": component})})
    assert RouteTable.from_json(json.loads(json.dumps(table.to_json()))) == table
