"""The containers' model API, as this side speaks it, against servers that answer as real ones do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from clary.controllers import channels
from clary.controllers.model_api import HttpModelApi, Said, Unreachable
from clary.core.containers import Container
from clary.errors import Transient

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]
PATH = "/opt/ml/models/m/model"


class Server:
    """Answers as it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.handle: Handle = self.nothing
        self.connections: set[object] = set()
        self.site: web.TCPSite | None = None

    async def nothing(self, request: web.Request) -> web.StreamResponse:
        return web.Response()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.connections.add(request.transport)
        self.asked.append((request.method, request.path_qs, await request.text()))
        return await self.handle(request)

    def says(self, status: int, body: str | bytes = b"") -> None:
        async def handle(request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, body=body)

        self.handle = handle


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    yield Server()


@pytest.fixture
async def container(server: Server) -> AsyncIterator[Container]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = server.site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield at(runner.addresses[0][1])
    await runner.cleanup()


def at(port: int) -> Container:
    return Container("c", "e", "v", "i", "d", "running", "127.0.0.1", port, 1.0)


@pytest.fixture
async def api() -> AsyncIterator[HttpModelApi]:
    made = HttpModelApi()
    yield made
    made.close()


async def test_a_load_and_an_unload_are_the_contracts_requests(
    api: HttpModelApi, server: Server, container: Container
) -> None:
    assert await api.load(container, "m", PATH) == Said(200, "")
    assert await api.unload(container, "m") == Said(200, "")
    (method, path, body), unload = server.asked
    assert (method, path, json.loads(body)) == ("POST", "/models", {"model_name": "m", "url": PATH})
    assert unload == ("DELETE", "/models/m", "")
    assert len(server.connections) == 1, "what is asked at once goes over one connection"


@pytest.mark.parametrize("status", [200, 302, 404, 409, 500, 507])
async def test_what_the_container_says_is_given_as_it_is(
    api: HttpModelApi, server: Server, container: Container, status: int
) -> None:
    server.says(status, b"why \xff")
    assert await api.load(container, "m", PATH) == Said(status, "why \ufffd")


async def test_of_a_long_complaint_the_beginning_is_kept(
    api: HttpModelApi, server: Server, container: Container
) -> None:
    server.says(500, b"x" * 200_000)
    said = await api.load(container, "m", PATH)
    assert said.status == 500
    assert 0 < len(said.body) <= 64 * 1024


async def test_only_a_200_means_that_it_is_there(api: HttpModelApi, server: Server, container: Container) -> None:
    assert await api.has(container, "m")
    server.says(404)
    assert not await api.has(container, "m")


async def test_all_pages_of_a_list_are_read(api: HttpModelApi, server: Server, container: Container) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        first = int(request.query.get("next_page_token", 0))
        names = [f"m{number}" for number in range(250)][first : first + 100]
        more = {"nextPageToken": str(first + 100)} if first + 100 < 250 else {}
        return web.json_response({"models": [{"modelName": name, "modelUrl": PATH} for name in names], **more})

    server.handle = page
    assert await api.loaded(container) == [f"m{number}" for number in range(250)]


async def test_a_server_that_pays_no_heed_to_the_token_ends_the_list(
    api: HttpModelApi, server: Server, container: Container
) -> None:
    server.says(200, json.dumps({"models": [{"modelName": "m"}], "nextPageToken": "1"}))
    assert await api.loaded(container) == ["m"]


async def test_tensorflow_servings_list_is_an_object_with_the_names(
    api: HttpModelApi, server: Server, container: Container
) -> None:
    server.says(200, json.dumps({"a": {"model_version_status": []}, "b": {}}))
    assert await api.loaded(container) == ["a", "b"]


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (500, b"{}"), (404, b"")])
async def test_what_is_no_list_may_be_one_later(
    api: HttpModelApi, server: Server, container: Container, status: int, body: bytes
) -> None:
    server.says(status, body)
    with pytest.raises(Transient):
        await api.loaded(container)


async def test_a_container_that_hangs_up_or_does_not_listen_may_answer_later(
    api: HttpModelApi, server: Server, container: Container
) -> None:
    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        await asyncio.sleep(0)
        return web.Response()

    server.handle = hang_up
    with pytest.raises(Transient, match="c: POST /models"):
        await api.load(container, "m", PATH)
    assert len(server.asked) == 1, "and is not asked again: it may have loaded it"
    with pytest.raises(Unreachable):
        await api.unload(at(1), "m")


async def test_a_kept_connection_that_closes_says_nothing_of_the_container(
    api: HttpModelApi, server: Server, container: Container
) -> None:
    kept: list[object] = []

    async def hang_up_on_the_kept(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        if request.transport in kept:
            request.transport.close()
        kept.append(request.transport)
        return web.Response()

    server.handle = hang_up_on_the_kept
    assert (await api.load(container, "m", PATH)).status == 200
    assert (await api.load(container, "n", PATH)).status == 200
    assert [json.loads(body)["model_name"] for _, _, body in server.asked] == ["m", "n", "n"]


async def test_who_ends_because_of_a_model_was_reached(api: HttpModelApi, server: Server, container: Container) -> None:
    async def die(request: web.Request) -> web.StreamResponse:
        assert server.site is not None
        assert request.transport is not None
        await server.site.stop()
        request.transport.close()
        return web.Response()

    await api.unload(container, "m")
    server.handle = die
    with pytest.raises(Transient) as broken:
        await api.load(container, "m", PATH)
    assert not isinstance(broken.value, Unreachable), "that would be no model's fault"


async def test_a_connection_is_not_kept_for_long(
    api: HttpModelApi, server: Server, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "KEPT", 0.0)
    await api.unload(container, "m")
    (transport,) = server.connections
    assert isinstance(transport, asyncio.Transport)
    while not transport.is_closing():  # noqa: ASYNC110 - until the server has heard of it
        await asyncio.sleep(0.001)
    await api.unload(container, "m")
    assert len(server.connections) == 2
