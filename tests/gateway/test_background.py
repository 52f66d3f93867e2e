"""Work in the background goes on, whatever happens."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web

from clary.core.routing import RouteTable
from clary.gateway import background, routes
from clary.gateway.background import forever
from clary.gateway.routes import RouteFeed
from tests.gateway.conftest import Gateway, wait_for


async def test_work_that_fails_is_begun_anew_and_ends_when_it_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "PAUSE", 0.0)
    begun = 0

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise RuntimeError("a defect")
        await asyncio.Event().wait()

    task = asyncio.create_task(forever("work", work))
    await wait_for(lambda: begun == 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_fails_to_time_out_does_not_keep_others_from_it(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "PAUSE", 0.0)

    class Late:
        def __init__(self, failure: Exception | None) -> None:
            self.failure = failure
            self.told = False

        def time_out(self) -> None:
            self.told = True
            if self.failure is not None:
                raise self.failure

    bad, good = Late(RuntimeError("a defect")), Late(None)
    gateway.deadlines.cancel()
    task = asyncio.create_task(forever("deadlines", gateway.state.watch_deadlines))
    gateway.state.deadlines.update({bad: 0.0, good: 0.0})
    await wait_for(lambda: good.told)
    assert bad.told
    task.cancel()


async def test_a_table_that_cannot_be_read_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "RECONNECT", 0.0)
    sent = [b"[]\n", b"null\n", b"{\n", json.dumps(RouteTable(7, {}).to_json()).encode() + b"\n"]

    async def answers(request: web.BaseRequest) -> web.Response:
        return web.Response(body=sent.pop(0) if sent else b"")

    runner = web.ServerRunner(web.Server(answers))
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "control.sock")).start()
    feed = RouteFeed(tmp_path / "routes.json", tmp_path / "control.sock")
    task = asyncio.create_task(feed.follow())
    await wait_for(lambda: feed.table.revision == 7 or task.done())
    assert feed.table.revision == 7
    task.cancel()
    await runner.cleanup()
