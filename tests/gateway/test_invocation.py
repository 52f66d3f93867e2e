"""InvokeEndpoint: what reaches the container, what comes back, and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from itertools import pairwise
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.core.routing import VariantRoute
from clary.gateway import invocation
from clary.gateway.head import Head
from clary.gateway.upstream import UpstreamConnection
from tests.gateway.conftest import PARTITION, Gateway, answer, read_reply, says, variant, wait_for


async def test_the_body_arrives_byte_for_byte_and_the_answer_goes_back(gateway: Gateway) -> None:
    body = bytes(range(256)) * 100
    container = await gateway.serve("demo", says(answer(b"\x00\xff", headers=b"Content-Type: application/x-npy\r\n")))
    reply = await gateway.invoke("demo", body, Content_Type="application/x-image", Accept="application/x-npy")
    assert (reply.status, reply.body) == (200, b"\x00\xff")
    assert reply.headers["content-type"] == "application/x-npy"
    assert reply.headers["x-amzn-invoked-production-variant"] == "AllTraffic"
    assert len(reply.headers["x-amzn-requestid"]) == 36
    head, _, received = container.requests[0].partition(b"\r\n\r\n")
    assert received == body
    assert head.startswith(b"POST /invocations HTTP/1.1\r\n")


async def test_only_the_headers_of_the_contract_reach_the_container(gateway: Gateway) -> None:
    container = await gateway.serve("demo", says(answer(b"")))
    await gateway.invoke(
        "demo", X_Amzn_SageMaker_Custom_Attributes="trace=1", X_Amzn_SageMaker_Inference_Id="abc", X_Other="no"
    )
    head = container.requests[0].partition(b"\r\n\r\n")[0].lower()
    names = {line.partition(b":")[0] for line in head.split(b"\r\n")[1:]}
    assert names == {
        b"host",
        b"x-amzn-sagemaker-custom-attributes",
        b"x-amzn-sagemaker-inference-id",
        b"content-length",
    }


async def test_only_the_headers_of_the_contract_come_back(gateway: Gateway) -> None:
    headers = b"Content-Type: text/csv\r\nServer: x\r\nX-Amzn-SageMaker-Custom-Attributes: t=2\r\nSet-Cookie: a=b\r\n"
    await gateway.serve("demo", says(answer(b"1", headers=headers)))
    reply = await gateway.invoke("demo")
    assert reply.headers["x-amzn-sagemaker-custom-attributes"] == "t=2"
    assert not reply.headers.keys() & {"server", "set-cookie"}


async def test_an_unknown_endpoint_is_a_validation_error_with_its_own_error_code(gateway: Gateway) -> None:
    reply = await gateway.invoke("nobody")
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (400, "ValidationError")
    document = json.loads(reply.body)
    assert document["ErrorCode"] == "NO_SUCH_ENDPOINT"
    assert document["Message"] == "Endpoint nobody of account 123456789012 not found."


async def test_an_endpoint_that_is_being_created_is_not_ready(gateway: Gateway) -> None:
    gateway.route("new", status="Creating")
    reply = await gateway.invoke("new")
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (429, "ModelNotReadyException")


@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_a_head_may_come_in_pieces(gateway: Gateway, first: bytes) -> None:
    rest = b"Content-Length: 2\r\n\r\nok" if b"200" in first else answer(b"ok")

    async def slowly(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(rest)

    await gateway.serve("demo", slowly)
    reply = await gateway.invoke("demo")
    assert (reply.status, reply.body) == (200, b"ok")


def passed_on(pieces: Iterable[bytes]) -> bytes:
    """Give what a client is written when its container's answer comes in these pieces."""
    client, head = Mock(), Head()
    exchange = invocation.Invocation(Mock(max_payload=0, request_id=lambda: "id", partition=PARTITION), head, client)
    exchange._variant, exchange._passage = VariantRoute("v", 1.0, ()), Mock(seconds=(), container="primary")
    connection = UpstreamConnection(Mock(ear=None))
    connection.connection_made(Mock(get_write_buffer_size=lambda: 0))
    connection.send(b"", exchange)
    for piece in pieces:
        connection.data_received(piece)
    client.finish.assert_called_once_with()
    return b"".join(each.args[0] for each in client.write.mock_calls)


@given(
    before=st.sampled_from((b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
    status=st.sampled_from((b"200 OK", b"204 No Content", b"500 Oops")),
    cuts=st.lists(st.integers(0, 150), max_size=8),
)
def test_however_the_container_s_bytes_are_cut_the_client_gets_the_same(
    before: bytes, status: bytes, cuts: list[int]
) -> None:
    raw = before + (b"HTTP/1.1 204 No Content\r\n\r\n" if status.startswith(b"204") else answer(b"say so", status))
    bounds = sorted({0, len(raw), *(cut % len(raw) for cut in cuts)})
    assert passed_on(raw[start:end] for start, end in pairwise(bounds)) == passed_on([raw])


async def test_connections_to_the_container_are_reused(gateway: Gateway) -> None:
    container = await gateway.serve("demo", says(answer(b"ok")))
    for _ in range(5):
        await gateway.invoke("demo")
    assert (container.connections, len(container.requests)) == (1, 5)


async def test_a_chunked_answer_stays_chunked_and_goes_out_as_it_comes(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    async def drip(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await writer.drain()
        await go_on.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")

    await gateway.serve("demo", drip)
    reader, writer = await gateway.connect()
    writer.write(gateway.signed("/endpoints/demo/invocations", b""))
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(8) == b"3\r\none\r\n"
    go_on.set()
    assert await reader.readexactly(13) == b"3\r\ntwo\r\n0\r\n\r\n"
    writer.close()


async def test_an_answer_that_ends_with_its_connection_is_whole(gateway: Gateway) -> None:
    async def old(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/csv\r\n\r\n1,2")
        await writer.drain()
        writer.close()

    await gateway.serve("demo", old)
    reply = await gateway.invoke("demo")
    assert (reply.status, reply.body) == (200, b"1,2")


async def test_a_body_over_the_limit_is_413_in_the_service_s_words(gateway: Gateway) -> None:
    container = await gateway.serve("demo", says(answer(b"")))
    reply = await gateway.invoke("demo", b"x" * 1_000_001)
    assert (reply.status, reply.body) == (413, b"HTTP content length exceeded 1000000 bytes.")
    assert (await gateway.invoke("demo", b"x" * 1_000_000)).status == 200
    assert len(container.requests) == 1


async def test_a_chunked_body_over_the_limit_is_413_too(gateway: Gateway) -> None:
    await gateway.serve("demo", says(answer(b"")))
    reader, writer = await gateway.connect()
    head = gateway.signed("/endpoints/demo/invocations", b"").partition(b"Content-Length")[0]
    writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
    writer.write(b"f4241\r\n" + b"x" * 1_000_001 + b"\r\n0\r\n\r\n")
    assert (await read_reply(reader)).status == 413
    writer.close()


async def test_expect_100_continue_is_answered_before_the_body(gateway: Gateway) -> None:
    await gateway.serve("demo", says(answer(b"ok")))
    head, _, body = gateway.signed("/endpoints/demo/invocations", b"body", {"Expect": "100-continue"}).partition(
        b"\r\n\r\n"
    )
    reader, writer = await gateway.connect()
    writer.write(head + b"\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await read_reply(reader)).body == b"ok"
    writer.close()


async def test_requests_sent_ahead_are_answered_in_order(gateway: Gateway) -> None:
    async def echo(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = request.partition(b"\r\n\r\n")[2]
        await asyncio.sleep(0.01 * (5 - int(body)))
        writer.write(answer(body))

    await gateway.serve("demo", echo)
    reader, writer = await gateway.connect()
    writer.write(b"".join(gateway.signed("/endpoints/demo/invocations", b"%d" % n) for n in range(5)))
    assert [(await read_reply(reader)).body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
    writer.close()


async def test_a_client_that_leaves_frees_its_place(gateway: Gateway) -> None:
    waiting = asyncio.Event()

    async def never(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting.set()
        await reader.read()

    await gateway.serve("demo", never)
    _, writer = await gateway.connect()
    writer.write(gateway.signed("/endpoints/demo/invocations", b""))
    await waiting.wait()
    assert sum(gateway.state.load.values()) == 1
    writer.close()
    await wait_for(lambda: not gateway.state.load)


async def test_traffic_is_split_by_weight_and_target_variant_overrides(gateway: Gateway) -> None:
    blue, green = await gateway.container(says(answer(b"blue"))), await gateway.container(says(answer(b"green")))
    gateway.route("demo", variant(blue, name="blue", weight=3), variant(green, name="green", weight=1))
    bodies = [(await gateway.invoke("demo")).body for _ in range(200)]
    assert 100 < bodies.count(b"blue") < 195
    named = await gateway.invoke("demo", X_Amzn_SageMaker_Target_Variant="green")
    assert (named.body, named.headers["x-amzn-invoked-production-variant"]) == (b"green", "green")
    unknown = await gateway.invoke("demo", X_Amzn_SageMaker_Target_Variant="red")
    assert unknown.headers["x-amzn-errortype"] == "ValidationError"


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("X-Amzn-SageMaker-Target-Model", "is not a multi-model endpoint and does not support target model header."),
        ("X-Amzn-SageMaker-Inference-Component", "Inference Component Name header is not allowed for endpoints"),
        ("X-Amzn-SageMaker-Target-Container-Hostname", "does not support target container hostname header"),
    ],
)
async def test_headers_for_other_kinds_of_endpoints_are_refused(gateway: Gateway, header: str, words: str) -> None:
    await gateway.serve("demo", says(answer(b"")))
    reply = await gateway.invoke("demo", **{header: "x"})
    assert reply.headers["x-amzn-errortype"] == "ValidationError"
    assert words in json.loads(reply.body)["Message"]


async def test_a_header_over_its_modelled_length_is_refused(gateway: Gateway) -> None:
    await gateway.serve("demo", says(answer(b"")))
    reply = await gateway.invoke("demo", X_Amzn_SageMaker_Inference_Id="i" * 65)
    assert json.loads(reply.body)["Message"] == (
        f"1 validation error detected: Value '{'i' * 65}' at 'inferenceId' failed to satisfy constraint: "
        "Member must have length less than or equal to 64"
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [("e" * 65, "Member must have length less than or equal to 64"),
     ("", "Member must have length greater than or equal to 1")],
)  # fmt: skip
async def test_the_length_of_enable_explanations_is_the_model_s(gateway: Gateway, value: str, words: str) -> None:
    await gateway.serve("demo", says(answer(b"")))
    reply = await gateway.invoke("demo", X_Amzn_SageMaker_Enable_Explanations=value)
    assert json.loads(reply.body)["Message"] == (
        f"1 validation error detected: Value '{value}' at 'enableExplanations' failed to satisfy constraint: {words}"
    )


async def test_a_wrong_secret_never_reaches_the_container(gateway: Gateway) -> None:
    container = await gateway.serve("demo", says(answer(b"")))
    reply = await gateway.send(gateway.signed("/endpoints/demo/invocations", b"{}", secret="wrong"))
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (403, "InvalidSignatureException")
    unsigned = b"POST /endpoints/demo/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    assert (await gateway.send(unsigned)).headers["x-amzn-errortype"] == "MissingAuthenticationTokenException"
    assert container.requests == []


async def test_what_nobody_has_signed_is_refused_before_its_body_is_read(gateway: Gateway) -> None:
    reader, writer = await gateway.connect()
    writer.write(
        b"POST /endpoints/demo/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nonly the beginning"
    )
    reply = await asyncio.wait_for(read_reply(reader), 60)
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (403, "MissingAuthenticationTokenException")
    assert reply.headers["connection"] == "close"
    writer.close()
