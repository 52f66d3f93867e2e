"""The short way against the long one: the same bytes to the client and to the container, whatever is sent."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.core.policy import Inquiry
from clary.core.residency import Held, News
from clary.core.routing import DataCapture, EndpointRoute, VariantRoute
from clary.core.target_model import model_id
from clary.errors import AccessDeniedException
from clary.gateway import connection, short
from clary.gateway.connection import Connection
from clary.gateway.meter import Statistics
from clary.gateway.state import Limits, State
from tests.gateway.conftest import (
    PARTITION,
    Gateway,
    answer,
    pipeline,
    read_reply,
    running,
    says,
    variant,
    wait_for,
    wait_until_still,
)

if not short.is_compiled():
    pytest.skip("the short way is not compiled: install Clary where there is a C compiler", allow_module_level=True)

ANSWER = answer(b'{"ok": true}', headers=b"Content-Type: application/json\r\n")


def taken(gateway: Gateway) -> int:
    """Count the requests that went the short way."""
    return gateway.state.plain_requests()


async def warm(gateway: Gateway, name: str = "e") -> None:
    """Make the signer known and the container's connection open."""
    assert (await gateway.invoke(name)).status == 200
    before = taken(gateway)
    assert (await gateway.invoke(name)).status == 200
    assert taken(gateway) == before + 1


async def test_a_plain_invocation_goes_the_short_way_and_is_answered_and_counted_alike(gateway: Gateway) -> None:
    container = await gateway.serve("e", says(ANSWER))
    first = await gateway.invoke("e", b"1", X_Amzn_SageMaker_Custom_Attributes="a=b", Accept="application/json")
    second = await gateway.invoke("e", b"1", X_Amzn_SageMaker_Custom_Attributes="a=b", Accept="application/json")
    assert taken(gateway) == 1
    assert container.requests[0] == container.requests[1]
    assert (first.status, first.body) == (second.status, second.body)
    assert first.headers.keys() == second.headers.keys()
    assert first.headers["x-amzn-requestid"] != second.headers["x-amzn-requestid"]
    assert gateway.state.load == {}
    assert gateway.state.deadlines == {}
    counted = {point.series.name: point.statistics for point in gateway.state.meter.take()}
    assert counted["Invocations"].count == 2
    assert counted["ModelLatency"].count == 2
    assert isinstance(counted["OverheadLatency"], Statistics)


@given(st.lists(st.floats(-1e12, 1e12)))
def test_latencies_are_added_up_as_those_of_the_long_way(values: list[float]) -> None:
    compiled, own = import_module("clary.gateway.shortcut.way").Latencies(), Statistics()
    for value in values:
        compiled.add(value)
        own.add(value)
    assert compiled.statistics() == own


@pytest.mark.parametrize(
    "route",
    [
        EndpointRoute("e", "InService", (), capture=DataCapture("s3://b/p", 100, True, True)),
        EndpointRoute("e", "InService", (), shadows=(VariantRoute("S", 1.0, ()),)),
    ],
)
async def test_what_has_extras_goes_the_long_way(gateway: Gateway, route: EndpointRoute) -> None:
    container = await gateway.container(says(ANSWER))
    gateway.put(EndpointRoute("e", "InService", (variant(container),), route.shadows, route.capture))
    for _ in range(3):
        assert (await gateway.invoke("e")).status == 200
    assert taken(gateway) == 0


async def test_pipelines_and_direct_calls_go_the_long_way(gateway: Gateway) -> None:
    containers = [await gateway.container(says(ANSWER)) for _ in range(2)]
    for direct, headers in ((False, {}), (True, {"X_Amzn_SageMaker_Target_Container_Hostname": "container-2"})):
        gateway.route("e", pipeline(*containers, direct=direct))
        for _ in range(3):
            assert (await gateway.invoke("e", **headers)).status == 200
    assert taken(gateway) == 0


async def test_a_request_for_a_model_goes_to_an_instance_that_has_it(gateway: Gateway) -> None:
    containers = [await gateway.container(says(ANSWER)) for _ in range(3)]
    many = replace(variant(*containers), multi_model="primary")
    gateway.route("e", many)
    name = model_id("m")
    having = [Held("e", many.name, each.id, each.hops[0].id, name, n) for n, each in enumerate(many.targets)]
    gateway.state.models._hear(News(all=True, add=having[1:]))
    for _ in range(40):
        assert (await gateway.invoke("e", X_Amzn_SageMaker_Target_Model="m")).status == 200
    assert taken(gateway) > 0
    assert not containers[0].requests
    assert containers[1].requests
    assert containers[2].requests
    assert gateway.state.load == {}


async def test_a_policy_may_ask_for_the_model_on_the_short_way_too(gateway: Gateway) -> None:
    container = await gateway.container(says(ANSWER))
    many = replace(variant(container), multi_model="primary")
    gateway.route("e", many)
    target = many.targets[0]
    held = [Held("e", many.name, target.id, target.hops[0].id, model_id(name), 1) for name in ("mine", "yours")]
    gateway.state.models._hear(News(all=True, add=held))
    gateway.state.is_owner = lambda key: False  # type: ignore[method-assign]

    class OnlyMine:
        def require(self, inquiry: Inquiry) -> None:
            if inquiry.context.get("sagemaker:targetmodel") != ("mine",):
                raise AccessDeniedException("not yours")

    gateway.state.principal = lambda identity: OnlyMine()  # type: ignore[method-assign,assignment,return-value]
    statuses = [
        (await gateway.invoke("e", X_Amzn_SageMaker_Target_Model=name)).status for name in ("mine", "yours") * 3
    ]
    assert statuses == [200, 403] * 3
    assert taken(gateway) > 0


async def test_instances_with_limits_have_no_short_way(tmp_path: Path) -> None:
    assert short.way(State(PARTITION, None, tmp_path, Limits(1, 1.0, instance_concurrency=1))) is None


async def test_whoever_asks_for_many_endpoints_that_are_not_there_makes_no_number_go_missing(gateway: Gateway) -> None:
    going_on = asyncio.Event()

    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"slow" in request:
            await going_on.wait()
        writer.write(ANSWER)

    await gateway.serve("e", script)
    await warm(gateway)
    asking = asyncio.create_task(gateway.invoke("e", b"slow"))
    await wait_for(lambda: taken(gateway) == 2)
    client = Connection(lambda head, client: pytest.fail("nothing was opened"), gateway.state.outbox)
    for number in range(5000):
        request = b"POST /endpoints/x%d/invocations HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}" % number
        assert gateway.door.short.take(request, client) is False
    going_on.set()
    assert (await asking).status == 200
    counted = {point.series.name: point.statistics for point in gateway.state.meter.take()}
    assert counted["Invocations"].count == 3


@pytest.mark.parametrize(
    "loaded", [None, SimpleNamespace(SOURCE="0"), SimpleNamespace()], ids=["absent", "old", "older"]
)
async def test_what_is_compiled_is_used_only_where_it_is_of_this_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: object
) -> None:
    assert short.is_compiled()
    monkeypatch.setitem(sys.modules, "clary.gateway.shortcut.way", loaded)
    assert not short.is_compiled()
    assert short.way(State(PARTITION, None, tmp_path, Limits(1, 1.0))) is None


async def test_a_route_that_changes_is_followed_at_once(gateway: Gateway) -> None:
    await gateway.serve("e", says(answer(b"old")))
    await warm(gateway)
    await gateway.serve("e", says(answer(b"new")))
    for _ in range(2):
        assert (await gateway.invoke("e")).body == b"new"
    gateway.route("e", status="Failed")
    assert (await gateway.invoke("e")).status == 400


@pytest.mark.parametrize("status", ["Updating", "RollingBack", "SystemUpdating"])
async def test_an_update_slows_nobody_down(gateway: Gateway, status: str) -> None:
    container = await gateway.serve("e", says(ANSWER))
    gateway.route("e", variant(container), status=status)
    await warm(gateway)


async def test_what_a_balancer_on_the_way_adds_needs_no_signature(gateway: Gateway) -> None:
    await gateway.serve("e", says(ANSWER))
    await warm(gateway)
    before = taken(gateway)
    raw = gateway.signed("/endpoints/e/invocations", b"{}")
    traced = raw.replace(b"\r\n\r\n", b"\r\nX-Amzn-Trace-Id: Root=1-67891233-abcdef012345678912345678\r\n\r\n", 1)
    assert (await gateway.send(traced)).status == 200
    assert taken(gateway) == before + 1


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.replace(b"{}", b"[]"),
        lambda raw: re.sub(rb"Signature=(.)", lambda found: b"Signature=" + (b"1" if found[1] == b"0" else b"0"), raw),
        lambda raw: raw.replace(b"/e/", b"/f/"),
        lambda raw: re.sub(rb"X-Amz-Date: \d{4}", b"X-Amz-Date: 2001", raw),
        lambda raw: raw.replace(b"\r\n\r\n", b"\r\nX-Amz-Target: other\r\n\r\n"),
        lambda raw: raw.replace(b"X-Amz-Date", b"X-Amz-Other"),
        lambda raw: raw.replace(b"Host: 127", b"Host: 128"),
        lambda raw: raw.replace(b"\r\n\r\n", b"\r\nX-Amz-Security-Token: token\r\n\r\n"),
        lambda raw: raw.replace(b"\r\n\r\n", b"\r\nX-Amz-Content-Sha256: " + b"0" * 64 + b"\r\n\r\n"),
    ],
)
async def test_a_tampered_request_is_refused_as_on_the_long_way(tmp_path: Path, change: object) -> None:
    assert callable(change)
    replies = []
    for name, shortcut in (("short", True), ("long", False)):
        (tmp_path / name).mkdir()
        async with running(tmp_path / name, shortcut=shortcut) as gateway:
            await gateway.serve("e", says(ANSWER))
            await gateway.serve("f", says(ANSWER))
            for _ in range(2):
                await gateway.invoke("e")
                await gateway.invoke("f")
            before = taken(gateway) if shortcut else 0
            replies.append(await gateway.send(change(gateway.signed("/endpoints/e/invocations", b"{}"))))
            assert not shortcut or taken(gateway) == before
    assert replies[0].status == replies[1].status >= 400
    assert replies[0].headers["x-amzn-errortype"] == replies[1].headers["x-amzn-errortype"]


# -- what turns out not to be plain ------------------------------------------------------------------------------------


@dataclass
class Pair:
    """Two gateways in front of the same containers."""

    short: Gateway
    long: Gateway

    async def both(self, raw: bytes) -> tuple[list[bytes], list[bytes]]:
        """Send the same bytes to each; give what each answers, but for what is of its time."""
        said = []
        for gateway in (self.short, self.long):
            reader, writer = await gateway.connect()
            writer.write(raw)
            answer = await reader.read(1)  # an end that comes before it would close the connection
            writer.write_eof()
            said.append(_timeless(answer + await reader.read()))
            writer.close()
        return said[0], said[1]


def _timeless(raw: bytes) -> list[bytes]:
    ids = re.sub(rb"(?i)(requestid: |RequestId\": \")[0-9a-f-]{36}", rb"\1", raw)
    return re.sub(rb"dur=[0-9.]+", b"dur=", ids).splitlines()


@contextlib.asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[Pair]:
    for name in ("short", "long"):
        (folder / name).mkdir(exist_ok=True)
    async with running(folder / "short") as one, running(folder / "long", shortcut=False) as other:
        for gateway in (one, other):
            gateway.state.verifier = None  # so that both may get the same bytes at any time
        one.door.short = short.way(one.state)
        yield Pair(one, other)


ANSWERS = {
    "plain": ANSWER,
    "empty": answer(b""),
    "attributes": answer(b"x", headers=b"X-Amzn-SageMaker-Custom-Attributes: a=b\r\nServer: me\r\n"),
    "odd case": b"HTTP/1.1 200 Fine\r\ncontent-TYPE: text/x\r\ncontent-length: 2\r\n\r\nok",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "until the end": b"HTTP/1.0 200 OK\r\n\r\nok",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "created": answer(b"x", b"201 Created"),
    "an error": answer(b"bad", b"400 Bad Request"),
    "a failure": answer(b"worse", b"500 Internal Server Error"),
    "a session": answer(b"s", headers=b"X-Amzn-SageMaker-New-Session-Id: s1; Expires=2030-01-01T00:00:00Z\r\n"),
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "too much": answer(b"ok") + b"and more",
    "closing": answer(b"ok", headers=b"Connection: close\r\n"),
    "no answer": b"nonsense\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"ok"),
}


@pytest.mark.parametrize("cut", [0, 20, -1], ids=["whole", "cut in the head", "cut in the body"])
@pytest.mark.parametrize("raw", ANSWERS.values(), ids=ANSWERS.keys())
async def test_every_answer_reaches_the_client_as_on_the_long_way(tmp_path: Path, raw: bytes, cut: int) -> None:
    async with pair(tmp_path) as both:
        current = ANSWER

        async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(current[:cut])
            await writer.drain()
            if cut and current is raw:
                await asyncio.sleep(0.02)
            writer.write(current[cut:])
            if b"1.0" in current or b"close" in current:
                await writer.drain()
                writer.close()

        container = await both.short.container(script)
        both.short.route("e", variant(container))
        both.long.route("e", variant(container))
        request = b"POST /endpoints/e/invocations HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"
        await both.both(request)
        current = raw
        one, other = await both.both(request)
        assert taken(both.short) == 1
        assert one == other
        assert both.short.state.load == both.long.state.load == {}


async def test_one_that_breaks_off_in_the_middle_breaks_off_for_the_client(gateway: Gateway) -> None:
    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"half" not in request:
            writer.write(ANSWER)
            return
        writer.write(ANSWER[:-3])
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.transport.abort()

    await gateway.serve("e", script)
    await warm(gateway)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await gateway.invoke("e", b"half")
    assert taken(gateway) == 2
    assert gateway.state.load == gateway.state.deadlines == {}
    counted = {point.series.name: point.statistics for point in gateway.state.meter.take()}
    assert counted["Invocation5XXErrors"].sum == 1


async def test_a_slow_reader_holds_up_the_container_and_gets_everything(gateway: Gateway) -> None:
    body = b"x" * 5_000_000

    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(body if b"large" in request else b"ok"))
        await writer.drain()

    await gateway.serve("e", script)
    await warm(gateway)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=8192)
    writer.write(gateway.signed("/endpoints/e/invocations", b"large"))
    await wait_for(lambda: taken(gateway) == 2)
    [connection] = [each for each in gateway.door._connections if not each.idle]
    await wait_until_still(lambda: connection.unsent)
    assert connection.unsent < 1_000_000
    assert (await read_reply(reader)).body == body
    writer.close()


async def test_an_answer_in_pieces_goes_through(gateway: Gateway) -> None:
    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in (ANSWER[:9], ANSWER[9:40], ANSWER[40:]):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)

    await gateway.serve("e", script)
    await gateway.invoke("e")
    for _ in range(3):
        assert (await gateway.invoke("e")).body == b'{"ok": true}'
    assert taken(gateway) == 3


async def test_a_container_that_dies_is_answered_for_by_another(gateway: Gateway) -> None:
    dying = False

    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if dying:
            writer.transport.abort()
        else:
            writer.write(ANSWER)

    one, other = await gateway.container(script), await gateway.container(says(answer(b"other")))
    gateway.route("e", variant(one))
    await warm(gateway)
    gateway.route("e", variant(one, other))
    dying = True
    before = taken(gateway)
    for _ in range(6):
        assert (await gateway.invoke("e")).status == 200
    assert taken(gateway) > before
    assert gateway.state.load == {}


async def test_one_that_takes_too_long_times_out(gateway: Gateway) -> None:
    slow = asyncio.Event()

    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"slow" in request:
            await slow.wait()
        writer.write(ANSWER)

    await gateway.serve("e", script)
    await warm(gateway)
    asking = asyncio.create_task(gateway.invoke("e", b"slow"))
    await wait_for(lambda: taken(gateway) == 2)
    gateway.state.deadlines = dict.fromkeys(gateway.state.deadlines, 0.0)
    [late] = gateway.state.deadlines
    late.time_out()
    reply = await asking
    assert reply.status == 424
    assert b"timed out" in reply.body
    assert gateway.state.load == {}
    slow.set()


async def test_a_client_that_leaves_lets_go_of_everything(gateway: Gateway) -> None:
    waiting = asyncio.Event()

    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"slow" in request:
            await waiting.wait()
        writer.write(ANSWER)

    await gateway.serve("e", script)
    await warm(gateway)
    _, writer = await gateway.connect()
    writer.write(gateway.signed("/endpoints/e/invocations", b"slow"))
    await wait_for(lambda: gateway.state.load)
    assert taken(gateway) == 2
    writer.transport.abort()
    await wait_for(lambda: not gateway.state.load and not gateway.state.deadlines)
    waiting.set()
    assert (await gateway.invoke("e")).status == 200


async def test_requests_sent_ahead_are_answered_in_order(gateway: Gateway) -> None:
    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02)
        writer.write(answer(request[-1:]))

    await gateway.serve("e", script)
    await gateway.invoke("e")
    reader, writer = await gateway.connect()
    for number in b"123":
        writer.write(gateway.signed("/endpoints/e/invocations", bytes([number])))
        await asyncio.sleep(0.005)
    assert [(await read_reply(reader)).body for _ in range(3)] == [b"1", b"2", b"3"]
    assert taken(gateway) >= 1
    writer.close()


async def test_a_client_that_half_closes_is_answered(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HALF_CLOSED", 60.0)

    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        writer.write(ANSWER)

    await gateway.serve("e", script)
    await gateway.invoke("e")
    reader, writer = await gateway.connect()
    writer.write(gateway.signed("/endpoints/e/invocations", b"{}"))
    await wait_for(lambda: taken(gateway))
    writer.write_eof()
    assert (await read_reply(reader)).status == 200
    assert await reader.read() == b""
    writer.close()
