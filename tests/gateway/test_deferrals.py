"""Asynchronous requests that wait for the control plane: how many, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from clary.core.asynchronous import AsyncRequest
from clary.errors import AwsError
from clary.gateway import deferrals
from clary.gateway.deferrals import PATH, Deferrals


def request(id: str) -> AsyncRequest:
    return AsyncRequest(id, "q", "e", "", accepted_at=0.0, expires_at=1e12, timeout=60.0, output_location="s3://b/o")


@contextlib.asynccontextmanager
async def following(waiting: Deferrals) -> AsyncIterator[None]:
    task = asyncio.create_task(waiting.follow())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def control(socket: Path, batches: list[int]) -> AsyncIterator[None]:
    async def take(asked: web.Request) -> web.Response:
        document = await asked.json()
        batches.append(len(document))
        return web.json_response([True] * len(document))

    app = web.Application()
    app.router.add_post(PATH, take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def test_what_comes_together_is_kept_together(tmp_path: Path) -> None:
    waiting, batches = Deferrals(tmp_path / "s"), list[int]()
    async with control(tmp_path / "s", batches), following(waiting):
        await asyncio.gather(*(waiting.add(request(str(n)), b"x") for n in range(50)))
    assert sum(batches) == 50
    assert len(batches) < 50


async def test_nobody_waits_longer_for_those_before_him(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferrals, "PATIENCE", 0.3)
    monkeypatch.setattr(deferrals, "MOST", 1)  # so that each is a batch of its own
    waiting, loop = Deferrals(tmp_path / "nobody"), asyncio.get_running_loop()
    async with following(waiting):
        begun = loop.time()
        ends = await asyncio.gather(*(waiting.add(request(str(n)), b"") for n in range(8)), return_exceptions=True)
    assert all(isinstance(end, AwsError) and end.status == 503 for end in ends)
    assert loop.time() - begun < 8 * 0.3


async def test_what_waits_is_bounded_and_the_bound_is_for_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferrals, "MOST_WAITING", 100)
    waiting, batches = Deferrals(tmp_path / "s"), list[int]()
    first = asyncio.create_task(waiting.add(request("1"), b"x" * 80))
    await asyncio.sleep(0)
    with pytest.raises(AwsError, match="was not kept") as refused:
        await waiting.add(request("2"), b"x" * 80)
    assert refused.value.status == 503
    async with control(tmp_path / "s", batches), following(waiting):
        await first
        await waiting.add(request("3"), b"x" * 80)
    assert batches == [1, 1]
