"""The OpenAI-compatible path, with OpenAI's own client and byte by byte."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from clary.core.identities import Principal
from clary.core.policy import parse
from tests.gateway.conftest import Gateway, Reply, answer, read_reply, says, wait_for
from tests.wire.test_bearer import token

PATH = "/endpoints/demo/openai/v1/chat/completions"
COMPLETION = {
    "id": "c-1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}],
}  # fmt: skip
JSON = b"Content-Type: application/json\r\n"
MESSAGES: Any = [{"role": "user", "content": "hi"}]


def client(gateway: Gateway, key: str | None = None, endpoint: str = "demo") -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"http://127.0.0.1:{gateway.port}/endpoints/{endpoint}/openai/v1",
        api_key=key or token().decode(),
        max_retries=0,
    )


def ask(made: openai.OpenAI, **more: Any) -> Any:
    with made:
        return made.chat.completions.create(model="any", messages=MESSAGES, **more)


async def post(gateway: Gateway, body: bytes = b"{}", path: str = PATH, bearer: bytes | None = None) -> Reply:
    authorization = b"Authorization: Bearer " + (token() if bearer is None else bearer)
    head = b"POST %b HTTP/1.1\r\nHost: x\r\n%b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return await gateway.send(head % (path.encode(), authorization, len(body)) + body)


async def test_the_openai_client_gets_a_completion(gateway: Gateway) -> None:
    container = await gateway.serve("demo", says(answer(json.dumps(COMPLETION).encode(), headers=JSON)))
    made = await asyncio.to_thread(ask, client(gateway))
    assert made.choices[0].message.content == "Hello"
    assert made._request_id is not None
    head, _, body = container.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /invocations HTTP/1.1\r\n")
    assert json.loads(body) == {"messages": MESSAGES, "model": "any"}
    assert b"bearer" not in head.lower()


async def test_events_come_as_they_are_made(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    def event(text: str) -> bytes:
        delta = {**COMPLETION, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}
        data = b"data: " + json.dumps(delta).encode() + b"\n\n"
        return b"%x\r\n%b\r\n" % (len(data), data)

    async def streams(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(event("Hel"))
        await writer.drain()
        await go_on.wait()  # until the client has the first one
        writer.write(event("lo") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    await gateway.serve("demo", streams)
    loop = asyncio.get_running_loop()

    def read() -> list[str]:
        said = []
        with client(gateway) as made, made.chat.completions.create(model="m", messages=MESSAGES, stream=True) as parts:
            for part in parts:
                said.append(part.choices[0].delta.content or "")
                loop.call_soon_threadsafe(go_on.set)
        return said

    assert await asyncio.to_thread(read) == ["Hel", "lo"]


@pytest.mark.parametrize("kind", [b"text/event-stream", b"Text/Event-Stream; charset=utf-8"])
async def test_a_stream_has_the_time_of_a_stream(gateway: Gateway, kind: bytes) -> None:
    gateway.state.model_timeout, gateway.state.stream_timeout = 600.0, 6000.0
    going_on = asyncio.Event()

    async def begins(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % kind)
        await writer.drain()
        await going_on.wait()
        writer.write(b"1\r\nx\r\n0\r\n\r\n")

    gateway.state.stream_timeout = 2 * gateway.state.model_timeout
    await gateway.serve("demo", begins)
    asking = asyncio.create_task(post(gateway))
    await wait_for(lambda: gateway.state.stream_deadlines)
    [until] = gateway.state.stream_deadlines.values()
    assert until > gateway.state.loop.time() + gateway.state.model_timeout
    assert gateway.state.deadlines == {}
    going_on.set()
    assert (await asking).body == b"x"


async def test_any_path_below_and_any_body_go_through_untouched(gateway: Gateway) -> None:
    container = await gateway.serve("demo", says(answer(b"\x00", headers=b"Content-Type: audio/mpeg\r\nX-Own: 1\r\n")))
    for path in ("completions", "embeddings", "audio/speech"):
        body = path.encode() + b"\xff"
        reply = await post(gateway, body, f"/endpoints/demo/openai/v1/{path}")
        assert (reply.status, reply.body, reply.headers["content-type"]) == (200, b"\x00", "audio/mpeg")
        assert reply.headers["x-own"] == "1"
        assert container.requests[-1].endswith(b"\r\n\r\n" + body)


async def test_the_container_s_own_error_goes_back_as_it_is(gateway: Gateway) -> None:
    said = b'{"error": {"message": "too long", "type": "BadRequestError", "code": 400}}'
    await gateway.serve("demo", says(answer(said, b"400 Bad Request", JSON)))
    with pytest.raises(openai.BadRequestError, match="too long"):
        await asyncio.to_thread(ask, client(gateway))
    counted = {point.series.name: point.statistics.sum for point in gateway.state.meter.take()}
    assert (counted["Invocation4XXErrors"], counted["InvocationModelErrors"]) == (1, 1)


async def test_an_answer_without_a_body_leaves_the_connection_usable(gateway: Gateway) -> None:
    await gateway.serve("demo", says(b"HTTP/1.1 304 Not Modified\r\n\r\n"))
    reader, writer = await gateway.connect()
    for _ in range(2):
        writer.write(gateway.signed(PATH, b"{}"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 304 ") and b"transfer-encoding" not in head.lower()
    writer.close()


async def test_headers_between_the_container_and_us_go_no_further(gateway: Gateway) -> None:
    headers = b"X-Hop: 1\r\nX-Own: 1\r\nConnection: keep-alive, X-HOP\r\n"
    await gateway.serve("demo", says(answer(b"ok", headers=headers)))
    reply = await post(gateway)
    assert reply.headers["x-own"] == "1" and not reply.headers.keys() & {"x-hop", "connection"}


async def test_an_answer_has_one_request_id(gateway: Gateway) -> None:
    await gateway.serve("demo", says(answer(b"ok", headers=b"X-Request-Id: of-the-container\r\n")))
    assert (await post(gateway)).headers["x-request-id"].startswith(gateway.state.request_prefix)


@pytest.mark.parametrize(
    ("key", "error"),
    [("sk-anything", openai.AuthenticationError), (token(secret="wrong").decode(), openai.AuthenticationError)],
)
async def test_a_wrong_token_is_an_authentication_error(gateway: Gateway, key: str, error: type[Exception]) -> None:
    container = await gateway.serve("demo", says(answer(b"")))
    with pytest.raises(error):
        await asyncio.to_thread(ask, client(gateway, key))
    assert container.requests == []


async def test_no_token_is_refused_before_the_body_is_read(gateway: Gateway) -> None:
    reader, writer = await gateway.connect()
    writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nonly".encode())
    reply = await asyncio.wait_for(read_reply(reader), 60)
    assert reply.status == 401
    assert json.loads(reply.body)["error"]["code"] == "MissingAuthenticationTokenException"
    writer.close()


async def test_a_signature_will_do_as_well(gateway: Gateway) -> None:
    await gateway.serve("demo", says(answer(b"ok")))
    assert (await gateway.send(gateway.signed(PATH, b"{}"))).body == b"ok"


async def test_the_gateway_s_own_errors_have_openai_s_shape(gateway: Gateway) -> None:
    with pytest.raises(openai.NotFoundError, match="Endpoint nobody of account 123456789012 not found"):
        await asyncio.to_thread(ask, client(gateway, endpoint="nobody"))

    async def hang_up(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    await gateway.serve("demo", hang_up)
    reply = await post(gateway)
    error = json.loads(reply.body)["error"]
    assert (reply.status, error["type"], error["code"]) == (424, "server_error", "ModelError")
    assert "could not get a response" in error["message"]


async def test_an_inference_component_is_refused_in_openai_s_shape(gateway: Gateway) -> None:
    container = await gateway.serve("demo", says(answer(b"")))
    path = "/endpoints/%s/inference-components/ic/openai/v1/chat/completions"
    reply = await post(gateway, path=path % "demo")
    error = json.loads(reply.body)["error"]
    assert (reply.status, error["type"], error["code"]) == (400, "invalid_request_error", "ValidationError")
    assert "Inference Component Name header is not allowed" in error["message"]
    assert b"Endpoint nobody" in (await post(gateway, path=path % "nobody")).body
    assert (await post(gateway, path=path % "demo", bearer=b"x")).status == 401
    assert container.requests == []


async def test_only_post_is_taken(gateway: Gateway) -> None:
    container = await gateway.serve("demo", says(answer(b"")))
    raw = b"GET /endpoints/demo/openai/v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token() + b"\r\n\r\n"
    reply = await gateway.send(raw)
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (405, "MethodNotAllowed")
    assert container.requests == []


@pytest.mark.parametrize(
    ("actions", "status"),
    [
        (["sagemaker:InvokeEndpoint"], 403),
        (["sagemaker:CallWithBearerToken"], 403),
        (["sagemaker:InvokeEndpoint", "sagemaker:CallWithBearerToken"], 200),
    ],
)
async def test_a_token_needs_two_permissions(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, actions: list[str], status: int
) -> None:
    await gateway.serve("demo", says(answer(b"ok")))
    policy = parse({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]})
    user = Principal("arn:aws:iam::123456789012:user/u", "U", (policy,))
    monkeypatch.setattr(gateway.state, "principal", lambda identity: user)
    reply = await post(gateway)
    assert reply.status == status
    if status == 403:
        assert "is not authorized to perform: sagemaker:" in json.loads(reply.body)["error"]["message"]


async def test_a_client_that_leaves_frees_its_place(gateway: Gateway) -> None:
    async def never(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await reader.read()

    await gateway.serve("demo", never)
    _, writer = await gateway.connect()
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nAuthorization: Bearer ".encode()
    writer.write(head + token() + b"\r\n\r\n")
    await wait_for(lambda: gateway.state.stream_deadlines)
    writer.close()
    await wait_for(lambda: not gateway.state.load and not gateway.state.stream_deadlines)
