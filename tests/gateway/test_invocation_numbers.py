"""InvokeEndpoint's numbers: what each invocation counts as, and how long its parts took."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.conftest import SECRET, Gateway, answer, says, variant, wait_for


@pytest.mark.parametrize("secret", [SECRET, "wrong"])
async def test_timing_is_told_with_errors_too(gateway: Gateway, secret: str) -> None:
    path, headers = "/endpoints/nobody/invocations", {"X-Clary-Server-Timing": "1"}
    reply = await gateway.send(gateway.signed(path, b"{}", headers, secret))
    assert reply.status >= 400
    parts = dict(part.split(";dur=") for part in reply.headers["server-timing"].split(", "))
    assert list(parts) == ["auth", "queue", "model", "overhead"]
    assert all(float(milliseconds) >= 0 for milliseconds in parts.values()) and float(parts["model"]) == 0


async def test_timing_is_told_to_who_asks(gateway: Gateway) -> None:
    await gateway.serve("demo", says(answer(b"ok")))
    assert "server-timing" not in (await gateway.invoke("demo")).headers
    told = (await gateway.invoke("demo", X_Clary_Server_Timing="1")).headers["server-timing"]
    parts = dict(part.split(";dur=") for part in told.split(", "))
    assert list(parts) == ["auth", "queue", "model", "overhead"]
    assert all(float(milliseconds) >= 0 for milliseconds in parts.values())


@pytest.mark.parametrize(
    ("raw", "sums"),
    [
        (answer(b"ok"), (1, 0, 0, 0)),
        (answer(b"no", b"404 Not Found"), (1, 1, 0, 1)),
        (answer(b"no", b"500 Oops"), (1, 0, 1, 1)),
        (b"nonsense", (1, 0, 1, 1)),
    ],
)
async def test_each_invocation_is_counted_by_what_the_model_said(
    gateway: Gateway, raw: bytes, sums: tuple[int, ...]
) -> None:
    await gateway.serve("demo", says(raw))
    await gateway.invoke("demo")
    counted = {point.series.name: point.statistics for point in gateway.state.meter.take()}
    names = ("Invocations", "Invocation4XXErrors", "Invocation5XXErrors", "InvocationModelErrors")
    assert tuple(counted[name].sum for name in names) == sums
    assert counted["ModelLatency"].sum > 0
    assert counted["OverheadLatency"].sum > 0


async def test_an_answer_that_breaks_off_is_a_failure_of_the_model(gateway: Gateway) -> None:
    async def half(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    await gateway.serve("demo", half)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await gateway.invoke("demo")
    counted = {point.series.name: point.statistics.sum for point in gateway.state.meter.take()}
    assert (counted["Invocation5XXErrors"], counted["InvocationModelErrors"]) == (1, 1)


async def test_a_request_whose_client_has_left_is_counted(gateway: Gateway) -> None:
    async def never(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    container = await gateway.serve("demo", never)
    _, writer = await gateway.connect()
    writer.write(gateway.signed("/endpoints/demo/invocations", b""))
    await wait_for(lambda: container.requests)
    writer.close()
    await wait_for(lambda: not gateway.state.load)
    counted = {point.series.name: point.statistics.sum for point in gateway.state.meter.take()}
    assert (counted["Invocations"], counted["Invocation5XXErrors"], counted["InvocationModelErrors"]) == (1, 0, 0)
    assert counted["ModelLatency"] > 0


async def test_invocations_that_no_instance_could_take_are_counted(gateway: Gateway) -> None:
    gateway.route("demo", variant())
    await gateway.invoke("demo")
    counted = {point.series.name: point.statistics.sum for point in gateway.state.meter.take()}
    assert (counted["Invocations"], counted["Invocation5XXErrors"]) == (1, 1)
    assert "ModelLatency" not in counted
