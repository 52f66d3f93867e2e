"""Several containers on one instance: one after the other, or each by its name."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from clary.core.model_error import HOP_LIMIT
from clary.core.routing import EndpointRoute, VariantRoute
from tests.gateway.conftest import Container, Gateway, Script, answer, pipeline, says, wait_for


def adds(name: bytes, content_type: bytes = b"text/plain") -> Script:
    """Make a script that answers with its request's body and its own name behind it."""

    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = request.partition(b"\r\n\r\n")[2]
        writer.write(answer(body + b">" + name, headers=b"Content-Type: " + content_type + b"\r\n"))

    return script


async def three(gateway: Gateway, **scripts: Script) -> list[Container]:
    """Start a Serial pipeline `demo` of three; `second=` and the like put another script in a place."""
    containers = [
        await gateway.container(
            scripts.get(place, adds(place.encode(), b"text/csv; charset=utf-8; from=" + place.encode()))
        )
        for place in ("first", "second", "third")
    ]
    gateway.route("demo", pipeline(*containers))
    return containers


def header(container: Container, name: str) -> str | None:
    """Give a header of the last request that a container got."""
    head = container.requests[-1].partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in head}.get(name)


async def test_each_answer_is_the_next_request(gateway: Gateway) -> None:
    await three(gateway)
    reply = await gateway.invoke("demo", b"x")
    assert (reply.status, reply.body) == (200, b"x>first>second>third")
    assert reply.headers["content-type"] == "text/csv; charset=utf-8; from=third"
    assert gateway.state.load == {}


async def test_the_content_type_is_handed_over_verbatim(gateway: Gateway) -> None:
    first, second, third = await three(gateway)
    await gateway.invoke("demo", Content_Type="application/json")
    assert [header(each, "content-type") for each in (first, second, third)] == [
        "application/json",
        "text/csv; charset=utf-8; from=first",
        "text/csv; charset=utf-8; from=second",
    ]


async def test_an_answer_without_a_content_type_hands_none_over(gateway: Gateway) -> None:
    _, second, _ = await three(gateway, first=says(answer(b"", headers=b"")))
    await gateway.invoke("demo", Content_Type="application/json")
    assert header(second, "content-type") is None


async def test_accept_is_for_the_last_and_custom_attributes_are_for_all(gateway: Gateway) -> None:
    containers = await three(gateway)
    await gateway.invoke("demo", Accept="text/csv", X_Amzn_SageMaker_Custom_Attributes="trace=1")
    assert [header(each, "accept") for each in containers] == [None, None, "text/csv"]
    assert [header(each, "x-amzn-sagemaker-custom-attributes") for each in containers] == ["trace=1"] * 3


@pytest.mark.parametrize(
    ("place", "name"), [("first", "container-1"), ("second", "container-2"), ("third", "container-3")]
)
async def test_the_first_failure_stops_the_chain_and_names_its_container(
    gateway: Gateway, place: str, name: str
) -> None:
    containers = await three(gateway, **{place: says(answer(b"no", b"415 Unsupported"))})
    reply = await gateway.invoke("demo")
    document = json.loads(reply.body)
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (424, "ModelError")
    assert document["Message"].startswith(f'Received client error (415) from {name} with message "no". See https://')
    assert (document["OriginalStatusCode"], document["OriginalMessage"]) == (415, "no")
    asked = int(name[-1])
    assert [len(each.requests) for each in containers] == [1] * asked + [0] * (3 - asked)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_hand_over_above_5_mb_is_a_model_error_in_the_published_words(gateway: Gateway, chunked: bool) -> None:
    body = b"x" * 6_000_000
    large = answer(body)
    if chunked:
        large = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    _, _, third = await three(gateway, second=says(large))
    document = json.loads((await gateway.invoke("demo")).body)
    assert document["Message"].startswith(
        "Received response from container-2 with status code 200. However, the request payload from container-2 to "
        "container-3 is 6000000 bytes, which has exceeded the maximum limit of 5 MB."
    )
    assert document["OriginalStatusCode"] == 200
    assert third.requests == []


async def test_5_mb_exactly_are_handed_over_and_the_last_answer_may_be_larger(gateway: Gateway) -> None:
    await three(gateway, second=says(answer(b"x" * HOP_LIMIT)), third=says(answer(b"y" * 7_000_000)))
    assert len((await gateway.invoke("demo")).body) == 7_000_000


async def test_one_time_limit_holds_for_the_whole_chain_and_the_slow_container_is_named(gateway: Gateway) -> None:
    async def never(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    _, second, _ = await three(gateway, second=never)
    asking = asyncio.create_task(gateway.invoke("demo"))
    await wait_for(lambda: second.requests)
    gateway.time_out(gateway.state.deadlines)
    document = json.loads((await asking).body)
    assert "waiting for a response from container container-2." in document["Message"]
    assert gateway.state.load == {}


async def test_a_container_that_hangs_up_is_asked_once_more_from_the_beginning(gateway: Gateway) -> None:
    async def hang_up(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    containers = await three(gateway, second=hang_up)
    document = json.loads((await gateway.invoke("demo")).body)
    assert document["Message"].startswith("Received server error (0) from container-2 with message")
    assert [len(each.requests) for each in containers] == [2, 2, 0]


async def test_containers_have_latencies_of_their_own(gateway: Gateway) -> None:
    await three(gateway)
    await gateway.invoke("demo")
    counted = {
        point.series.dimensions: point for point in gateway.state.meter.take() if "Container" in point.series.name
    }
    assert [dict(each)["ContainerName"] for each in counted] == ["container-1", "container-2", "container-3"]


async def direct(gateway: Gateway) -> list[Container]:
    containers = [await gateway.container(adds(name)) for name in (b"one", b"two")]
    gateway.route("demo", pipeline(*containers, direct=True))
    return containers


async def test_direct_mode_sends_to_the_container_that_is_named(gateway: Gateway) -> None:
    one, two = await direct(gateway)
    reply = await gateway.invoke("demo", b"x", X_Amzn_SageMaker_Target_Container_Hostname="container-2")
    assert (reply.status, reply.body) == (200, b"x>two")
    assert (len(one.requests), len(two.requests)) == (0, 1)
    assert "x-amzn-sagemaker-target-container-hostname" not in two.requests[0].decode().lower()


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "requires the target container hostname header. Its containers are: container-1, container-2."),
        ({"X_Amzn_SageMaker_Target_Container_Hostname": "nobody"}, "Container nobody not found for endpoint demo."),
    ],
)
async def test_direct_mode_refuses_no_name_and_an_unknown_one(
    gateway: Gateway, headers: dict[str, str], words: str
) -> None:
    containers = await direct(gateway)
    reply = await gateway.invoke("demo", **headers)
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (400, "ValidationError")
    assert words in json.loads(reply.body)["Message"]
    assert [each.requests for each in containers] == [[], []]
    assert gateway.state.load == {}


def part(variant: VariantRoute, *names: str) -> VariantRoute:
    """Leave only these containers ready."""
    hops = tuple(hop for hop in variant.targets[0].hops if hop.name in names)
    return replace(variant, targets=(replace(variant.targets[0], hops=hops),))


async def test_in_direct_mode_the_others_of_an_instance_serve_without_a_dead_one(gateway: Gateway) -> None:
    containers = [await gateway.container(adds(name)) for name in (b"one", b"two")]
    gateway.route("demo", part(pipeline(*containers, direct=True), "container-1"))
    reply = await gateway.invoke("demo", b"x", X_Amzn_SageMaker_Target_Container_Hostname="container-1")
    assert (reply.status, reply.body) == (200, b"x>one")
    reply = await gateway.invoke("demo", b"x", X_Amzn_SageMaker_Target_Container_Hostname="container-2")
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (503, "ServiceUnavailable")
    assert "No container container-2 of endpoint demo is ready" in json.loads(reply.body)["Message"]
    assert containers[1].requests == []
    assert gateway.state.load == {}


async def test_in_direct_mode_another_instance_answers_for_a_dead_container(gateway: Gateway) -> None:
    whole, half = [[await gateway.container(adds(name)) for name in (b"one", b"two")] for _ in range(2)]
    lame = part(pipeline(*half, direct=True), "container-1").targets[0]
    both = pipeline(*whole, direct=True)
    gateway.route("demo", replace(both, targets=(replace(lame, id="i-2"), *both.targets)))
    for _ in range(20):
        reply = await gateway.invoke("demo", b"x", X_Amzn_SageMaker_Target_Container_Hostname="container-2")
        assert (reply.status, reply.body) == (200, b"x>two")
    assert half[1].requests == []


async def test_a_container_cannot_be_named_outside_of_direct_mode(gateway: Gateway) -> None:
    await three(gateway)
    reply = await gateway.invoke("demo", X_Amzn_SageMaker_Target_Container_Hostname="container-2")
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (400, "ValidationError")
    assert "does not support target container hostname header" in json.loads(reply.body)["Message"]


async def test_a_direct_container_s_failure_names_it_and_counts_for_it(gateway: Gateway) -> None:
    container = await gateway.container(says(answer(b"no", b"500 Oops")))
    gateway.put(EndpointRoute("demo", "InService", (pipeline(container, direct=True),)))
    reply = await gateway.invoke("demo", X_Amzn_SageMaker_Target_Container_Hostname="container-1")
    assert json.loads(reply.body)["Message"].startswith("Received server error (500) from container-1 with message")
    counted = {
        (point.series.name, dict(point.series.dimensions).get("ContainerName")): point.statistics.sum
        for point in gateway.state.meter.take()
    }
    assert counted["Invocation5XXErrors", "container-1"] == 1
    assert counted["Invocation5XXErrors", None] == 1
    assert counted["InvocationModelErrors", None] == 1
    assert counted["Invocation4XXErrors", None] == 0
