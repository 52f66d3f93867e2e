"""The front door: where each request goes, and what is not a request at all."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from pathlib import Path

import pytest
from aiohttp import web

from tests.gateway.conftest import Gateway, answer, read_reply, says


async def test_health_needs_no_signature(gateway: Gateway) -> None:
    reply = await gateway.send(b"GET /_clary/health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (reply.status, json.loads(reply.body)["status"]) == (200, "ok")


async def test_a_browser_is_told_what_this_is(gateway: Gateway) -> None:
    reply = await gateway.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"clary env" in reply.body


async def test_an_operation_of_the_runtime_that_clary_lacks_says_so(gateway: Gateway) -> None:
    reply = await gateway.send(gateway.signed("/endpoints/demo/invocations-bidirectional-stream", b""))
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (400, "UnknownOperationException")
    assert "does not implement" in json.loads(reply.body)["Message"]


@pytest.mark.parametrize("suffix", ["invocations", "invocations-response-stream", "openai/v1/chat/completions"])
async def test_a_query_means_nothing_to_an_invocation_and_reaches_no_container(gateway: Gateway, suffix: str) -> None:
    container = await gateway.serve("demo", says(answer(b"ok")))
    reply = await gateway.send(gateway.signed(f"/endpoints/demo/{suffix}?where=a/b/openai/v1/c", b"{}"))
    assert (reply.status, b"ok" in reply.body) == (200, True)
    assert container.requests[0].startswith(b"POST /invocations HTTP/1.1\r\n")


async def test_such_an_operation_is_refused_before_its_body_is_here(gateway: Gateway) -> None:
    head = b"POST /endpoints/x/y/z HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n%b\r\n"
    assert (await gateway.send(head % b"")).headers["x-amzn-errortype"] == "MissingAuthenticationTokenException"
    signed = gateway.signed("/endpoints/x/y/z", b"").partition(b"Content-Length")[0]
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    assert (await gateway.send(signed + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 16)).status == 413


async def test_a_head_is_answered_without_a_body(gateway: Gateway) -> None:
    reader, writer = await gateway.connect()
    writer.write(
        gateway.signed("/endpoints/x/y/z", b"", method="HEAD") + b"GET /_clary/health HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    assert (await read_reply(reader)).status == 200
    writer.close()


@pytest.mark.parametrize("authorization", [
    b"Authorization: x\r\n",
    b"Authorization: AWS4-HMAC-SHA256 Credential=AKIAWHO/20260101/us-east-1/sagemaker/aws4_request, "
    b"SignedHeaders=host, Signature=00\r\n",
    b"Authorization: Bearer sagemaker-api-key-x\r\n",
])  # fmt: skip
@pytest.mark.parametrize("path", [b"/endpoints/x/invocations", b"/endpoints/x/openai/v1/models"])
async def test_who_cannot_be_known_is_refused_in_the_middle_of_the_body(
    gateway: Gateway, path: bytes, authorization: bytes
) -> None:
    reader, writer = await gateway.connect()
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n%b\r\n"
    writer.write(head % (path, authorization) + b"1\r\nx\r\n" * 3)
    reply = await asyncio.wait_for(read_reply(reader), 60)
    assert (reply.status in (401, 403), reply.headers["connection"]) == (True, "close")
    writer.close()


async def test_a_body_in_small_pieces_takes_no_more_memory_than_another(gateway: Gateway) -> None:
    await gateway.serve("demo", says(answer(b"ok")))
    body = b"ab" * 100_000
    head = gateway.signed("/endpoints/demo/invocations", body).partition(b"Content-Length")[0]
    reader, writer = await gateway.connect()
    tracemalloc.start()
    writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n" + b"2\r\nab\r\n" * 100_000)
    writer.write(b"0\r\n\r\n")
    assert (await asyncio.wait_for(read_reply(reader), 60)).body == b"ok"
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5_000_000  # a list of the pieces alone would be more
    writer.close()


@pytest.mark.parametrize("target", [
    "/endpoints/a/openai/v1/../../../b/invocations", "/endpoints/a/openai/v1//x", "/endpoints/a/openai/v1/.",
    "/endpoints/a/openai/v1/./x?y=z", "/endpoints/a/openai/v1/..?x",
])  # fmt: skip
async def test_a_path_that_is_signed_as_another_one_is_refused(gateway: Gateway, target: str) -> None:
    container = await gateway.serve("a", says(answer(b"")))
    signed = gateway.signed("/endpoints/b/invocations", b"").replace(b"/endpoints/b/invocations", target.encode())
    assert (await gateway.send(signed)).status == 400
    assert container.requests == []


async def test_dots_in_names_and_queries_and_paths_of_s3_are_nobodys_business(gateway: Gateway) -> None:
    await gateway.serve("a", says(answer(b"ok")))
    assert (await gateway.send(gateway.signed("/endpoints/a/openai/v1/...x/.y/?z=/../", b""))).body == b"ok"
    assert (await gateway.send(b"GET /bucket//a/../b HTTP/1.1\r\nHost: x\r\n\r\n")).body == b"s3 got 0"


async def test_a_defect_of_ours_is_told_and_logged_and_leaves_nothing_behind(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RecursionError("a defect")

    await gateway.serve("demo", says(answer(b"ok")))
    monkeypatch.setattr("clary.gateway.invocation.Passage.begin", broken)
    reply = await gateway.invoke("demo")
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (500, "InternalFailure")
    assert not gateway.state.load and not gateway.state.deadlines


async def test_any_other_path_is_s3(gateway: Gateway) -> None:
    reply = await gateway.send(b"PUT /bucket/key HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
    assert reply.body == b"s3 got 5"
    assert (gateway.s3_requests[0].method, gateway.s3_requests[0].path) == ("PUT", "/bucket/key")


@pytest.mark.parametrize(
    "raw",
    [
        b"NOT HTTP\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n",
    ],
)
async def test_what_breaks_the_protocol_is_refused(gateway: Gateway, raw: bytes) -> None:
    reply = await gateway.send(raw)
    assert (reply.status, reply.headers["connection"]) == (400, "close")


async def test_a_control_plane_that_is_away_is_503_under_awss_code(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clary.gateway.control.PATIENCE", 0.1)
    headers = {"X-Amz-Target": "SageMaker.ListModels", "Content-Type": "application/x-amz-json-1.1"}
    reply = await gateway.send(gateway.signed("/", b"{}", headers))
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (503, "ServiceUnavailable")
    assert json.loads(reply.body)["__type"] == "ServiceUnavailable"


async def test_the_control_plane_is_told_whence_a_request_comes_whatever_the_client_says(
    gateway: Gateway, tmp_path: Path
) -> None:
    told: list[dict[str, str]] = []

    async def answers(request: web.BaseRequest) -> web.Response:
        told.append({name.lower(): value for name, value in request.headers.items()})
        return web.json_response({})

    runner = web.ServerRunner(web.Server(answers))
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "control.sock")).start()
    headers = {"X-Amz-Target": "SageMaker.ListModels", "Content-Type": "application/x-amz-json-1.1"}
    forged = {"X-Clary-Source-Ip": "10.0.0.1", "X-Forwarded-For": "10.0.0.1", "User-Agent": "Boto3/1.43"}
    assert (await gateway.send(gateway.signed("/", b"{}", {**headers, **forged}))).status == 200
    assert (told[0]["x-clary-source-ip"], told[0]["user-agent"]) == ("127.0.0.1", "Boto3/1.43")
    assert "10.0.0.1" not in told[0].values()
    await runner.cleanup()


async def test_invocations_go_on_while_the_control_plane_is_away(gateway: Gateway) -> None:
    await gateway.serve("demo", says(answer(b"still here")))
    assert (await gateway.invoke("demo")).body == b"still here"
