"""Where notifications go, each against a real peer: an SNS that is not ours, a server, a file."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from clary.controllers.asynchronous import publishers
from clary.controllers.asynchronous.publishers import File, Sns, Webhook
from clary.errors import Fatal, Transient
from tests import sns as peer

MESSAGE = json.dumps({"eventName": "InferenceResult", "odd": "a=b&c d +\u00e9"})


@pytest.fixture(scope="module")
def moto() -> Iterator[peer.Sns]:
    with peer.running_sns() as found:
        yield found


async def test_sns_gets_the_message_as_it_is(moto: peer.Sns) -> None:
    await Sns(f"{moto.url}/", peer.KEY, peer.SECRET).publish(moto.topic, MESSAGE, "id")
    assert moto.messages() == [json.loads(MESSAGE)]


async def test_a_topic_that_is_not_there_never_will_be(moto: peer.Sns) -> None:
    with pytest.raises(Fatal, match="NotFound"):
        await Sns(moto.url, peer.KEY, peer.SECRET).publish(f"{moto.topic}-not", MESSAGE, "id")


class Listener:
    """A server that answers as it is told and keeps what it got."""

    def __init__(self) -> None:
        self.status = 200
        self.text = ""
        self.got: list[tuple[dict[str, str], str]] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.got.append(({name.lower(): value for name, value in request.headers.items()}, await request.text()))
        return web.Response(status=self.status, text=self.text)


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    found = Listener()
    app = web.Application()
    app.router.add_post("/hook", found.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield found
    await runner.cleanup()


async def test_a_webhook_gets_what_snss_subscribers_get(listener: Listener) -> None:
    await Webhook(listener.url).publish("arn:t", MESSAGE, "id")
    ((headers, body),) = listener.got
    assert headers["x-amz-sns-message-type"] == "Notification"
    assert headers["x-amz-sns-topic-arn"] == "arn:t"
    found = json.loads(body)
    assert (found["Type"], found["TopicArn"], found["Message"]) == ("Notification", "arn:t", MESSAGE)
    assert found["MessageId"] == headers["x-amz-sns-message-id"] == "id"


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_trouble_of_the_other_side_passes(listener: Listener, status: int) -> None:
    listener.status = status
    with pytest.raises(Transient):
        await Webhook(listener.url).publish("arn:t", MESSAGE, "id")


async def test_throttling_passes_whatever_its_status(listener: Listener) -> None:
    listener.status, listener.text = 400, "<Code>Throttling</Code>"
    with pytest.raises(Transient):
        await Webhook(listener.url).publish("arn:t", MESSAGE, "id")


@pytest.mark.parametrize("status", [301, 400, 403, 404])
async def test_a_refusal_does_not_pass(listener: Listener, status: int) -> None:
    listener.status = status
    with pytest.raises(Fatal, match=str(status)):
        await Webhook(listener.url).publish("arn:t", MESSAGE, "id")


async def test_nobody_there_passes() -> None:
    with pytest.raises(Transient, match=r"does not answer: Cannot connect to host 127\.0\.0\.1:1"):
        await Webhook("http://127.0.0.1:1/").publish("arn:t", MESSAGE, "id")


async def test_a_file_gets_a_line_each_and_is_moved_aside_when_it_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishers, "LARGEST_FILE", 1000)
    file = tmp_path / "notifications.jsonl"
    for _ in range(6):
        await File(file).publish("arn:t", MESSAGE, "id")
    written = [path.read_text() for path in (file.with_name("notifications.jsonl.1"), file) if path.exists()]
    lines = [json.loads(line) for line in "".join(written).splitlines()]
    assert [line["Message"] for line in lines] == [MESSAGE] * len(lines)
    assert 3 <= len(lines) <= 6


async def test_a_file_that_cannot_be_written_may_be_later(tmp_path: Path) -> None:
    with pytest.raises(Transient):
        await File(tmp_path / "none" / "file").publish("arn:t", MESSAGE, "id")


async def test_a_file_is_moved_aside_by_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, most, append = 0, 0, File._append

    def counted(self: File, line: str) -> None:
        nonlocal writing, most
        writing += 1
        most = max(most, writing)
        time.sleep(0.01)
        append(self, line)
        writing -= 1

    monkeypatch.setattr(File, "_append", counted)
    file = File(tmp_path / "notifications.jsonl")
    await asyncio.gather(*(file.publish("arn:t", MESSAGE, "id") for _ in range(8)))
    assert most == 1
