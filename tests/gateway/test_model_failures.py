"""InvokeEndpoint where the model fails: what the client is told, what is tried again, and whom it is left to."""

from __future__ import annotations

import asyncio
import errno
import json
from unittest.mock import AsyncMock

import pytest

from clary.core import ejection
from clary.core.ejection import ANSWERS, LONGEST, THRESHOLD, TOO_SLOW, Outliers
from clary.gateway import invocation
from tests.gateway.conftest import Gateway, Script, answer, says, variant, wait_for


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


async def test_an_error_that_stalls_is_still_told_by_its_status(gateway: Gateway) -> None:
    async def half(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\nhalf")
        await reader.read()

    await gateway.serve("demo", half)
    asking = asyncio.create_task(gateway.invoke("demo"))
    await wait_for(lambda: any(each._status for each in gateway.state.deadlines))  # type: ignore[attr-defined]
    gateway.time_out(gateway.state.deadlines)
    document = json.loads((await asking).body)
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


async def test_a_refused_connection_is_a_model_error_where_there_is_no_other_instance(gateway: Gateway) -> None:
    gateway.route("demo", variant(gateway.gone()))
    document = json.loads((await gateway.invoke("demo")).body)
    assert document["OriginalStatusCode"] == 0
    assert "could not get a response from the demo endpoint" in document["Message"]


async def test_a_refused_connection_goes_to_another_instance(gateway: Gateway) -> None:
    there = await gateway.container(says(answer(b"here")))
    gateway.route("demo", variant(gateway.gone(), there))
    for _ in range(20):
        assert (await gateway.invoke("demo")).body == b"here"


async def test_a_request_that_no_container_was_given_goes_to_one_instance_after_the_other(gateway: Gateway) -> None:
    gone = [gateway.gone() for _ in range(4)]
    there = await gateway.container(says(answer(b"here")))
    gateway.route("demo", variant(*gone, there))
    for _ in range(20):
        assert (await gateway.invoke("demo")).body == b"here"
        gateway.state.outliers = Outliers()


@pytest.mark.parametrize("wanted", [None, "Last"])
async def test_an_instance_of_another_variant_will_do_unless_one_was_named(
    gateway: Gateway, wanted: str | None
) -> None:
    gone = [gateway.gone() for _ in range(3)]
    there = await gateway.container(says(answer(b"here")))
    others = [variant(each, name=f"V{n}", weight=9) for n, each in enumerate(gone)]
    gateway.route("demo", *others, variant(there, name="Last", weight=0.1), variant(there, name="Named", weight=0))
    named = {} if wanted is None else {"X_Amzn_SageMaker_Target_Variant": wanted}
    for _ in range(10):
        reply = await gateway.invoke("demo", **named)
        assert (reply.body, reply.headers["x-amzn-invoked-production-variant"]) == (b"here", "Last")
    reply = await gateway.invoke("demo", X_Amzn_SageMaker_Target_Variant="V0")
    assert reply.status == 424
    assert gateway.state.load == {}


async def test_a_request_that_an_instance_had_may_still_pass_by_one_that_takes_no_connections(gateway: Gateway) -> None:
    first, there = await gateway.container(_hang_up()), await gateway.container(says(answer(b"here")))
    gateway.route("demo", variant(first, gateway.gone(), there))
    for _ in range(40):
        assert (await gateway.invoke("demo")).body == b"here"
        gateway.state.outliers = Outliers()
    assert first.requests


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


async def test_an_instance_that_fails_again_and_again_is_left_alone_and_comes_back(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ejection, "FIRST", LONGEST)
    failing = True

    async def moody(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if failing:
            writer.close()
        else:
            writer.write(answer(b"moody"))

    sick, well = await gateway.container(moody), await gateway.container(says(answer(b"well")))
    gateway.route("demo", variant(sick, well))
    for _ in range(60):
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


async def test_an_instance_that_is_slow_is_left_alone(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ejection, "FIRST", LONGEST)
    longest = 0.0

    async def slowly(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.1 + 2 * TOO_SLOW * longest)
        writer.write(answer(b"ok"))

    slow, fast = await gateway.container(slowly), await gateway.container(says(answer(b"ok")))
    gateway.route("demo", variant(slow, fast))
    gateway.route("each", variant(fast, name="fast"), variant(slow, name="slow"))
    for _ in range(ANSWERS):
        begun = gateway.state.loop.time()
        await gateway.invoke("each", X_Amzn_SageMaker_Target_Variant="fast")
        longest = max(longest, gateway.state.loop.time() - begun)  # however slow this machine is just now
    asked = (gateway.invoke("each", X_Amzn_SageMaker_Target_Variant="slow") for _ in range(ANSWERS))
    await asyncio.gather(*asked)
    await wait_for(lambda: gateway.state.outliers.out == {f"i-{slow.port}"})
    for _ in range(10):
        await gateway.invoke("demo")
    assert len(slow.requests) == ANSWERS


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


async def test_an_endpoint_whose_instances_are_all_down_is_unavailable(gateway: Gateway) -> None:
    gateway.route("demo", variant())
    reply = await gateway.invoke("demo")
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (503, "ServiceUnavailable")
