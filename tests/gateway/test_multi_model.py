"""Requests that name a model, on their way through the gateway, with a control plane that says what it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web

from clary.core.residency import Held, HeldKey, News
from clary.core.routing import EndpointRoute, VariantRoute
from clary.core.target_model import model_id
from clary.gateway import multi_model
from tests.gateway.conftest import Container, Gateway, Reply, answer, says, variant, wait_for

OK = answer(b"ok")


@dataclass
class Control:
    """Answers gateways' questions about models over the control plane's socket."""

    asked: list[Mapping[str, Any]] = field(default_factory=list)
    answer: Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]] | None = None

    async def handle(self, request: web.Request) -> web.Response:
        question = json.loads(await request.read())
        self.asked.append(question)
        assert self.answer is not None, f"nothing was to be asked: {question}"
        return web.json_response(await self.answer(question))

    def loads(self) -> list[str]:
        """Give the models that were asked for."""
        return [question["wish"][2] for question in self.asked if question["do"] == "load"]


@contextlib.asynccontextmanager
async def controlled(gateway: Gateway) -> AsyncIterator[Control]:
    """Run a control plane that says what it is told to."""
    made = Control()
    app = web.Application()
    app.router.add_post("/_clary/models", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(gateway.state.control_socket)).start()
    yield made
    await gateway.state.models.close()
    await runner.cleanup()


@pytest.fixture
async def control(gateway: Gateway) -> AsyncIterator[Control]:
    async with controlled(gateway) as made:
        yield made


async def many(gateway: Gateway, *scripts: Any) -> tuple[list[Container], VariantRoute]:
    """Start instances of a multi-model variant of the endpoint `e`."""
    containers = [await gateway.container(script) for script in scripts]
    made = replace(variant(*containers), multi_model="primary")
    gateway.route("e", made)
    return containers, made


def held(made: VariantRoute, name: str = "m", at: int = 0, number: int = 1) -> Held:
    target = made.targets[at]
    return Held("e", made.name, target.id, target.hops[0].id, model_id(name), number)


def tell(gateway: Gateway, *loaded: Held, drop: tuple[HeldKey, ...] = ()) -> None:
    gateway.state.models._hear(News(all=False, add=loaded, drop=drop))


async def invoke(gateway: Gateway, name: str = "m") -> Reply:
    return await gateway.invoke("e", X_Amzn_SageMaker_Target_Model=name)


def assert_nothing_is_left(gateway: Gateway) -> None:
    state = gateway.state
    assert state.load == state.loading == state.deadlines == {}
    assert state.models._wishes == {}
    assert all(resident.under_way == 0 for resident in state.models._known.values())


@pytest.mark.parametrize("key", ["../m", "/m", "a//m", "a/../m", "./m", "m/", "m\tx"])
async def test_what_can_be_no_key_is_refused_without_the_control_plane(gateway: Gateway, key: str) -> None:
    (container,), _ = await many(gateway, says(OK))
    reply = await invoke(gateway, key)
    assert reply.status == 400
    assert reply.headers["x-amzn-errortype"] == "ValidationError"
    assert not container.requests
    assert_nothing_is_left(gateway)


async def test_a_model_is_named_where_there_are_many_and_nowhere_else(gateway: Gateway) -> None:
    (container,), made = await many(gateway, says(OK))
    reply = await gateway.invoke("e")
    assert (reply.status, b"is missing a target model header" in reply.body) == (400, True)
    gateway.route("e", replace(made, multi_model=""))
    reply = await invoke(gateway)
    assert (reply.status, b"does not support target model header" in reply.body) == (400, True)
    assert not container.requests


async def test_a_loaded_model_is_asked_by_its_own_path_under_the_callers_name(
    gateway: Gateway, control: Control
) -> None:
    (container,), made = await many(gateway, says(OK))
    tell(gateway, held(made, "a/b c.tar.gz"))
    assert (await invoke(gateway, "a/b c.tar.gz")).body == b"ok"
    request = container.requests[0]
    assert request.startswith(b"POST /models/%b/invoke HTTP/1.1\r\n" % model_id("a/b c.tar.gz").encode())
    assert b"\r\nX-Amzn-SageMaker-Target-Model: a/b c.tar.gz\r\n" in request
    assert control.asked == []
    assert_nothing_is_left(gateway)


async def test_all_who_want_a_model_wait_for_one_question_and_get_the_instance_that_has_it(
    gateway: Gateway, control: Control
) -> None:
    containers, made = await many(gateway, says(OK), says(OK))
    loaded = asyncio.Event()

    async def load(question: Mapping[str, Any]) -> Mapping[str, Any]:
        if question["do"] == "load":
            await loaded.wait()
        return {"held": held(made, at=1)}

    control.answer = load
    asking = [asyncio.create_task(invoke(gateway)) for _ in range(5)]
    await wait_for(lambda: len(gateway.state.loading) == 5)
    loaded.set()
    assert [reply.status for reply in await asyncio.gather(*asking)] == [200] * 5
    assert control.loads() == ["m"]
    assert [len(container.requests) for container in containers] == [0, 5]
    points = {point.series.name: point.statistics for point in gateway.state.meter.take()}
    assert points["ModelCacheHit"].sum == 0
    assert points["ModelLoadingWaitTime"].count == 5
    assert_nothing_is_left(gateway)


async def test_what_the_container_says_of_a_model_that_it_does_not_take_is_the_models_error(
    gateway: Gateway, control: Control
) -> None:
    _, made = await many(gateway, says(OK))
    assert made.multi_model

    async def refuse(question: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"said": [500, "it is broken"]}

    control.answer = refuse
    reply = await invoke(gateway)
    body = json.loads(reply.body)
    assert (reply.status, body["OriginalStatusCode"], body["OriginalMessage"]) == (424, 500, "it is broken")
    assert_nothing_is_left(gateway)


async def test_who_has_waited_long_enough_is_told_so_and_the_load_goes_on(
    gateway: Gateway, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, made = await many(gateway, says(OK))
    loaded = asyncio.Event()

    async def load(question: Mapping[str, Any]) -> Mapping[str, Any]:
        await loaded.wait()
        tell(gateway, held(made))
        return {"held": held(made)}

    control.answer = load
    monkeypatch.setattr(multi_model, "WAIT", 0.1)
    reply = await invoke(gateway)
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (429, "ModelNotReadyException")
    loaded.set()
    await wait_for(lambda: gateway.state.models.find("e", made.name, model_id("m")))
    assert (await invoke(gateway)).status == 200
    assert control.loads() == ["m"]
    assert_nothing_is_left(gateway)


async def test_a_caller_that_leaves_waits_no_more(gateway: Gateway, control: Control) -> None:
    (container,), made = await many(gateway, says(OK))
    loaded = asyncio.Event()

    async def load(question: Mapping[str, Any]) -> Mapping[str, Any]:
        await loaded.wait()
        return {"held": held(made)}

    control.answer = load
    _, writer = await gateway.connect()
    writer.write(gateway.signed("/endpoints/e/invocations", b"{}", {"X_Amzn_SageMaker_Target_Model": "m"}))
    await wait_for(lambda: gateway.state.loading)
    writer.transport.abort()
    await wait_for(lambda: not gateway.state.loading)
    loaded.set()
    await wait_for(lambda: gateway.state.models._returns)  # its grant is given back, unused
    assert container.requests == []
    assert_nothing_is_left(gateway)


def gone_then(raw: bytes) -> Any:
    """Make a script that answers 404 once, and then this."""
    answers = iter([answer(b"no such model", b"404 Not Found")])

    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(next(answers, raw))

    return script


async def test_a_model_that_its_container_has_lost_is_loaded_and_asked_again(
    gateway: Gateway, control: Control
) -> None:
    (container,), made = await many(gateway, gone_then(OK))
    tell(gateway, held(made))

    async def reply_to(question: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"held": False} if question["do"] == "doubt" else {"held": held(made, number=2)}

    control.answer = reply_to
    assert (await invoke(gateway)).body == b"ok"
    assert [question["do"] for question in control.asked] == ["doubt", "load"]
    assert len(container.requests) == 2
    assert_nothing_is_left(gateway)


@pytest.mark.parametrize(("status", "reason"), [(404, b"Not Found"), (507, b"Insufficient Storage")])
async def test_what_a_model_that_is_there_refuses_with_is_passed_on_and_not_asked_again(
    gateway: Gateway, control: Control, status: int, reason: bytes
) -> None:
    (container,), made = await many(gateway, says(answer(b"no such row", b"%d %b" % (status, reason))))
    tell(gateway, held(made))

    async def it_is_there(question: Mapping[str, Any]) -> Mapping[str, Any]:
        assert question["spent"] is (status == 507)
        return {"held": True}

    control.answer = it_is_there
    reply = await invoke(gateway)
    assert (reply.status, json.loads(reply.body)["OriginalStatusCode"]) == (424, status)
    assert len(container.requests) == 1
    assert_nothing_is_left(gateway)


async def test_a_model_that_leaves_gets_nothing_new_and_is_let_go_of_after_its_last_answer(
    gateway: Gateway, control: Control
) -> None:
    going_on = asyncio.Event()

    async def slow(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await going_on.wait()
        writer.write(OK)

    containers, made = await many(gateway, slow, says(answer(b"the other")))
    there = held(made)
    tell(gateway, there)
    first = asyncio.create_task(invoke(gateway))
    await wait_for(lambda: containers[0].requests)
    tell(gateway, drop=(there.key,))
    assert gateway.state.models._returns == []

    async def load(question: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"held": held(made, at=1, number=2)}

    control.answer = load
    assert (await invoke(gateway)).body == b"the other"
    going_on.set()
    assert (await first).body == b"ok"
    returned = [(back.key, back.aware) for back in gateway.state.models._returns]
    assert (there.key, True) in returned
    assert_nothing_is_left(gateway)


async def test_while_the_control_plane_is_away_hits_are_answered_and_misses_wait(gateway: Gateway) -> None:
    _, made = await many(gateway, says(OK))
    tell(gateway, held(made))
    missing = asyncio.create_task(invoke(gateway, "other"))
    await wait_for(lambda: gateway.state.loading)
    assert (await invoke(gateway)).status == 200
    assert not missing.done()

    async def load(request: web.Request) -> web.Response:
        return web.json_response({"held": held(made, "other", number=2)})

    app = web.Application()
    app.router.add_post("/_clary/models", load)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(gateway.state.control_socket)).start()
    assert (await missing).status == 200
    await runner.cleanup()
    assert_nothing_is_left(gateway)


async def test_a_shadow_without_the_model_has_it_loaded_once_and_waits_for_nothing(
    gateway: Gateway, control: Control
) -> None:
    _, made = await many(gateway, says(OK))
    shadow = await gateway.container(says(OK))
    copied = replace(variant(shadow, name="S"), multi_model="primary")
    gateway.put(EndpointRoute("e", "InService", (made,), (copied,)))
    tell(gateway, held(made))

    async def still_loading(question: Mapping[str, Any]) -> Mapping[str, Any]:
        return {}

    control.answer = still_loading
    assert (await invoke(gateway)).status == 200
    await wait_for(lambda: control.asked and not gateway.state.models._wishes)
    assert control.loads() == ["m"]
    tell(gateway, Held("e", "S", copied.targets[0].id, copied.targets[0].hops[0].id, model_id("m"), 2))
    assert (await invoke(gateway)).status == 200
    await wait_for(lambda: shadow.requests)
    await wait_for(lambda: not gateway.state.shadows_under_way)
    assert control.loads() == ["m"]
    assert_nothing_is_left(gateway)


async def test_a_model_that_its_container_has_lost_leaves_no_deadline_behind_on_the_short_way(
    gateway: Gateway, control: Control
) -> None:
    lost = False

    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal lost
        writer.write(answer(b"no such model", b"404 Not Found") if lost else OK)
        lost = False

    _, made = await many(gateway, script)
    tell(gateway, held(made))
    for _ in range(2):
        assert (await invoke(gateway)).body == b"ok"
    lost = True

    async def reply_to(question: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"held": held(made, number=2)} if question["do"] == "load" else {"held": False}

    control.answer = reply_to
    assert (await invoke(gateway)).body == b"ok"
    assert control.loads() == ["m"]
    assert_nothing_is_left(gateway)


async def test_what_a_container_without_the_model_said_is_not_told_of_the_one_that_has_it(
    gateway: Gateway, control: Control
) -> None:
    asked, never = 0, asyncio.Event()

    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            await never.wait()
        writer.write(answer(b"no such model", b"404 Not Found"))

    _, made = await many(gateway, script)
    tell(gateway, held(made))

    async def reply_to(question: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"held": held(made, number=2)} if question["do"] == "load" else {"held": False}

    control.answer = reply_to
    asking = asyncio.create_task(invoke(gateway))
    await wait_for(lambda: asked == 2)
    [late] = gateway.state.deadlines
    late.time_out()
    document = json.loads((await asking).body)
    assert (document["OriginalStatusCode"], "timed out" in document["OriginalMessage"]) == (0, True)
    never.set()
