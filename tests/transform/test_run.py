"""One object on its way, with containers that answer when the test wants it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO, Any, cast

import pytest

from clary.core.batching import MIB
from clary.core.framing import BadData
from clary.core.processing import Processing
from clary.core.tabular import format_of
from clary.core.transform import Pace, Work
from clary.objects import ObjectHead, Objects
from clary.transform import lane as lanes
from clary.transform import run as runs
from clary.transform.calls import Asking, Caller
from clary.transform.inputs import Input
from clary.transform.lane import Lane
from clary.transform.run import LookedInto, ObjectFailed, Run, Terms

WORK = Work({"TransformInput": {"SplitType": "Line"}, "TransformOutput": {"S3OutputPath": "s3://out"}})
GIVEN = Input(0, "s3://in/x", "x", ObjectHead(1, "e"))


class Stored:
    """An object, and what is uploaded of it."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.uploaded = b""

    async def chunks(self, url: str, head: ObjectHead, patience: float) -> AsyncIterator[bytes]:
        yield self._content

    async def upload(self, url: str, file: IO[bytes], content_type: str) -> None:
        self.uploaded = file.read()


class Container:
    """Answers each line with what `answer` makes of it, the first one after `gate` opens."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self.gate = asyncio.Event()
        self.asked: list[bytes] = []

    async def ask(self, asking: Asking) -> None:
        body: bytes | None = asking.body
        while body is not None:
            self.asked.append(body)
            if len(self.asked) == 1:
                await self.gate.wait()
            await asyncio.sleep(0)
            body = asking.answered(self._answer(body))


def begun(
    folder: Path, stored: Stored, container: Container, processing: Processing | None = None
) -> tuple[asyncio.Task[None], list[asyncio.Task[None]]]:
    pace = Pace(4, MIB, single=True)
    lane = Lane(pace)
    terms = Terms(WORK, pace, processing, cast("Objects", stored), folder)
    senders = [asyncio.create_task(lane.send(cast("Caller", container))) for _ in range(4)]
    run = Run(terms, lane, GIVEN)
    return asyncio.create_task(run.run()), senders


def through(test: Callable[[], Any]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())


def test_answers_that_wait_for_the_first_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "MOST_HELD", 200)
    lines = [b"%d\n" % number for number in range(500)]

    async def test() -> None:
        stored, container = Stored(b"".join(lines)), Container(lambda body: body.strip() * 50 + b"\n")
        running, senders = begun(tmp_path, stored, container)
        before, quiet = 0, 0
        while quiet < 50:  # until it stands still, for many turns of the loop
            await asyncio.sleep(0.002)
            now = len(container.asked)
            before, quiet = now, quiet + 1 if now == before > 1 else 0
        assert before < 10
        container.gate.set()
        await running
        assert stored.uploaded == b"".join(line.strip() * 50 + b"\n" for line in lines)
        for sender in senders:
            sender.cancel()

    through(test)


def test_the_record_whose_answer_is_bad_is_named(tmp_path: Path) -> None:
    kind = format_of("application/jsonlines", by_lines=True)
    assert kind is not None

    async def test() -> None:
        stored = Stored(b"1\n2\n3\n")
        container = Container(lambda body: b"oops\n" if body == b"3\n" else b"0\n")
        running, senders = begun(tmp_path, stored, container, Processing(kind, join=True))
        await asyncio.sleep(0.1)
        container.gate.set()
        with pytest.raises(ObjectFailed, match="Failed to parse output") as raised:
            await running
        assert raised.value.record == "record 3"
        assert raised.value.failure.body == b"oops\n"
        for sender in senders:
            sender.cancel()

    through(test)


def test_a_large_output_is_gathered_where_the_job_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "IN_MEMORY", 10)

    async def test() -> None:
        stored, container = Stored(b"1\n2\n" * 20), Container(lambda body: body * 10)
        container.gate.set()
        places: list[str] = []
        whole = stored.upload

        async def upload(url: str, file: IO[bytes], content_type: str) -> None:
            places.append(str(Path(f"/proc/self/fd/{file.fileno()}").readlink()))
            await whole(url, file, content_type)

        monkeypatch.setattr(stored, "upload", upload)
        running, senders = begun(tmp_path, stored, container)
        await running
        assert places[0].startswith(str(tmp_path))
        for sender in senders:
            sender.cancel()

    through(test)


def test_how_far_an_object_is_can_be_seen_before_its_end(tmp_path: Path) -> None:
    async def test() -> None:
        pace, seen = Pace(1, MIB, single=True), []
        run = Run(Terms(WORK, pace, None, cast("Objects", Stored(b"1\n2\n3\n4\n")), tmp_path), Lane(pace), GIVEN)

        def answer(body: bytes) -> bytes:
            seen.append(run.size)
            return body

        container = Container(answer)
        container.gate.set()
        sender = asyncio.create_task(run._lane.send(cast("Caller", container)))
        await run.run()
        assert (seen, run.size) == ([0, 2, 4, 6], 8)
        sender.cancel()

    through(test)


def test_a_record_without_an_end_is_not_gathered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "PRODUCT", 1)
    kind = format_of("text/csv", by_lines=True)
    assert kind is not None
    looked = LookedInto(Processing(kind, join=True), WORK, Pace(1, MIB, single=False))
    assert looked.feed(b"x" * MIB) == []
    with pytest.raises(BadData, match="Record is larger than 1MB") as raised:
        looked.feed(b"x")
    assert raised.value.record == 1
