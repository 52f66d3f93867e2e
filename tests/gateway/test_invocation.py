"""InvokeEndpoint: what reaches the container, what comes back, and each way in which it can go wrong."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Iterable
from itertools import pairwise
from unittest.mock import AsyncMock, Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.core.ejection import ANSWERS, LONGEST, THRESHOLD
from clary.core.routing import VariantRoute
from clary.gateway import invocation
from clary.gateway.head import Head
from clary.gateway.upstream import UpstreamConnection
from tests.gateway.conftest import PARTITION, SECRET, Gateway, Script, answer, read_reply, says, variant, wait_for


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


@pytest.mark.parametrize(
    ("status", "code", "side"),
    [
        (b"400 Bad Request", "CLIENT_ERROR_FROM_MODEL", "client"),
        (b"503 Busy", "INTERNAL_FAILURE_FROM_MODEL", "server"),
        (b"302 Found", "INTERNAL_FAILURE_FROM_MODEL", "server"),
    ],
)
async def test_what_is_not_2xx_is_a_model_error(gateway: Gateway, status: bytes, code: str, side: str) -> None:
    await gateway.serve("demo", says(answer(b'say "no"', status)))
    reply = await gateway.invoke("demo")
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (424, "ModelError")
    document = json.loads(reply.body)
    number = int(status[:3])
    assert document["ErrorCode"] == code
    assert document["OriginalStatusCode"] == number
    assert document["OriginalMessage"] == 'say "no"'
    assert document["LogStreamArn"] == ("arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/Endpoints/demo")
    assert document["Message"].startswith(
        f'Received {side} error ({number}) from primary with message "say "no"". See '
        "https://us-east-1.console.aws.amazon.com/cloudwatch/home?region=us-east-1#logEventViewer:"
        "group=/aws/sagemaker/Endpoints/demo in account 123456789012 for more information."
    )


async def test_a_long_error_page_is_not_passed_on(gateway: Gateway) -> None:
    await gateway.serve("demo", says(answer(b"x" * 200_000, b"500 Oops")))
    document = json.loads((await gateway.invoke("demo")).body)
    assert document["Message"].startswith(
        "Received server error (500) from primary and could not load the entire response body. See "
    )
    assert document["OriginalMessage"] == ""


async def test_a_long_error_in_small_pieces_is_read_in_a_moment(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = 0

    def measured(of: object) -> int:
        nonlocal sizes
        sizes += 1
        return len(of)  # type: ignore[arg-type]

    monkeypatch.setattr(invocation, "len", measured, raising=False)
    number = 20_000
    raw = b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * number + b"0\r\n\r\n"
    await gateway.serve("demo", says(raw))
    assert json.loads((await gateway.invoke("demo")).body)["OriginalMessage"] == "x" * number
    assert sizes < 3 * number


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
    connection = UpstreamConnection(Mock())
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


async def test_an_error_that_stalls_is_still_told_by_its_status(gateway: Gateway) -> None:
    gateway.state.model_timeout = 0.1

    async def half(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\nhalf")
        await reader.read()

    await gateway.serve("demo", half)
    document = json.loads((await gateway.invoke("demo")).body)
    assert document["OriginalStatusCode"] == 500
    assert document["Message"].startswith(
        "Received server error (500) from primary and could not load the entire response body. See "
    )


async def test_a_model_that_takes_too_long_is_a_model_error_of_status_0(gateway: Gateway) -> None:
    gateway.state.model_timeout = 0.1

    async def never(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    await gateway.serve("slow", never)
    reply = await gateway.invoke("slow")
    document = json.loads(reply.body)
    assert reply.status == 424
    assert document["OriginalStatusCode"] == 0
    assert "Your invocation timed out while waiting for a response from container primary." in document["Message"]
    assert gateway.state.load == {}


async def test_a_refused_connection_is_a_model_error_after_one_retry(gateway: Gateway) -> None:
    gone = await gateway.container(says(answer(b"")))
    gateway.servers.pop().close()
    gateway.route("demo", variant(gone))
    document = json.loads((await gateway.invoke("demo")).body)
    assert document["OriginalStatusCode"] == 0
    assert "could not get a response from the demo endpoint" in document["Message"]


async def test_a_refused_connection_goes_to_another_instance(gateway: Gateway) -> None:
    gone, there = await gateway.container(says(b"")), await gateway.container(says(answer(b"here")))
    gateway.servers.pop(0).close()
    gateway.route("demo", variant(gone, there))
    for _ in range(20):
        assert (await gateway.invoke("demo")).body == b"here"


def _hang_up() -> Script:
    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    return script


async def test_a_connection_that_breaks_before_the_first_byte_is_retried_once(gateway: Gateway) -> None:
    container = await gateway.serve("demo", _hang_up())
    reply = await gateway.invoke("demo")
    assert reply.status == 424
    assert len(container.requests) == 2


async def test_there_is_one_retry_and_it_goes_to_another_instance_over_a_new_connection(gateway: Gateway) -> None:
    sent: list[bytes] = []
    warm = True

    async def moody(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent.append(request)
        if warm:
            writer.write(answer(b"ok"))
        else:
            writer.close()

    containers = [await gateway.container(moody) for _ in range(3)]
    for container in containers:
        gateway.route("demo", variant(container))
        assert (await gateway.invoke("demo")).status == 200
    gateway.route("demo", variant(*containers))
    warm = False
    sent.clear()
    assert (await gateway.invoke("demo")).status == 424
    assert [len(container.requests) for container in containers].count(2) == 2
    assert len(sent) == 2
    assert sum(container.connections for container in containers) == 4


async def test_our_own_want_of_descriptors_is_no_failure_of_the_model(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gateway.serve("demo", says(answer(b"ok")))
    connect = AsyncMock(side_effect=OSError(errno.EMFILE, "Too many open files"))
    monkeypatch.setattr(gateway.state.pool, "connect", connect)
    for _ in range(THRESHOLD):
        reply = await gateway.invoke("demo")
        assert (reply.status, reply.headers["x-amzn-errortype"]) == (503, "ServiceUnavailable")
    assert gateway.state.outliers.out == frozenset()
    assert connect.call_count == THRESHOLD


async def test_nothing_is_retried_once_a_byte_of_the_answer_has_come(gateway: Gateway) -> None:
    async def half(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-")
        await writer.drain()
        writer.close()

    container = await gateway.serve("demo", half)
    reply = await gateway.invoke("demo")
    assert (reply.status, len(container.requests)) == (424, 1)


async def test_an_answer_that_breaks_off_breaks_off_for_the_client(gateway: Gateway) -> None:
    async def half(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()

    await gateway.serve("demo", half)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await gateway.invoke("demo")


async def test_an_error_that_breaks_off_is_still_told_by_its_status(gateway: Gateway) -> None:
    async def half(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    await gateway.serve("demo", half)
    document = json.loads((await gateway.invoke("demo")).body)
    assert document["OriginalStatusCode"] == 500
    assert document["Message"].startswith(
        "Received server error (500) from primary and could not load the entire response body. See "
    )


async def test_an_instance_that_fails_again_and_again_is_left_alone_and_comes_back(gateway: Gateway) -> None:
    failing = True

    async def moody(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if failing:
            writer.close()
        else:
            writer.write(answer(b"moody"))

    sick, well = await gateway.container(moody), await gateway.container(says(answer(b"well")))
    gateway.route("demo", variant(sick, well))
    for _ in range(30):
        assert (await gateway.invoke("demo")).body == b"well"
    assert gateway.state.outliers.out == {f"i-{sick.port}"}
    asked = len(sick.requests)
    assert asked == THRESHOLD
    for _ in range(10):
        await gateway.invoke("demo")
    assert len(sick.requests) == asked
    failing = False
    gateway.state.outliers.review(gateway.state.loop.time() + LONGEST)
    bodies = {(await gateway.invoke("demo")).body for _ in range(40)}
    assert bodies == {b"well", b"moody"}
    assert gateway.state.outliers.out == frozenset()


async def test_the_last_instance_is_never_left_alone(gateway: Gateway) -> None:
    container = await gateway.serve("demo", _hang_up())
    for _ in range(5):
        await gateway.invoke("demo")
    assert gateway.state.outliers.out != frozenset()
    assert len(container.requests) == 10


async def test_an_instance_that_is_slow_is_left_alone(gateway: Gateway) -> None:
    async def slowly(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        writer.write(answer(b"ok"))

    slow, fast = await gateway.container(slowly), await gateway.container(says(answer(b"ok")))
    gateway.route("demo", variant(slow, fast))
    for number, container in enumerate((slow, fast)):
        gateway.route(f"only-{number}", variant(container))
        await asyncio.gather(*(gateway.invoke(f"only-{number}") for _ in range(ANSWERS)))
    await wait_for(lambda: gateway.state.outliers.out == {f"i-{slow.port}"})
    for _ in range(10):
        await gateway.invoke("demo")
    assert len(slow.requests) == ANSWERS


@pytest.mark.parametrize("secret", [SECRET, "wrong"])
async def test_timing_is_told_with_errors_too(gateway: Gateway, secret: str) -> None:
    path, headers = "/endpoints/nobody/invocations", {"X-Clary-Server-Timing": "1"}
    reply = await gateway.send(gateway.signed(path, b"{}", headers, secret))
    assert reply.status >= 400
    parts = dict(part.split(";dur=") for part in reply.headers["server-timing"].split(", "))
    assert list(parts) == ["auth", "queue", "model", "overhead"]
    assert all(float(milliseconds) >= 0 for milliseconds in parts.values()) and float(parts["model"]) == 0


async def test_timing_is_told_to_who_asks(gateway: Gateway) -> None:
    await gateway.serve("demo", says(answer(b"ok")))
    assert "server-timing" not in (await gateway.invoke("demo")).headers
    told = (await gateway.invoke("demo", X_Clary_Server_Timing="1")).headers["server-timing"]
    parts = dict(part.split(";dur=") for part in told.split(", "))
    assert list(parts) == ["auth", "queue", "model", "overhead"]
    assert all(float(milliseconds) >= 0 for milliseconds in parts.values())


@pytest.mark.parametrize(
    ("raw", "sums"),
    [
        (answer(b"ok"), (1, 0, 0, 0)),
        (answer(b"no", b"404 Not Found"), (1, 1, 0, 1)),
        (answer(b"no", b"500 Oops"), (1, 0, 1, 1)),
        (b"nonsense", (1, 0, 1, 1)),
    ],
)
async def test_each_invocation_is_counted_by_what_the_model_said(
    gateway: Gateway, raw: bytes, sums: tuple[int, ...]
) -> None:
    await gateway.serve("demo", says(raw))
    await gateway.invoke("demo")
    counted = {point.series.name: point.statistics for point in gateway.state.meter.take()}
    names = ("Invocations", "Invocation4XXErrors", "Invocation5XXErrors", "InvocationModelErrors")
    assert tuple(counted[name].sum for name in names) == sums
    assert counted["ModelLatency"].sum > 0
    assert counted["OverheadLatency"].sum > 0


async def test_an_answer_that_breaks_off_is_a_failure_of_the_model(gateway: Gateway) -> None:
    async def half(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    await gateway.serve("demo", half)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await gateway.invoke("demo")
    counted = {point.series.name: point.statistics.sum for point in gateway.state.meter.take()}
    assert (counted["Invocation5XXErrors"], counted["InvocationModelErrors"]) == (1, 1)


async def test_a_request_whose_client_has_left_is_counted(gateway: Gateway) -> None:
    async def never(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    container = await gateway.serve("demo", never)
    _, writer = await gateway.connect()
    writer.write(gateway.signed("/endpoints/demo/invocations", b""))
    await wait_for(lambda: container.requests)
    writer.close()
    await wait_for(lambda: not gateway.state.load)
    counted = {point.series.name: point.statistics.sum for point in gateway.state.meter.take()}
    assert (counted["Invocations"], counted["Invocation5XXErrors"], counted["InvocationModelErrors"]) == (1, 0, 0)
    assert counted["ModelLatency"] > 0


async def test_invocations_that_no_instance_could_take_are_counted(gateway: Gateway) -> None:
    gateway.route("demo", variant())
    await gateway.invoke("demo")
    counted = {point.series.name: point.statistics.sum for point in gateway.state.meter.take()}
    assert (counted["Invocations"], counted["Invocation5XXErrors"]) == (1, 1)
    assert "ModelLatency" not in counted


async def test_a_kept_connection_that_the_container_has_closed_is_no_failure(gateway: Gateway) -> None:
    async def then_close(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"once"))
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.close()

    container = await gateway.serve("demo", then_close)
    for _ in range(3):
        assert (await gateway.invoke("demo")).body == b"once"
        await asyncio.sleep(0.05)
    assert container.connections == 3


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
    for _ in range(200):
        if not gateway.state.load:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(gateway.state.load)


async def test_traffic_is_split_by_weight_and_target_variant_overrides(gateway: Gateway) -> None:
    blue, green = await gateway.container(says(answer(b"blue"))), await gateway.container(says(answer(b"green")))
    gateway.route("demo", variant(blue, name="blue", weight=3), variant(green, name="green", weight=1))
    bodies = [(await gateway.invoke("demo")).body for _ in range(200)]
    assert 100 < bodies.count(b"blue") < 195
    named = await gateway.invoke("demo", X_Amzn_SageMaker_Target_Variant="green")
    assert (named.body, named.headers["x-amzn-invoked-production-variant"]) == (b"green", "green")
    unknown = await gateway.invoke("demo", X_Amzn_SageMaker_Target_Variant="red")
    assert unknown.headers["x-amzn-errortype"] == "ValidationError"


async def test_an_endpoint_whose_instances_are_all_down_is_unavailable(gateway: Gateway) -> None:
    gateway.route("demo", variant())
    reply = await gateway.invoke("demo")
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (503, "ServiceUnavailable")


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
    reply = await asyncio.wait_for(read_reply(reader), 5)
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (403, "MissingAuthenticationTokenException")
    assert reply.headers["connection"] == "close"
    writer.close()
