"""The front door: where each request goes, and what is not a request at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aiohttp import web

from tests.gateway.conftest import Gateway, answer, says


async def test_health_needs_no_signature(gateway: Gateway) -> None:
    reply = await gateway.send(b"GET /_clary/health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (reply.status, json.loads(reply.body)["status"]) == (200, "ok")


async def test_a_browser_is_told_what_this_is(gateway: Gateway) -> None:
    reply = await gateway.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"clary env" in reply.body


async def test_an_operation_of_the_runtime_that_clary_lacks_says_so(gateway: Gateway) -> None:
    reply = await gateway.send(gateway.signed("/endpoints/demo/async-invocations", b""))
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (400, "UnknownOperationException")
    assert "does not implement" in json.loads(reply.body)["Message"]


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
