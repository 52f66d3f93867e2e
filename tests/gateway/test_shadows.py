"""Shadow variants get copies, and the client never notices."""

from __future__ import annotations

import asyncio

import pytest

from clary.core.routing import EndpointRoute, VariantRoute
from clary.gateway import shadows
from clary.gateway.admission import Admission
from tests.gateway.conftest import Container, Gateway, Script, answer, pipeline, says, variant, wait_for


async def shadowed(gateway: Gateway, script: Script, weight: float = 1.0) -> tuple[Container, Container]:
    """Start an endpoint whose shadow runs this script."""
    real, dark = await gateway.container(says(answer(b"real"))), await gateway.container(script)
    gateway.put(EndpointRoute("demo", "InService", (variant(real),), (variant(dark, name="dark", weight=weight),)))
    return real, dark


async def never(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def idle(gateway: Gateway) -> bool:
    state = gateway.state
    return state.shadows_under_way == state.shadow_bytes == 0 and not state.load


async def test_the_shadow_gets_the_same_request_and_its_answer_is_dropped(gateway: Gateway) -> None:
    real, dark = await shadowed(gateway, says(answer(b"dark")))
    reply = await gateway.invoke("demo", b"x", Content_Type="text/csv", Accept="text/csv")
    assert (reply.body, reply.headers["x-amzn-invoked-production-variant"]) == (b"real", "AllTraffic")
    await wait_for(lambda: dark.requests and idle(gateway))
    assert dark.requests[0].partition(b"Content-Type")[2] == real.requests[0].partition(b"Content-Type")[2]


@pytest.mark.parametrize("raw", [answer(b"no", b"500 Oops"), b"nonsense\r\n\r\n", b""])
async def test_whatever_the_shadow_does_the_client_gets_its_answer(gateway: Gateway, raw: bytes) -> None:
    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        writer.close()

    await shadowed(gateway, script)
    for _ in range(5):
        assert (await gateway.invoke("demo")).body == b"real"
    await wait_for(lambda: idle(gateway))


async def test_a_shadow_that_is_gone_delays_nobody(gateway: Gateway) -> None:
    real, dark = await gateway.container(says(answer(b"real"))), gateway.gone()
    gateway.put(EndpointRoute("demo", "InService", (variant(real),), (variant(dark, name="dark"),)))
    assert (await gateway.invoke("demo")).body == b"real"
    await wait_for(lambda: idle(gateway))
    assert dark.requests == []


async def test_a_shadow_that_never_answers_is_given_up(gateway: Gateway) -> None:
    await shadowed(gateway, never)
    assert (await gateway.invoke("demo")).body == b"real"
    assert gateway.state.shadows_under_way == 1
    gateway.time_out(gateway.state.deadlines)
    await wait_for(lambda: idle(gateway))


async def test_an_answer_of_a_shadow_that_breaks_off_is_a_failure(gateway: Gateway) -> None:
    async def half(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    _, dark = await shadowed(gateway, half)
    assert (await gateway.invoke("demo")).body == b"real"
    await wait_for(lambda: dark.requests and idle(gateway))
    counted = {
        point.series.name: point.statistics.sum
        for point in gateway.state.meter.take()
        if ("VariantName", "dark") in point.series.dimensions
    }
    assert (counted["Invocation5XXErrors"], counted["InvocationModelErrors"]) == (1, 1)


async def test_a_bounded_number_is_under_way(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "MOST", 3)
    _, dark = await shadowed(gateway, never)
    for _ in range(10):
        assert (await gateway.invoke("demo")).body == b"real"
    assert gateway.state.shadows_under_way == 3
    await wait_for(lambda: len(dark.requests) == 3)


async def test_bounded_bodies_are_held(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "MOST_BYTES", 100)
    _, dark = await shadowed(gateway, never)
    for size in (60, 50, 40, 1):
        assert (await gateway.invoke("demo", b"x" * size)).body == b"real"
    await wait_for(lambda: [len(each.partition(b"\r\n\r\n")[2]) for each in dark.requests] == [60, 40])
    assert gateway.state.shadow_bytes == 100


async def test_a_shadow_that_has_no_place_gets_no_copy(gateway: Gateway) -> None:
    gateway.state.admission = Admission(1, 0)
    _, dark = await shadowed(gateway, never)
    for _ in range(3):
        assert (await gateway.invoke("demo")).body == b"real"
    await wait_for(lambda: len(dark.requests) == 1)
    assert gateway.state.shadows_under_way == 1


async def test_it_gets_its_share(gateway: Gateway) -> None:
    _, dark = await shadowed(gateway, says(answer(b"")), weight=0.25)
    for _ in range(400):
        await gateway.invoke("demo")
    await wait_for(lambda: idle(gateway))
    assert 40 < len(dark.requests) < 170  # 100 on average; outside once in a thousand billion runs


async def test_a_shadow_may_be_a_pipeline_and_has_numbers_of_its_own(gateway: Gateway) -> None:
    real = await gateway.container(says(answer(b"real")))
    first = await gateway.container(says(answer(b"middle")))
    last = await gateway.container(says(answer(b"no", b"500 Oops")))
    dark = pipeline(first, last)
    dark = VariantRoute("dark", 1.0, dark.targets)
    gateway.put(EndpointRoute("demo", "InService", (variant(real),), (dark,)))
    gateway.state.meter.take()
    await gateway.invoke("demo")
    await wait_for(lambda: idle(gateway))
    assert last.requests[0].endswith(b"\r\n\r\nmiddle")
    counted = {
        (point.series.name, dict(point.series.dimensions)["VariantName"]): point.statistics.sum
        for point in gateway.state.meter.take()
    }
    assert (counted["Invocations", "dark"], counted["Invocation5XXErrors", "dark"]) == (1, 1)
    assert (counted["Invocations", "AllTraffic"], counted["Invocation5XXErrors", "AllTraffic"]) == (1, 0)


async def test_a_client_that_leaves_does_not_stop_the_copy(gateway: Gateway) -> None:
    done = asyncio.Event()

    async def slow(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.write(answer(b""))

    real, dark = await gateway.container(never), await gateway.container(slow)
    gateway.put(EndpointRoute("demo", "InService", (variant(real),), (variant(dark, name="dark"),)))
    _, writer = await gateway.connect()
    writer.write(gateway.signed("/endpoints/demo/invocations", b"{}"))
    await wait_for(lambda: dark.requests and real.requests)
    writer.close()
    await wait_for(lambda: gateway.state.load == {f"i-{dark.port}": 1})
    done.set()
    await wait_for(lambda: idle(gateway))
