from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from pathlib import Path

from clary.controllers.routes import Routes
from clary.core.routing import EndpointRoute, Hop, RouteTable, Target, VariantRoute
from clary.testing import in_virtual_time, now


def route(name: str, *ids: str) -> EndpointRoute:
    targets = tuple(Target(id, (Hop(id, "127.0.0.1", 9000),)) for id in ids)
    return EndpointRoute(name, "InService", (VariantRoute("blue", 1.0, targets),))


@in_virtual_time
async def test_nothing_is_published_before_it_is_open() -> None:
    routes = Routes()
    routes.put("ep", route("ep", "a"))
    first = asyncio.ensure_future(anext(routes.subscribe()))
    await asyncio.sleep(100)
    assert not first.done()
    routes.open()
    assert json.loads(await first)["endpoints"]["ep"]["variants"][0]["targets"] == [
        ["a", [["a", "127.0.0.1", 9000, "primary"]]]
    ]


@in_virtual_time
async def test_who_waits_for_a_newer_table_gets_it_once_it_is_there() -> None:
    routes = Routes()
    waiting = asyncio.ensure_future(routes.newer(-1))
    await asyncio.sleep(100)
    assert not waiting.done()
    routes.open()
    table = await waiting
    again = asyncio.ensure_future(routes.newer(table.revision))
    await asyncio.sleep(100)
    assert not again.done()
    routes.put("ep", route("ep", "a"))
    assert (await again).endpoints.keys() == {"ep"}


@in_virtual_time
async def test_a_subscriber_gets_the_newest_table_and_skips_what_it_was_too_slow_for() -> None:
    routes = Routes()
    routes.open()
    async with aclosing(routes.subscribe()) as lines:
        assert json.loads(await anext(lines))["endpoints"] == {}
        for number in range(5):
            routes.put("ep", route("ep", f"c{number}"))
        newest = json.loads(await anext(lines))
        assert newest["revision"] == routes.table.revision == 6
        waiting = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(1)
        assert not waiting.done()
        routes.put("ep", route("ep", "c4"))  # as before: no news
        await asyncio.sleep(1)
        assert not waiting.done()
        routes.put("ep", None)
        line = await waiting
        assert line.endswith(b"\n")
        assert json.loads(line)["endpoints"] == {}


@in_virtual_time
async def test_delivered_waits_for_every_subscriber_but_not_for_one_that_hangs() -> None:
    routes = Routes()
    routes.open()
    lines = routes.subscribe()
    await anext(lines)
    task = asyncio.ensure_future(anext(lines))
    await asyncio.sleep(0)
    start = now()
    await routes.delivered()
    assert now() == start
    routes.put("ep", route("ep"))
    await task  # handed over, but the reader has not come back: it may still be writing
    waiting = asyncio.ensure_future(routes.delivered())
    await asyncio.sleep(0.2)
    assert not waiting.done()
    task = asyncio.ensure_future(anext(lines))
    await waiting
    assert now() - start < 0.3
    routes.put("ep", None)
    await task
    start = now()
    await routes.delivered()
    assert now() - start == 1.0
    await lines.aclose()
    start = now()
    await routes.delivered()
    assert now() == start


@in_virtual_time
async def test_delivered_waits_for_the_opening() -> None:
    routes = Routes()
    waiting = asyncio.ensure_future(routes.delivered())
    await asyncio.sleep(5)
    assert not waiting.done()
    routes.open()
    await waiting


def test_the_file_is_whole_and_revisions_go_on_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "run" / "routes.json"
    routes = Routes(file)
    routes.put("ep", route("ep", "a"))
    assert not file.exists()
    routes.open()
    routes.put("ep", route("ep", "a", "b"))
    assert RouteTable.from_json(json.loads(file.read_text())) == routes.table
    assert [path.name for path in file.parent.iterdir()] == ["routes.json"]
    again = Routes(file)
    again.open()
    assert again.table.revision == routes.table.revision + 1


def test_a_broken_file_is_no_obstacle(tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    file.write_text('{"revision": ')
    Routes(file).open()
    assert json.loads(file.read_text())["revision"] == 1
