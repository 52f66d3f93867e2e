"""InvokeEndpointWithResponseStream: events as the container's bytes come, and errors before and among them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import ClientError, EventStreamError

from clary.core.identities import Principal
from clary.core.policy import parse
from tests.gateway.conftest import KEY, REGION, SECRET, Gateway, Script, answer, pipeline, read_reply, says, wait_for

PATH = "/endpoints/demo/invocations-response-stream"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def drips(*pieces: bytes, then: Callable[[asyncio.StreamWriter], None] | None = None) -> Script:
    """Make a script that answers in pieces, a moment apart; `then` is called instead of the end."""

    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        for piece in pieces:
            writer.write(chunk(piece))
            await writer.drain()
            await asyncio.sleep(0.03)
        if then is None:
            writer.write(b"0\r\n\r\n")
        else:
            then(writer)

    return script


def stays(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
    """Answer a beginning, and never go on."""
    writer.write(CHUNKED + chunk(b"begun"))
    return reader.read()


def events(body: bytes) -> list[tuple[str, bytes]]:
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    kinds = (":event-type", ":exception-type")
    return [(next(e.headers[kind] for kind in kinds if kind in e.headers), e.payload) for e in buffer]


async def stream(gateway: Gateway, **headers: str) -> Any:
    return await gateway.send(gateway.signed(PATH, b"{}", headers))


def client(gateway: Gateway, **options: Any) -> Any:
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=f"http://127.0.0.1:{gateway.port}",
        region_name=REGION,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(retries={"total_max_attempts": 1}),
        **options,
    )


async def test_each_piece_is_an_event_and_the_headers_move(gateway: Gateway) -> None:
    container = await gateway.serve("demo", drips(b"one", b"two"))
    reply = await stream(
        gateway, X_Amzn_SageMaker_Accept="text/event-stream", X_Amzn_SageMaker_Custom_Attributes="t=1", Accept="*/*"
    )
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/vnd.amazon.eventstream"
    assert reply.headers["x-amzn-sagemaker-content-type"] == "text/event-stream"
    assert reply.headers["x-amzn-invoked-production-variant"] == "AllTraffic"
    assert events(reply.body) == [("PayloadPart", b"one"), ("PayloadPart", b"two")]
    head = container.requests[0].lower()
    assert b"\r\naccept: text/event-stream\r\n" in head
    assert b"*/*" not in head
    assert b"custom-attributes: t=1" in head


async def test_the_first_event_is_there_before_the_container_goes_on(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    async def waits(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + chunk(b"first"))
        await writer.drain()
        await go_on.wait()
        writer.write(chunk(b"second") + b"0\r\n\r\n")

    await gateway.serve("demo", waits)
    reader, writer = await gateway.connect()
    writer.write(gateway.signed(PATH, b"{}"))
    await reader.readuntil(b"\r\n\r\n")
    size = int(await reader.readline(), 16)
    assert events(await reader.readexactly(size)) == [("PayloadPart", b"first")]
    go_on.set()
    await reader.read(1)
    writer.close()


async def test_an_answer_with_a_length_becomes_a_stream_too(gateway: Gateway) -> None:
    await gateway.serve("demo", says(answer(b"whole", headers=b"Content-Type: application/json\r\n")))
    reply = await stream(gateway)
    assert (events(reply.body), "content-length" in reply.headers) == ([("PayloadPart", b"whole")], False)


async def test_what_fails_before_the_answer_is_an_ordinary_error(gateway: Gateway) -> None:
    await gateway.serve("demo", says(answer(b"no", b"500 Oops")))
    reply = await stream(gateway)
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (424, "ModelError")
    assert json.loads(reply.body)["OriginalMessage"] == "no"
    gone = await gateway.send(gateway.signed("/endpoints/gone/invocations-response-stream", b""))
    assert (gone.status, gone.headers["x-amzn-errortype"]) == (400, "ValidationError")


async def test_a_stream_that_takes_too_long_ends_with_an_event_that_says_so(gateway: Gateway) -> None:
    await gateway.serve("demo", stays)
    under_way = asyncio.create_task(stream(gateway))
    await wait_for(lambda: any(each._sent for each in gateway.state.stream_deadlines))
    gateway.time_out(gateway.state.stream_deadlines)
    [begun, (kind, payload)] = events((await under_way).body)
    assert (begun, kind) == (("PayloadPart", b"begun"), "ModelStreamError")
    assert json.loads(payload) == {
        "Message": "Your model primary did not complete sending the inference response in the allotted time.",
        "ErrorCode": "ModelInvocationTimeExceeded",
    }
    assert gateway.state.load == {}


async def test_the_limit_of_an_ordinary_invocation_is_not_that_of_a_stream(gateway: Gateway) -> None:
    gateway.state.model_timeout = 0.05
    await gateway.serve("demo", drips(*[b"x"] * 6))
    assert events((await stream(gateway)).body) == [("PayloadPart", b"x")] * 6


async def test_a_broken_stream_says_so_and_leaves_the_connection_usable(gateway: Gateway) -> None:
    await gateway.serve("demo", drips(b"one", then=lambda writer: writer.close()))
    reader, writer = await gateway.connect()
    for _ in range(2):
        writer.write(gateway.signed(PATH, b"{}"))
        [first, (kind, payload)] = events((await read_reply(reader)).body)
        assert (first, kind) == (("PayloadPart", b"one"), "ModelStreamError")
        assert json.loads(payload)["ErrorCode"] == "StreamBroken"
    writer.close()


async def test_a_gateway_that_ends_says_so_to_the_streams_under_way(gateway: Gateway) -> None:
    await gateway.serve("demo", stays)
    under_way = asyncio.create_task(stream(gateway))
    await wait_for(lambda: any(each._sent for each in gateway.state.stream_deadlines))
    gateway.state.interrupt_streams()
    [_, (kind, payload)] = events((await under_way).body)
    assert (kind, json.loads(payload)) == ("InternalStreamFailure", {"Message": "The server is being stopped."})


async def test_a_pipeline_streams_what_its_last_container_says(gateway: Gateway) -> None:
    first, last = await gateway.container(says(answer(b"middle"))), await gateway.container(drips(b"a", b"b"))
    gateway.route("demo", pipeline(first, last))
    assert events((await stream(gateway)).body) == [("PayloadPart", b"a"), ("PayloadPart", b"b")]
    assert last.requests[0].endswith(b"\r\n\r\nmiddle")


async def test_no_session_is_opened_by_a_stream(gateway: Gateway) -> None:
    container = await gateway.serve("demo", drips())
    reply = await stream(gateway, X_Amzn_SageMaker_Session_Id="NEW_SESSION")
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (400, "ValidationError")
    assert container.requests == []


@pytest.mark.parametrize(("action", "status"), [("InvokeEndpoint", 403), ("InvokeEndpointWithResponseStream", 200)])
async def test_it_has_a_permission_of_its_own(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, action: str, status: int
) -> None:
    await gateway.serve("demo", drips(b"x"))
    allowed = {"Effect": "Allow", "Action": f"sagemaker:{action}", "Resource": "*"}
    user = Principal(
        "arn:aws:iam::123456789012:user/u", "U", (parse({"Version": "2012-10-17", "Statement": [allowed]}),)
    )
    monkeypatch.setattr(gateway.state, "principal", lambda identity: user)
    reply = await stream(gateway)
    assert reply.status == status
    if status == 403:
        assert "not authorized to perform: sagemaker:InvokeEndpointWithResponseStream on" in reply.body.decode()


async def test_boto3_reads_events_and_raises_what_the_stream_ends_with(gateway: Gateway) -> None:
    await gateway.serve("demo", drips(b"one", b"two", then=lambda writer: writer.close()))

    def read() -> tuple[dict[str, Any], list[bytes], EventStreamError]:
        with contextlib.closing(client(gateway)) as runtime:
            got = runtime.invoke_endpoint_with_response_stream(
                EndpointName="demo", Body=b"{}", Accept="text/event-stream"
            )
            pieces = []
            with contextlib.closing(got["Body"]) as events_of, pytest.raises(EventStreamError) as caught:
                for event in events_of:
                    pieces.append(event["PayloadPart"]["Bytes"])
        return got, pieces, caught.value

    got, pieces, error = await asyncio.to_thread(read)
    assert (got["ContentType"], got["InvokedProductionVariant"]) == ("text/event-stream", "AllTraffic")
    assert pieces == [b"one", b"two"]
    assert error.response["Error"]["Code"] == "ModelStreamError"


async def test_boto3_gets_an_error_before_the_stream_as_an_exception(gateway: Gateway) -> None:
    await gateway.serve("demo", says(answer(b"no", b"400 Bad")))
    refused = pytest.raises(ClientError, match=r"\(ModelError\).*Received client error \(400\) from primary")
    with contextlib.closing(client(gateway)) as runtime, refused:
        await asyncio.to_thread(lambda: runtime.invoke_endpoint_with_response_stream(EndpointName="demo", Body=b"{}"))


@pytest.fixture(scope="session")
def javascript_sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the JavaScript SDK's client; skip, visibly, where npm or its registry is not to be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("the JavaScript SDK is not tried: install node and npm")
    folder = tmp_path_factory.mktemp("javascript")
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "@aws-sdk/client-sagemaker-runtime"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("the JavaScript SDK is not tried: npm's registry does not answer in time")
    if done.returncode != 0:
        pytest.skip(f"the JavaScript SDK is not tried: npm cannot install it: {done.stderr.strip()[-200:]}")
    return folder


_SCRIPT = """
const { SageMakerRuntimeClient, InvokeEndpointWithResponseStreamCommand, InvokeEndpointCommand }
    = require("@aws-sdk/client-sagemaker-runtime");
(async () => {
  const client = new SageMakerRuntimeClient({ endpoint: process.argv[2], region: "us-east-1", maxAttempts: 1 });
  const plain = await client.send(new InvokeEndpointCommand({ EndpointName: "plain", Body: "{}" }));
  const said = { plain: Buffer.from(plain.Body).toString(), parts: [] };
  const answer = await client.send(new InvokeEndpointWithResponseStreamCommand({ EndpointName: "demo", Body: "{}" }));
  said.type = answer.ContentType;
  try {
    for await (const event of answer.Body) said.parts.push(Buffer.from(event.PayloadPart.Bytes).toString());
  } catch (error) {
    said.error = [error.name, error.ErrorCode];
  }
  console.log(JSON.stringify(said));
})();
"""


async def test_the_javascript_sdk_reads_it(gateway: Gateway, javascript_sdk: Path) -> None:
    await gateway.serve("demo", drips(b"one", b"two", then=lambda writer: writer.close()))
    await gateway.serve("plain", says(answer(b"whole")))
    (javascript_sdk / "stream.js").write_text(_SCRIPT)
    environment = {"PATH": os.environ["PATH"], "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    def run() -> subprocess.CompletedProcess[str]:
        command = ["node", "stream.js", f"http://127.0.0.1:{gateway.port}"]
        return subprocess.run(command, cwd=javascript_sdk, env=environment, capture_output=True, text=True, timeout=300)

    done = await asyncio.to_thread(run)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["plain"], said["type"], said["parts"]) == ("whole", "text/event-stream", ["one", "two"])
    assert said["error"] == ["ModelStreamError", "StreamBroken"]


async def test_a_client_that_leaves_a_stream_frees_its_place(gateway: Gateway) -> None:
    await gateway.serve("demo", stays)
    _, writer = await gateway.connect()
    writer.write(gateway.signed(PATH, b"{}"))
    await wait_for(lambda: gateway.state.load)
    writer.close()
    await wait_for(lambda: not gateway.state.load and not gateway.state.stream_deadlines)
