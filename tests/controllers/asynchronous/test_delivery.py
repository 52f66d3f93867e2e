"""One attempt, against containers on real sockets and a store in memory."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest
from aiohttp import web

from clary.controllers.asynchronous import delivery
from clary.controllers.asynchronous.delivery import Delivery, Times
from clary.core.asynchronous import (
    AsyncRequest,
    Broken,
    Completed,
    Failed,
    Invoke,
    Outcome,
    Refused,
    TimedOut,
    Unavailable,
    Unusable,
)
from clary.core.model_error import HOP_LIMIT, LARGEST_BODY
from clary.core.notification import LARGEST_RESPONSE
from clary.core.routing import Hop, Target, VariantRoute
from clary.errors import Fatal, Transient
from clary.objects import Opened

MIB = 1024 * 1024
REQUEST = AsyncRequest(
    "id", "q", "ep", "mine", 0.0, 1e12, 10.0, "s3://b/out/id.out", "s3://b/failed/id-error.out", "s3://b/in"
)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Memory:
    """Objects in a dict; reading and writing fail as they are told."""

    objects: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    open_error: Exception | None = None
    breaks_after: int | None = None
    """Bytes of an object after which reading it fails."""
    break_error: Exception = field(default_factory=lambda: Transient("S3 went away"))
    write_error: Exception | None = None

    async def open(self, url: str, patience: float) -> Opened:
        if self.open_error is not None:
            raise self.open_error
        if url not in self.objects:
            raise Fatal(f"{url}: there is no such object")
        data, content_type = self.objects[url]
        return Opened(len(data), content_type, self._pieces(data))

    async def _pieces(self, data: bytes) -> AsyncIterator[bytes]:
        for at in range(0, len(data), MIB):
            if self.breaks_after is not None and at >= self.breaks_after:
                raise self.break_error
            yield data[at : at + MIB]

    async def write(self, url: str, pieces: AsyncIterator[bytes], content_type: str = "") -> None:
        data = b"".join([piece async for piece in pieces])
        if self.write_error is not None:
            raise self.write_error
        self.objects[url] = (data, content_type)


class Bench:
    """Containers, a store, and attempts at them."""

    def __init__(self) -> None:
        self.store = Memory({"s3://b/in": (b"the input", "text/x-stored")})
        self.refusals: dict[tuple[str, str], str] = {}
        self.delivery = Delivery(self.store, lambda role, action, url: self.refusals.get((role, action)), 64 * MIB)
        self._runners: list[web.AppRunner] = []
        self.seen: list[tuple[dict[str, str], bytes]] = []

    async def container(self, handler: Handler) -> int:
        async def noted(request: web.Request) -> web.StreamResponse:
            self.seen.append((dict(request.headers), await request.read()))
            return await handler(request)

        app = web.Application(client_max_size=1024 * MIB)
        app.router.add_post("/invocations", noted)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        self._runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return int(runner.addresses[0][1])

    async def attempt(self, *ports: int, inline: bytes = b"", request: AsyncRequest = REQUEST) -> tuple[Outcome, Times]:
        names = ["primary"] if len(ports) == 1 else [f"container-{n}" for n in range(1, len(ports) + 1)]
        hops = tuple(Hop(f"c{port}", "127.0.0.1", port, name) for port, name in zip(ports, names, strict=True))
        target = Target("i-1", hops)
        place = Invoke(VariantRoute("v", 1.0, (target,), role_arn="arn:role"), target)
        return await self.delivery.attempt(request, place, inline)

    async def close(self) -> None:
        await self.delivery.close()
        for runner in self._runners:
            await runner.cleanup()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    found = Bench()
    yield found
    await found.close()


def says(body: bytes, status: int = 200, content_type: str = "text/x-answer") -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers={"Content-Type": content_type})

    return handler


async def echo(request: web.Request) -> web.StreamResponse:
    return web.Response(body=await request.read())


async def aborts(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def test_the_object_goes_through_the_container_and_the_answer_becomes_an_object(bench: Bench) -> None:
    port = await bench.container(says(b"answer"))
    outcome, times = await bench.attempt(port)
    assert outcome == Completed("text/x-answer", 200, None)
    assert bench.store.objects["s3://b/out/id.out"] == (b"answer", "text/x-answer")
    ((headers, body),) = bench.seen
    assert body == b"the input"
    assert headers["Content-Type"] == "text/x-stored"
    assert headers["X-Amzn-SageMaker-Inference-Id"] == "mine"
    assert headers["Content-Length"] == "9"
    assert not {"Accept", "User-Agent", "Accept-Encoding", "X-Amzn-SageMaker-Custom-Attributes"} & headers.keys()
    assert times.model > 0


async def test_the_callers_headers_reach_the_container(bench: Bench) -> None:
    port = await bench.container(echo)
    asked = replace(REQUEST, content_type="text/csv", accept="text/html", custom_attributes="c000")
    await bench.attempt(port, request=asked)
    ((headers, _),) = bench.seen
    found = {name: headers[name] for name in ("Content-Type", "Accept", "X-Amzn-SageMaker-Custom-Attributes")}
    assert found == {
        "Content-Type": "text/csv",
        "Accept": "text/html",
        "X-Amzn-SageMaker-Custom-Attributes": "c000",
    }


async def test_a_body_that_came_along_needs_no_object(bench: Bench) -> None:
    port = await bench.container(echo)
    await bench.attempt(port, inline=b"inline", request=replace(REQUEST, input_location=""))
    assert bench.store.objects["s3://b/out/id.out"][0] == b"inline"


async def test_an_empty_input_is_an_input(bench: Bench) -> None:
    bench.store.objects["s3://b/in"] = (b"", "")
    port = await bench.container(echo)
    await bench.attempt(port)
    ((headers, body),) = bench.seen
    assert (headers["Content-Length"], body) == ("0", b"")


@pytest.mark.parametrize("size", [LARGEST_RESPONSE, LARGEST_RESPONSE + 1])
async def test_a_small_answer_is_kept_for_a_notification_that_wants_it(bench: Bench, size: int) -> None:
    port = await bench.container(says(b"x" * size))
    outcome, _ = await bench.attempt(port, request=replace(REQUEST, include_success=True))
    assert isinstance(outcome, Completed)
    assert outcome.body == (b"x" * size if size <= LARGEST_RESPONSE else None)


async def test_large_inputs_and_answers_pass(bench: Bench) -> None:
    bench.store.objects["s3://b/in"] = (b"z" * (9 * MIB), "")
    port = await bench.container(echo)
    outcome, _ = await bench.attempt(port)
    assert isinstance(outcome, Completed)
    assert len(bench.store.objects["s3://b/out/id.out"][0]) == 9 * MIB


# -- pipelines


async def test_each_answer_of_a_pipeline_is_the_next_request_and_accept_is_the_lasts(bench: Bench) -> None:
    first = await bench.container(says(b"one", content_type="text/one; charset=x"))
    second = await bench.container(says(b"two", content_type="text/two"))
    outcome, _ = await bench.attempt(first, second, request=replace(REQUEST, accept="text/html"))
    assert outcome == Completed("text/two")
    (one, _), (two, body) = bench.seen
    assert "Accept" not in one
    assert (two["Accept"], two["Content-Type"], body) == ("text/html", "text/one; charset=x", b"one")


async def test_the_container_of_a_pipeline_that_refuses_is_named(bench: Bench) -> None:
    first = await bench.container(says(b"one"))
    second = await bench.container(says(b"no", status=415))
    outcome, _ = await bench.attempt(first, second)
    assert outcome == Refused("container-2", 415, b"no")
    outcome, _ = await bench.attempt(second, first)
    assert outcome == Refused("container-1", 415, b"no")


async def test_too_much_for_the_next_container_is_said_in_the_services_words(bench: Bench) -> None:
    first = await bench.container(says(b"x" * (HOP_LIMIT + 1)))
    second = await bench.container(echo)
    outcome, _ = await bench.attempt(first, second)
    assert outcome == Unusable(
        "model",
        "Received response from container-1 with status code 200. However, the request payload from container-1 to "
        f"container-2 is {HOP_LIMIT + 1} bytes, which has exceeded the maximum limit of 5 MB.",
    )
    assert len(bench.seen) == 1


# -- what goes wrong in a container


@pytest.mark.parametrize(("size", "kept"), [(10, True), (LARGEST_BODY, True), (LARGEST_BODY + 1, False)])
async def test_an_answer_that_is_not_2xx_is_no_answer(bench: Bench, size: int, kept: bool) -> None:
    port = await bench.container(says(b"e" * size, status=503))
    outcome, _ = await bench.attempt(port)
    assert outcome == Refused("primary", 503, b"e" * size if kept else None)
    assert "s3://b/out/id.out" not in bench.store.objects


async def test_a_redirect_is_not_followed(bench: Bench) -> None:
    port = await bench.container(says(b"", status=302))
    assert (await bench.attempt(port))[0] == Refused("primary", 302, b"")


async def test_a_container_that_hangs_up_is_broken_and_one_that_is_not_there_was_not_reached(bench: Bench) -> None:
    port = await bench.container(aborts)
    assert (await bench.attempt(port))[0] == Broken("primary", reached=True)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    assert (await bench.attempt(port))[0] == Broken("primary", reached=False)


async def test_a_container_that_takes_no_connection_was_not_reached(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "CONNECT_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as busy, contextlib.ExitStack() as stack:
        for _ in range(3):  # what waits to be accepted is as much as may
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(busy.getsockname())
        outcome, _ = await bench.attempt(busy.getsockname()[1])
    assert outcome == Broken("primary", reached=False)


async def test_half_an_answer_leaves_no_object(bench: Bench) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    port = await bench.container(half)
    assert (await bench.attempt(port))[0] == Broken("primary", reached=True)
    assert "s3://b/out/id.out" not in bench.store.objects


async def test_a_container_has_as_long_as_the_request_says(bench: Bench) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    port = await bench.container(slow)
    assert (await bench.attempt(port, request=replace(REQUEST, timeout=0.1)))[0] == TimedOut("primary")


# -- what goes wrong in the store


async def test_an_input_that_is_not_there_is_the_callers_mistake(bench: Bench) -> None:
    port = await bench.container(echo)
    del bench.store.objects["s3://b/in"]
    outcome, _ = await bench.attempt(port)
    assert outcome == Unusable("download", "Failed to download the input: s3://b/in: there is no such object.")
    assert bench.seen == []


async def test_an_input_that_is_too_large_is_refused_before_it_is_read(bench: Bench) -> None:
    port = await bench.container(echo)
    bench.store.objects["s3://b/in"] = (b"x" * (64 * MIB + 1), "")
    outcome, _ = await bench.attempt(port)
    assert isinstance(outcome, Unusable)
    assert outcome.kind == "download"
    assert f"{64 * MIB} at most" in outcome.detail


async def test_a_store_that_is_away_says_nothing_of_the_request(bench: Bench) -> None:
    port = await bench.container(echo)
    bench.store.open_error = Transient("S3 is away")
    assert (await bench.attempt(port))[0] == Unavailable("S3 is away")
    bench.store.open_error, bench.store.write_error = None, Transient("S3 is away")
    assert (await bench.attempt(port))[0] == Unavailable("S3 is away")


async def test_an_input_that_breaks_off_is_not_blamed_on_the_container(bench: Bench) -> None:
    port = await bench.container(echo)
    bench.store.objects["s3://b/in"] = (b"x" * (8 * MIB), "")
    bench.store.breaks_after = 2 * MIB
    assert (await bench.attempt(port))[0] == Unavailable("S3 went away")
    bench.store.break_error = Fatal("it was replaced")
    assert (await bench.attempt(port))[0] == Unusable("download", "Failed to download the input: it was replaced.")


async def test_an_answer_that_nobody_may_write_is_a_failure(bench: Bench) -> None:
    port = await bench.container(echo)
    bench.store.write_error = Fatal("there is no such bucket")
    outcome, _ = await bench.attempt(port)
    assert outcome == Unusable("upload", "Failed to upload the response: there is no such bucket.")


async def test_the_models_role_is_asked_about_both_objects(bench: Bench) -> None:
    port = await bench.container(echo)
    bench.refusals["arn:role", "s3:GetObject"] = "The role may not read it"
    assert (await bench.attempt(port))[0] == Unusable("download", "The role may not read it")
    bench.refusals = {("arn:role", "s3:PutObject"): "The role may not write it"}
    assert (await bench.attempt(port))[0] == Unusable("upload", "The role may not write it")
    assert bench.seen == []
    with pytest.raises(Fatal, match="may not write"):
        await bench.delivery.report(REQUEST, Failed("model", "text", "reason"), "arn:role")


async def test_an_answer_that_is_there_already_is_found_by_its_requests_id_alone(bench: Bench) -> None:
    assert await bench.delivery.found(REQUEST) is None
    bench.store.objects["s3://b/out/id.out"] = (b"answer", "text/x-answer")
    bench.store.objects["s3://b/out/mine.txt"] = (b"of another request", "text/x-answer")
    assert await bench.delivery.found(REQUEST) == Completed("text/x-answer")
    assert await bench.delivery.found(replace(REQUEST, output_location="s3://b/out/mine.txt")) is None
    bench.store.open_error = Transient("away")
    with pytest.raises(Transient):
        await bench.delivery.found(REQUEST)


async def test_a_failure_is_written_down(bench: Bench) -> None:
    await bench.delivery.report(REQUEST, Failed("model", "wörds", "reason"), "arn:role")
    assert bench.store.objects["s3://b/failed/id-error.out"] == ("wörds".encode(), "text/plain; charset=utf-8")
