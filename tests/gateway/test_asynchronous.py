"""InvokeEndpointAsync: what is refused at once, what is handed to the control plane, and what the caller is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from clary.core.asynchronous import AsyncRequest
from clary.core.routing import AsyncInference, EndpointRoute, VariantRoute
from clary.gateway import deferrals
from tests.gateway.conftest import Gateway, Reply, answer, says, wait_for

CONFIG = AsyncInference(
    "q", "s3://b/out", "s3://b/failed", success_topic="arn:ok", error_topic="arn:bad", include_error=True
)


@dataclass
class Control:
    """A control plane that keeps what it is handed, or does as it is told."""

    batches: list[list[tuple[AsyncRequest, bytes]]] = field(default_factory=list)
    full: bool = False
    status: int = 200
    deaf: bool = False
    held: asyncio.Event | None = None
    runner: web.AppRunner | None = None

    async def take(self, request: web.Request) -> web.StreamResponse:
        document: Any = await request.json()
        self.batches.append([(AsyncRequest(**each), b64decode(body)) for each, body in document])
        if self.held is not None:
            await self.held.wait()
        if self.deaf:
            assert request.transport is not None
            request.transport.abort()
        if self.status != 200:
            return web.Response(status=self.status, text="cannot")
        return web.json_response([not self.full] * len(document))

    @property
    def requests(self) -> list[AsyncRequest]:
        return [request for batch in self.batches for request, _ in batch]

    async def start(self, socket: Path) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/_clary/async", self.take)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.UnixSite(self.runner, str(socket)).start()

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()


@pytest.fixture
async def control(gateway: Gateway) -> AsyncIterator[Control]:
    variant = VariantRoute("v", 1.0, (), role_arn="arn:r")
    gateway.put(EndpointRoute("later", "InService", (variant,), asynchronous=CONFIG))
    found = Control()
    await found.start(gateway.state.control_socket)
    following = asyncio.create_task(gateway.state.deferrals.follow())
    yield found
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following
    await found.stop()


async def send(gateway: Gateway, body: bytes = b"", name: str = "later", **members: str) -> Reply:
    headers = {f"X-Amzn-SageMaker-{member.replace('_', '-')}": value for member, value in members.items()}
    return await gateway.send(gateway.signed(f"/endpoints/{name}/async-invocations", body, headers))


def refusal(reply: Reply) -> str:
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (400, "ValidationError"), reply
    return str(json.loads(reply.body)["Message"])


async def test_a_request_is_acknowledged_when_the_control_plane_has_it(gateway: Gateway, control: Control) -> None:
    reply = await send(
        gateway,
        InputLocation="s3://b/in",
        Content_Type="text/csv",
        Accept="application/json",
        Custom_Attributes="c000",
        Inference_Id="mine",
        RequestTTLSeconds="60",
        InvocationTimeoutSeconds="3600",
        S3OutputPathExtension="a/b",
        Filename="x.json",
    )
    assert reply.status == 202
    assert json.loads(reply.body) == {"InferenceId": "mine"}
    assert reply.headers["x-amzn-sagemaker-outputlocation"] == "s3://b/out/a/b/x.json"
    assert reply.headers["x-amzn-sagemaker-failurelocation"] == "s3://b/failed/a/b/x-error.json"
    (request,) = control.requests
    assert request.expires_at - request.accepted_at == pytest.approx(60)
    assert replace(request, id="", accepted_at=0.0, expires_at=0.0) == AsyncRequest(
        id="", queue="q", endpoint="later", inference_id="mine", accepted_at=0.0, expires_at=0.0, timeout=3600.0,
        output_location="s3://b/out/a/b/x.json", failure_location="s3://b/failed/a/b/x-error.json",
        input_location="s3://b/in", content_type="text/csv", accept="application/json", custom_attributes="c000",
        success_topic="arn:ok", error_topic="arn:bad", include_error=True, role_arn="arn:r",
    )  # fmt: skip


async def test_what_is_not_given_is_as_at_the_service(gateway: Gateway, control: Control) -> None:
    reply = await send(gateway, b"inline")
    ((request, body),) = control.batches[0]
    assert body == b"inline"
    assert (request.timeout, round(request.expires_at - request.accepted_at)) == (900.0, 21_600)
    assert json.loads(reply.body) == {"InferenceId": request.inference_id}
    assert request.inference_id != request.id
    assert reply.headers["x-amzn-sagemaker-outputlocation"] == f"s3://b/out/{request.id}.out"
    assert reply.headers["x-amzn-sagemaker-failurelocation"] == f"s3://b/failed/{request.id}-error.out"


async def test_without_a_failure_path_no_failure_location_is_told(gateway: Gateway, control: Control) -> None:
    config = replace(CONFIG, failure_path="")
    gateway.put(EndpointRoute("later", "InService", (), asynchronous=config))
    assert "x-amzn-sagemaker-failurelocation" not in (await send(gateway, b"x")).headers


async def test_an_endpoint_without_instances_takes_requests(gateway: Gateway, control: Control) -> None:
    assert (await send(gateway, b"x")).status == 202


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"RequestTTLSeconds": "59"}, "at 'requestTTLSeconds' failed to satisfy constraint: Member must have value gr"),
        ({"RequestTTLSeconds": "21601"}, "Member must have value less than or equal to 21600"),
        ({"RequestTTLSeconds": "soon"}, "RequestTTLSeconds must be an integer"),
        ({"InvocationTimeoutSeconds": "0"}, "Member must have value greater than or equal to 1"),
        ({"InvocationTimeoutSeconds": "3601"}, "Member must have value less than or equal to 3600"),
        ({"Inference_Id": "x" * 65}, "at 'inferenceId' failed to satisfy constraint"),
        ({"InputLocation": "http://b/k"}, "at 'inputLocation' failed to satisfy constraint"),
        ({"Filename": "a.b.c"}, "at 'filename' failed to satisfy constraint"),
        ({"S3OutputPathExtension": "s3://b"}, "at 's3OutputPathExtension' failed to satisfy constraint"),
        ({"S3OutputPathExtension": "../up"}, "empty or dots"),
        ({}, "Specify either InputLocation or Body, and not both."),
    ],
    ids=str,
)
async def test_what_breaks_a_constraint_is_refused(
    gateway: Gateway, control: Control, members: dict[str, str], words: str
) -> None:
    given = {"InputLocation": "s3://b/k", **members} if members else {}
    assert words in refusal(await send(gateway, **given))
    assert control.batches == []


async def test_a_body_and_a_location_together_and_a_body_that_is_too_large_are_refused(
    gateway: Gateway, control: Control
) -> None:
    assert "not both" in refusal(await send(gateway, b"x", InputLocation="s3://b/k"))
    assert (await send(gateway, b"x" * 128_000)).status == 202
    assert "at 'body' failed to satisfy constraint" in refusal(await send(gateway, b"x" * 128_001))


async def test_the_two_kinds_of_endpoints_are_told_apart(gateway: Gateway, control: Control) -> None:
    await gateway.serve("now", says(answer(b"{}")))
    assert refusal(await send(gateway, b"x", name="now")).startswith("Endpoint now is not an asynchronous endpoint")
    for suffix in ("invocations", "invocations-response-stream"):
        reply = await gateway.send(gateway.signed(f"/endpoints/later/{suffix}", b"x"))
        assert refusal(reply).startswith("Endpoint later is an asynchronous endpoint")
    assert refusal(await send(gateway, b"x", name="none")) == "Endpoint none of account 123456789012 not found."


async def test_who_has_not_signed_is_refused(gateway: Gateway, control: Control) -> None:
    raw = gateway.signed("/endpoints/later/async-invocations", b"x", secret="wrong")
    reply = await gateway.send(raw)
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (403, "InvalidSignatureException")
    assert control.batches == []


async def test_a_full_queue_is_503_in_plain_words(gateway: Gateway, control: Control) -> None:
    control.full = True
    reply = await send(gateway, b"x")
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (503, "ServiceUnavailable")
    assert json.loads(reply.body)["Message"].startswith("The queue of endpoint later is full.")


async def test_what_comes_while_a_batch_is_under_way_makes_the_next_one(gateway: Gateway, control: Control) -> None:
    control.held = asyncio.Event()
    first = asyncio.create_task(send(gateway, b"0"))
    await wait_for(lambda: control.batches)
    rest = [asyncio.create_task(send(gateway, b"%d" % n)) for n in range(1, 20)]
    await wait_for(lambda: len(gateway.state.deferrals._waiting) == 19)
    assert len(control.batches) == 1
    control.held.set()
    assert {reply.status for reply in await asyncio.gather(first, *rest)} == {202}
    assert [len(batch) for batch in control.batches] == [1, 19]


async def test_a_batch_whose_answer_is_lost_is_sent_again_as_it_was(gateway: Gateway, control: Control) -> None:
    control.deaf = True
    sending = asyncio.create_task(send(gateway, b"x"))
    await wait_for(lambda: len(control.batches) >= 2)
    control.deaf = False
    assert (await sending).status == 202
    assert len({request.id for request in control.requests}) == 1


async def test_a_request_waits_for_a_control_plane_that_is_being_restarted(gateway: Gateway, control: Control) -> None:
    await control.stop()
    sending = asyncio.create_task(send(gateway, b"x"))
    await asyncio.sleep(0.2)
    assert not sending.done()
    await control.start(gateway.state.control_socket)
    assert (await sending).status == 202


@pytest.mark.parametrize("trouble", ["away", "defect"])
async def test_a_control_plane_that_does_not_take_it_is_503_in_the_end(
    gateway: Gateway, control: Control, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(deferrals, "PATIENCE", 0.2)
    if trouble == "away":
        await control.stop()
    else:
        control.status = 500
    reply = await send(gateway, b"x")
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (503, "ServiceUnavailable")
    assert "may be kept" in json.loads(reply.body)["Message"]


async def test_a_client_that_leaves_takes_nobody_with_it(gateway: Gateway, control: Control) -> None:
    control.held = asyncio.Event()
    _, writer = await gateway.connect()
    writer.write(gateway.signed("/endpoints/later/async-invocations", b"x"))
    await wait_for(lambda: control.batches)
    writer.close()
    control.held.set()
    assert (await send(gateway, b"y")).status == 202
