"""Whatever happens to requests, their places are given back."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from clary.core.routing import EndpointRoute, VariantRoute
from clary.gateway.admission import Admission
from tests.gateway.conftest import Gateway, Script, answer, pipeline, read_reply, variant, wait_for
from tests.wire.test_bearer import token


def moody(chance: random.Random) -> Script:
    """Make a container that does everything that containers do."""

    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mood = chance.random()
        if mood < 0.5:
            writer.write(answer(b"ok"))
        elif mood < 0.6:
            writer.write(answer(b"no", b"500 Oops"))
        elif mood < 0.7:
            writer.close()
        elif mood < 0.8:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
            await writer.drain()
            writer.close()
        elif mood < 0.9:
            await asyncio.sleep(0.02)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n")
            writer.close()
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
            await reader.read()  # and nothing more, until the gateway gives up

    return script


async def one(gateway: Gateway, chance: random.Random, bearer: bytes) -> None:
    """Send a request of some kind, and leave before the answer now and then."""
    reader, writer = await gateway.connect()
    with contextlib.suppress(
        ConnectionError, asyncio.IncompleteReadError, TimeoutError, ValueError
    ):  # cut off, or late
        name = chance.choice(("single", "serial", "gone"))
        kind = chance.choice(("invocations", "invocations-response-stream", "openai/v1/chat/completions"))
        if kind.startswith("openai"):
            path = f"/endpoints/{name}/{kind}".encode()
            writer.write(b"POST %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % (path, bearer))
            writer.write(b"Content-Length: 2\r\n\r\n{}")
        else:
            writer.write(gateway.signed(f"/endpoints/{name}/{kind}", b"{}"))
        async with asyncio.timeout(chance.choice((0.01, 0.05, 5))):
            await read_reply(reader)
    writer.close()


@pytest.mark.parametrize("seed", range(3))
async def test_after_every_kind_of_end_nothing_is_left_over(gateway: Gateway, seed: int) -> None:
    chance, state = random.Random(seed), gateway.state
    state.model_timeout = state.stream_timeout = 0.2
    state.admission = Admission(3, 5)
    containers = [await gateway.container(moody(chance)) for _ in range(8)]
    dark = VariantRoute("dark", 1.0, variant(containers[7]).targets)
    gateway.put(EndpointRoute("single", "InService", (variant(*containers[:3]),), (dark,)))
    gateway.put(EndpointRoute("serial", "InService", (pipeline(*containers[3:6]),), (dark,)))
    bearer = token()
    for _ in range(8):
        await asyncio.gather(*(one(gateway, chance, bearer) for _ in range(20)))

    def settled() -> bool:
        return not (state.load or state.deadlines or state.stream_deadlines or state.shadows_under_way)

    await wait_for(settled)
    assert (state.admission._busy, state.admission._lines) == ({}, {})
