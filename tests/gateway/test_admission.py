"""A limit to the requests that an instance gets at once, and the line before it."""

from __future__ import annotations

import asyncio
import json

import pytest

from clary.errors import AwsError
from clary.gateway.admission import Admission
from tests.gateway.conftest import Container, Gateway, Reply, answer, variant, wait_for


class Gate:
    """A container's script that answers when it is told to, and knows how many requests it has."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._turns = asyncio.Semaphore(0)

    async def __call__(self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self._turns.acquire()
        except asyncio.CancelledError:
            return
        self.now -= 1
        writer.write(answer(request.partition(b"\r\n\r\n")[2]))

    def open(self, times: int = 1) -> None:
        for _ in range(times):
            self._turns.release()


async def limited(gateway: Gateway, limit: int, queue: int, instances: int = 1) -> tuple[Gate, list[Container]]:
    gateway.state.admission = Admission(limit, queue)
    gate = Gate()
    containers = [await gateway.container(gate) for _ in range(instances)]
    gateway.route("demo", variant(*containers))
    return gate, containers


def invoke(gateway: Gateway, body: bytes = b"{}") -> asyncio.Task[Reply]:
    return asyncio.create_task(gateway.invoke("demo", body))


async def test_an_instance_gets_no_more_than_the_limit_and_the_line_keeps_its_order(gateway: Gateway) -> None:
    gate, [container] = await limited(gateway, limit=2, queue=10)
    tasks = []
    for number in range(6):
        tasks.append(invoke(gateway, b"%d" % number))
        await wait_for(lambda count=number: sum(gateway.state.load.values()) == count + 1)
    await wait_for(lambda: gate.now == 2)
    gate.open(6)
    assert [(await task).body for task in tasks] == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert gate.most == 2
    order = [request.partition(b"\r\n\r\n")[2] for request in container.requests]
    assert order == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert gateway.state.load == {}


async def test_a_full_line_is_service_unavailable(gateway: Gateway) -> None:
    gate, _ = await limited(gateway, limit=1, queue=1)
    first = invoke(gateway)
    await wait_for(lambda: gate.now == 1)
    second = invoke(gateway)
    await wait_for(lambda: sum(gateway.state.load.values()) == 2)
    third = await gateway.invoke("demo")
    assert (third.status, third.headers["x-amzn-errortype"]) == (503, "ServiceUnavailable")
    gate.open(2)
    assert [(await task).status for task in (first, second)] == [200, 200]
    assert gateway.state.load == {}


async def test_places_of_all_instances_are_used_before_anybody_waits(gateway: Gateway) -> None:
    gate, _ = await limited(gateway, limit=1, queue=0, instances=3)
    tasks = [invoke(gateway) for _ in range(3)]
    await wait_for(lambda: gate.now == 3)
    assert (await gateway.invoke("demo")).status == 503
    gate.open(3)
    assert {(await task).status for task in tasks} == {200}


async def test_a_client_that_leaves_the_line_is_forgotten(gateway: Gateway) -> None:
    gate, [container] = await limited(gateway, limit=1, queue=1)
    first = invoke(gateway)
    await wait_for(lambda: gate.now == 1)
    _, writer = await gateway.connect()
    writer.write(gateway.signed("/endpoints/demo/invocations", b"gone"))
    await wait_for(lambda: sum(gateway.state.load.values()) == 2)
    writer.close()
    await wait_for(lambda: sum(gateway.state.load.values()) == 1)
    third = invoke(gateway, b"third")
    await wait_for(lambda: sum(gateway.state.load.values()) == 2)
    gate.open(2)
    assert ((await first).status, (await third).body) == (200, b"third")
    assert len(container.requests) == 2


async def test_who_waits_too_long_is_told_so_and_the_model_is_not_blamed(gateway: Gateway) -> None:
    await limited(gateway, limit=1, queue=2)
    tasks, deadlines = [], gateway.state.deadlines
    for number in range(3):
        tasks.append(invoke(gateway))
        await wait_for(lambda count=number: sum(gateway.state.load.values()) == count + 1)
    first, second, third = deadlines
    deadlines[first] = 0.0
    await tasks[0]
    assert list(deadlines) == [third, second]  # the second has got the first one's place, and all of its time
    deadlines[third] = 0.0
    await tasks[2]
    gateway.time_out(deadlines)
    replies = [await task for task in tasks]
    assert [reply.headers["x-amzn-errortype"] for reply in replies] == [
        "ModelError",
        "ModelError",
        "ServiceUnavailable",
    ]
    assert replies[2].status == 503
    assert "had room" in json.loads(replies[2].body)["Message"]
    assert gateway.state.load == {}


async def test_the_wait_is_overhead_and_not_the_models(gateway: Gateway) -> None:
    gate, _ = await limited(gateway, limit=1, queue=1)
    first = invoke(gateway)
    await wait_for(lambda: gate.now == 1)
    second = asyncio.create_task(gateway.invoke("demo", X_Clary_Server_Timing="1"))
    await wait_for(lambda: sum(gateway.state.load.values()) == 2)
    await asyncio.sleep(0.05)
    gate.open(2)
    await first
    timing = dict(part.split(";dur=") for part in (await second).headers["server-timing"].split(", "))
    assert float(timing["queue"]) >= 50
    assert float(timing["overhead"]) >= 50


def test_withdrawing_leaves_no_trace() -> None:
    admission = Admission(1, 1)
    assert admission.take("i")
    admission.wait("i", print)
    admission.withdraw("i", print)
    admission.leave("i")
    assert (admission._busy, admission._lines) == ({}, {})


def test_a_line_of_nothing_is_full() -> None:
    admission = Admission(1, 0)
    assert admission.take("i")
    assert not admission.take("i")
    with pytest.raises(AwsError, match="1 requests are being answered and 0 wait"):
        admission.wait("i", print)
