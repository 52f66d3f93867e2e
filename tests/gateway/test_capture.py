"""Data capture: what is kept, how it is written, and that nobody waits for it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import threading
from dataclasses import replace
from typing import Any

import pytest

from clary.core.routing import DataCapture, EndpointRoute
from clary.errors import Fatal, Transient
from clary.gateway import capture_writer
from clary.gateway.capture import Capture, Captured
from clary.gateway.capture_writer import CaptureWriter, line
from tests.gateway.conftest import Gateway, answer, says, variant, wait_for

CAPTURE = DataCapture("s3://bucket/prefix", 100, True, True, ("text/csv",), ("application/json",))
ONE = Captured(
    endpoint="demo",
    variant="AllTraffic",
    capture=CAPTURE,
    event_id="id-1",
    time=1644858306.25,  # 2022-02-14T17:05:06Z
    request=b"1,2,3\n",
    request_type="text/csv",
    answer=b"0.02",
    answer_type="text/csv; charset=utf-8",
)


class Bucket:
    """A store in memory, which fails when it is told to."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.failure: Exception | None = None

    async def put(self, url: str, body: bytes) -> None:
        if self.failure is not None:
            raise self.failure
        self.objects[url] = body


def parsed(captured: Captured) -> Any:
    return json.loads(b"".join(line(captured)))


async def captured(
    gateway: Gateway, capture: DataCapture, raw: bytes = answer(b"ok"), **headers: str
) -> list[Captured]:
    container = await gateway.container(says(raw))
    gateway.put(EndpointRoute("demo", "InService", (variant(container),), capture=capture))
    await gateway.invoke("demo", b"asked", **headers)
    return gateway.state.capture.take()


async def test_an_invocation_is_kept_with_its_answer(gateway: Gateway) -> None:
    [kept] = await captured(
        gateway,
        CAPTURE,
        Content_Type="text/csv",
        X_Amzn_SageMaker_Custom_Attributes="a=1",
        X_Amzn_SageMaker_Inference_Id="i-1",
    )
    assert (kept.request, kept.request_type) == (b"asked", "text/csv")
    assert (kept.answer, kept.answer_type) == (b"ok", "text/plain")
    assert (kept.endpoint, kept.variant) == ("demo", "AllTraffic")
    assert (kept.custom_attributes, kept.inference_id) == ("a=1", "i-1")


async def test_a_failed_invocation_is_not_kept(gateway: Gateway) -> None:
    assert await captured(gateway, CAPTURE, answer(b"no", b"500 Oops")) == []


async def test_a_chunked_answer_is_kept_without_its_framing(gateway: Gateway) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    [kept] = await captured(gateway, CAPTURE, chunked)
    assert kept.answer == b"onetwo"


async def test_an_answer_without_end_is_given_up_and_still_passed_on(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clary.gateway.capture.LARGEST_ANSWER", 1000)
    container = await gateway.container(says(answer(b"x" * 1001)))
    gateway.put(EndpointRoute("demo", "InService", (variant(container),), capture=CAPTURE))
    assert len((await gateway.invoke("demo")).body) == 1001
    assert (gateway.state.capture.take(), gateway.state.capture.dropped) == ([], 1)


@pytest.mark.parametrize(("percentage", "most", "least"), [(0, 0, 0), (20, 140, 30), (100, 400, 400)])
async def test_a_sample_is_kept(gateway: Gateway, percentage: int, most: int, least: int) -> None:
    await captured(gateway, replace(CAPTURE, percentage=percentage))
    for _ in range(400):  # outside of 30 to 140 once in a thousand billion runs
        await gateway.invoke("demo")
    assert least <= len(gateway.state.capture.take()) <= most


def test_a_record_is_what_aws_writes() -> None:
    assert parsed(ONE) == {
        "captureData": {
            "endpointInput": {
                "observedContentType": "text/csv", "mode": "INPUT", "data": "1,2,3\n", "encoding": "CSV",
            },
            "endpointOutput": {
                "observedContentType": "text/csv; charset=utf-8", "mode": "OUTPUT", "data": "0.02", "encoding": "CSV",
            },
        },
        "eventMetadata": {"eventId": "id-1", "inferenceTime": "2022-02-14T17:05:06Z"},
        "eventVersion": "0",
    }  # fmt: skip


def test_what_the_caller_named_is_in_the_metadata() -> None:
    metadata = parsed(replace(ONE, custom_attributes='say "hi"', inference_id="i-1"))["eventMetadata"]
    assert metadata["customAttributes"] == ['say "hi"']
    assert metadata["inferenceId"] == "i-1"


@pytest.mark.parametrize(
    ("content_type", "data", "encoding"),
    [
        ("application/json", b'{"a": "\xc3\xbc\\n"}', "JSON"),
        ("Text/CSV", b"1", "CSV"),
        ("text/csv", b"\xff\xfe", "BASE64"),
        ("application/x-npy", bytes(range(256)) * 1000, "BASE64"),
        ("", b"", "BASE64"),
        ("application/json", "ü𝄞".encode() * 100_000, "JSON"),
    ],
)
def test_data_survives_its_encoding(content_type: str, data: bytes, encoding: str) -> None:
    half = parsed(replace(ONE, request_type=content_type, request=data))["captureData"]["endpointInput"]
    assert (half["encoding"], half["observedContentType"]) == (encoding, content_type)
    assert (base64.b64decode(half["data"]) if encoding == "BASE64" else half["data"].encode()) == data


@pytest.mark.parametrize(
    ("inputs", "outputs", "halves"),
    [(True, False, ["endpointInput"]), (False, True, ["endpointOutput"]), (False, False, [])],
)
def test_only_the_halves_that_are_wanted_are_written(inputs: bool, outputs: bool, halves: list[str]) -> None:
    made = parsed(replace(ONE, capture=replace(CAPTURE, inputs=inputs, outputs=outputs)))
    assert list(made["captureData"]) == halves


async def test_files_are_by_endpoint_variant_and_hour() -> None:
    capture, bucket = Capture(), Bucket()
    later = replace(ONE, time=ONE.time + 3600)
    for each in (ONE, replace(ONE, event_id="id-2"), later, replace(ONE, variant="green")):
        capture.offer(each)
    await CaptureWriter(capture, lambda: bucket, print).write()
    pattern = r"s3://bucket/prefix/demo/(\w+)/2022/02/14/(\d\d)/05-06-250-[0-9a-f-]{36}\.jsonl"
    places = [match.groups() for url in bucket.objects if (match := re.fullmatch(pattern, url))]
    assert places == [("AllTraffic", "17"), ("AllTraffic", "18"), ("green", "17")]
    assert [body.count(b"\n") for body in bucket.objects.values()] == [2, 1, 1]


async def test_much_becomes_several_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_writer, "FILE_BYTES", 25)
    capture, bucket = Capture(), Bucket()
    for _ in range(5):
        capture.offer(ONE)  # ten bytes each
    await CaptureWriter(capture, lambda: bucket, print).write()
    assert [body.count(b"\n") for body in bucket.objects.values()] == [2, 2, 1]


async def test_what_comes_while_the_queue_is_full_is_dropped_and_counted() -> None:
    capture, bucket, dropped = Capture(limit=25), Bucket(), []
    for _ in range(5):
        capture.offer(ONE)
    writer = CaptureWriter(capture, lambda: bucket, dropped.append)
    await writer.write()
    await writer.write()
    assert (sum(body.count(b"\n") for body in bucket.objects.values()), dropped) == (2, [3])


async def test_what_cannot_be_written_now_is_written_later() -> None:
    capture, bucket, dropped = Capture(), Bucket(), []
    writer = CaptureWriter(capture, lambda: bucket, dropped.append)
    bucket.failure = Transient("busy")
    capture.offer(ONE)
    await writer.write()
    bucket.failure = None
    await writer.write()
    assert (len(bucket.objects), dropped) == (1, [])


async def test_what_can_never_be_written_is_dropped_and_counted() -> None:
    capture, bucket, dropped = Capture(), Bucket(), []
    bucket.failure = Fatal("no such bucket")
    capture.offer(ONE)
    writer = CaptureWriter(capture, lambda: bucket, dropped.append)
    await writer.write()
    assert (capture.take(), dropped) == ([], [1])


async def test_the_store_is_made_only_when_it_is_needed() -> None:
    def make() -> Bucket:
        raise AssertionError("nothing to write")

    await CaptureWriter(Capture(), make, print).write()


async def test_a_defect_in_writing_loses_one_file_and_is_counted() -> None:
    capture, bucket, dropped = Capture(), Bucket(), []
    writer = CaptureWriter(capture, lambda: bucket, dropped.append)
    bucket.failure = RuntimeError("a defect")
    capture.offer(ONE)
    await writer.write()
    assert (capture.waiting, dropped) == (0, [1])


async def test_a_store_that_cannot_be_made_costs_nothing_until_the_end() -> None:
    def make() -> Bucket:
        raise OSError("not now")

    capture, dropped = Capture(), []
    capture.offer(ONE)
    writer = CaptureWriter(capture, make, dropped.append)
    with pytest.raises(OSError, match="not now"):
        await writer.write()
    await writer.flush()
    assert (capture.waiting, dropped) == (1, [])
    await writer.finish()
    assert (capture.waiting, dropped) == (0, [1])


@pytest.mark.parametrize("slow", ["make", "write", "refuse"])
async def test_what_there_was_no_time_for_is_counted(monkeypatch: pytest.MonkeyPatch, slow: str) -> None:
    made = threading.Event()

    class Stuck(Bucket):
        async def put(self, url: str, body: bytes) -> None:
            if slow == "write":
                await asyncio.Event().wait()
            raise Transient("busy")

    def make() -> Stuck:
        if slow == "make":
            made.wait()
        return Stuck()

    monkeypatch.setattr(capture_writer, "LAST_WRITE", 600.0 if slow == "refuse" else 0.05)
    capture, dropped = Capture(), []
    capture.offer(ONE)
    capture.offer(replace(ONE, variant="green"))
    await CaptureWriter(capture, make, dropped.append).finish()
    made.set()
    assert (sum(dropped), capture.waiting) == (2, 0)


def test_answers_on_their_way_count_against_the_bound() -> None:
    capture = Capture(limit=10)
    first, second, third = capture.draft(), capture.draft(), capture.draft()
    first.add(b"12345")
    second.add(b"1234")
    third.add(b"12")
    third.add(b"1")  # what has a gap is worth nothing
    assert (third.take(), capture.dropped) == (None, 1)
    assert (first.take(), second.take()) == (b"12345", b"1234")
    assert second.take() is None
    again = capture.draft()
    again.add(b"1234567890")
    assert again.take() == b"1234567890"


async def test_a_client_that_leaves_gives_the_room_back(gateway: Gateway) -> None:
    async def half(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        await reader.read()

    container = await gateway.container(half)
    gateway.put(EndpointRoute("demo", "InService", (variant(container),), capture=CAPTURE))
    reader, writer = await gateway.connect()
    writer.write(gateway.signed("/endpoints/demo/invocations", b"{}"))
    await reader.readuntil(b"half")
    assert gateway.state.capture._size == 4
    writer.close()
    await wait_for(lambda: not gateway.state.capture._size)
