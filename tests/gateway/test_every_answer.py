"""On connections that stay open, each answer is to its own request, whatever containers and the control plane say."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import Gateway, Script, answer, read_reply, running, variant
from tests.gateway.test_multi_model import assert_nothing_is_left, controlled, held, many, tell


def moody(chance: random.Random) -> Script:
    """Make a container that gives back what it is sent in all the ways of HTTP, or fails."""

    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = request.partition(b"\r\n\r\n")[2]
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        match chance.randrange(16):
            case 0:
                writer.write(answer(b"no", b"500 Oops"))
            case 1:
                writer.write(answer(b"no such model", b"404 Not Found"))
            case 2:
                writer.write(answer(b"no memory", b"507 Insufficient Storage"))
            case 3:
                writer.close()
            case 4:
                writer.write(head + body[:1])
                await writer.drain()
                writer.write(body[1:])
            case 5:
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + body)
                writer.close()
            case 6:
                writer.write(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
                )
            case 7:
                writer.write(head + body + b"and more")
            case _:
                writer.write(head + body)

    return script


async def client(gateway: Gateway, chance: random.Random, numbers: count[int]) -> None:
    """Send requests, several ahead now and then, and look at what comes back."""
    reader, writer = await gateway.connect()
    for _ in range(30):
        bodies = [b"%d" % next(numbers) for _ in range(chance.choice((1, 1, 1, 4)))]
        for body in bodies:
            name = chance.choice(("one", "two", "e"))
            named = {"X_Amzn_SageMaker_Target_Model": chance.choice("ab")} if name == "e" else {}
            writer.write(gateway.signed(f"/endpoints/{name}/invocations", body, named))
        for body in bodies:
            reply = await asyncio.wait_for(read_reply(reader), 60)
            assert (reply.status, reply.body) == (200, body) or reply.status == 424
    writer.close()


@pytest.fixture(params=[True, False], ids=["short way", "long way"])
async def either(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    async with running(tmp_path, shortcut=request.param) as started:
        yield started


@pytest.mark.parametrize("seed", range(3))
async def test_every_answer_is_to_its_own_request(either: Gateway, seed: int) -> None:
    chance, numbers = random.Random(seed), count(1)
    containers = [await either.container(moody(chance)) for _ in range(2)]
    either.route("one", variant(containers[0]))
    either.route("two", variant(*containers))
    _, made = await many(either, moody(chance), moody(chance))

    async def say(question: Mapping[str, Any]) -> Mapping[str, Any]:
        if question["do"] == "load":
            found = held(made, question["wish"][2], chance.randrange(2), next(numbers))
            tell(either, found)
            return {"held": found}
        return {"held": chance.random() < 0.5}

    async with controlled(either) as control:
        control.answer = say
        async with asyncio.TaskGroup() as clients:
            for _ in range(4):
                clients.create_task(client(either, chance, numbers))
        assert_nothing_is_left(either)
