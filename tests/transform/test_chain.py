"""The whole of a job but for its processes: any bytes go through the agent and a container's socket. What is written is
compared with what a slow and obvious reference makes of them, which shares no code with the agent.
"""

from __future__ import annotations

import asyncio
import csv
import errno
import gzip
import io
import json
import struct
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

import clary.core.transform
from clary.core.transform import Outcome
from clary.jobfolder import Instances, JobFolder
from clary.logs.folder import LogFolder
from clary.objecterrors import ObjectNotFound, ObjectRefused
from clary.objects import ObjectHead, Objects
from clary.transform.agent import Agent

from .container import Bucket, Container, Request, good

Strategy = Literal["SingleRecord", "MultiRecord"]


@dataclass(frozen=True)
class Job:
    """What a job is told. `limit` in bytes, for the tests' sake; 0: any size."""

    split: Literal["None", "Line", "RecordIO", "TFRecord"] = "Line"
    strategy: Strategy = "MultiRecord"
    limit: int = 6
    at_once: int = 1
    is_gzip: bool = False
    by_lines: bool = False
    content_type: str = ""
    processing: tuple[str, str, bool] = ("$", "$", False)
    """InputFilter, OutputFilter, and whether answers are joined to their records."""
    captured: str = ""

    def request(self) -> dict[str, Any]:
        incoming, outgoing, join = self.processing
        source = {"S3DataType": "S3Prefix", "S3Uri": "s3://in/x/"}
        return {
            "TransformInput": {
                "DataSource": {"S3DataSource": source},
                "SplitType": self.split,
                "CompressionType": "Gzip" if self.is_gzip else "None",
                "ContentType": self.content_type,
            },
            "TransformOutput": {"S3OutputPath": "s3://out", "AssembleWith": "Line" if self.by_lines else "None"},
            "BatchStrategy": self.strategy,
            "MaxPayloadInMB": self.limit,
            "MaxConcurrentTransforms": self.at_once,
            "DataProcessing": {
                "InputFilter": incoming,
                "OutputFilter": outgoing,
                "JoinSource": "Input" if join else "None",
            },
            **({"DataCaptureConfig": {"DestinationS3Uri": self.captured}} if self.captured else {}),
        }


def transformed(
    job: Job, inputs: Sequence[bytes], answered: Callable[[bytes], bytes], piece: int = 7
) -> tuple[list[bytes | None], Outcome]:
    """Do the job with an agent; give the output of each object, None where there is none, and how it ended."""

    def answer(request: Request) -> Iterable[bytes]:
        if request.head.startswith(b"GET"):
            return [good(b"", status=b"404 Not Found")]
        return [good(answered(request.body))]

    stored = [gzip.compress(body) if job.is_gzip and body else body for body in inputs]
    bucket = Bucket({f"s3://in/x/{number:04}": body for number, body in enumerate(stored)}, piece)

    async def run(folder: JobFolder) -> None:
        async with asyncio.timeout(60), Container(answer) as container:
            folder.create({"name": "job", "since": 0, "instances": ["i"], "request": job.request()})
            folder.offer(Instances(1.0, {"i": (container.hop,)}))
            await Agent(folder, cast("Objects", bucket), LogFolder(folder.path / "logs")).work()

    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(clary.core.transform, "MIB", 1)
        folder = JobFolder(Path(name) / "job")
        asyncio.run(run(folder))
        outcome = folder.outcome()
    assert outcome is not None
    assert len(bucket.uploads) == len(set(bucket.uploads))
    return [bucket.objects.get(f"s3://out/{number:04}.out") for number in range(len(inputs))], outcome


# -- the reference -----------------------------------------------------------------------------------------------------


def lines_of(data: bytes) -> list[bytes]:
    found, line = [], b""
    for number in range(len(data)):
        line += data[number : number + 1]
        if line[-1:] == b"\n":
            found.append(line)
            line = b""
    return [*found, line] if line else found


def requests_of(records: Sequence[bytes], job: Job) -> list[list[bytes]] | None:
    """Put records together as long as they fit; None where one of them does not fit at all."""
    if job.limit and any(len(record) > job.limit for record in records):
        return None
    groups: list[list[bytes]] = []
    for record in records:
        last = groups[-1] if groups else []
        if last and job.strategy == "MultiRecord" and (not job.limit or len(b"".join(last)) + len(record) <= job.limit):
            last.append(record)
        else:
            groups.append([record])
    return groups


def assembled(answers: Iterable[bytes], job: Job) -> bytes:
    return b"".join(answer + b"\n" if job.by_lines and not answer.endswith(b"\n") else answer for answer in answers)


def wrapped(body: bytes) -> bytes:
    """What the container makes of a request, in which it can be seen where the request begins and ends."""
    return b"<" + body[::-1] + b">"


def expected(data: bytes, job: Job) -> bytes | None:
    if not data:
        return b""
    if job.limit == 0 and (job.split == "None" or job.strategy == "MultiRecord"):
        return assembled([wrapped(data)], job)
    records = [data] if job.split == "None" else lines_of(data)
    groups = requests_of(records, job)
    return None if groups is None else assembled((wrapped(b"".join(group)) for group in groups), job)


# -- any bytes ---------------------------------------------------------------------------------------------------------

PARTS = some.sampled_from([b"\n", b"\r\n", b"a", b"1,2", b"\xff\xfe", b"\xef\xbb\xbf", b"long" * 4])
BYTES = some.one_of(some.binary(max_size=40), some.lists(PARTS, max_size=12).map(b"".join))
JOBS = some.builds(
    Job,
    split=some.sampled_from(["None", "Line"]),
    strategy=some.sampled_from(["SingleRecord", "MultiRecord"]),
    limit=some.sampled_from([0, 1, 5, 12, 100]),
    at_once=some.sampled_from([1, 4]),
    is_gzip=some.booleans(),
    by_lines=some.booleans(),
)
MANY = settings(max_examples=30, deadline=None)


@MANY
@given(job=JOBS, inputs=some.lists(BYTES, min_size=1, max_size=4), piece=some.sampled_from([1, 7, 1000]))
@example(Job(limit=6), [b"1\n2\n3", b"", b"a\r\n\r\nb\n", b"longer than that\n1\n", b"\xff\n\xfe"], 1)
@example(Job(limit=6, strategy="SingleRecord", at_once=4, by_lines=True), [b"\n\n", b"1\n2\n3\n4\n5\n6\n7\n8\n9\n"], 7)
@example(Job(limit=0, is_gzip=True, by_lines=True), [b"no end", b"an end\n", b""], 7)
def test_any_bytes(job: Job, inputs: list[bytes], piece: int) -> None:
    outputs, outcome = transformed(job, inputs, wrapped, piece)
    assert outputs == [expected(data, job) for data in inputs]
    assert outcome.ending == ("Failed" if None in outputs else "Completed")
    if None in outputs:
        assert f"s3://in/x/000{outputs.index(None)}" in outcome.reason or outputs.count(None) > 1


# -- records that are looked into --------------------------------------------------------------------------------------

FIELDS = some.text(some.sampled_from('abÄ 7,"'), max_size=4)
ROWS = some.lists(some.lists(FIELDS, min_size=3, max_size=5), max_size=8)
CSV_FILTERS: dict[str, Callable[[list[str]], list[str]]] = {
    "$": lambda row: row,
    "$[1:]": lambda row: row[1:],
    "$[0]": lambda row: row[:1],
    "$[0,2]": lambda row: [row[0], row[2]],
    "$[-1]": lambda row: row[-1:],
    "$[:2]": lambda row: row[:2],
}
CSV_OUTGOING = {path: CSV_FILTERS[path] for path in ("$", "$[0]", "$[-1]")}


def written(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def read(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


def counted(body: bytes) -> bytes:
    """Answer each row with the number of its fields and the fields in one."""
    return b"".join(written([[str(len(row)), "|".join(row)]]) for row in read(body))


@MANY
@given(
    inputs=some.lists(ROWS, min_size=1, max_size=3),
    incoming=some.sampled_from(list(CSV_FILTERS)),
    outgoing=some.sampled_from(list(CSV_OUTGOING)),
    join=some.booleans(),
    strategy=some.sampled_from(["SingleRecord", "MultiRecord"]),
    at_once=some.sampled_from([1, 4]),
)
def test_rows_that_are_filtered_and_joined(
    inputs: list[list[list[str]]], incoming: str, outgoing: str, join: bool, strategy: Strategy, at_once: int
) -> None:
    job = Job("Line", strategy, 100, at_once, content_type="text/csv", processing=(incoming, outgoing, join))
    outputs, outcome = transformed(job, [written(rows) for rows in inputs], counted)
    assert outcome.ending == "Completed", outcome
    for rows, output in zip(inputs, outputs, strict=True):
        assert output is not None
        made = []
        for row in rows:
            sent = CSV_FILTERS[incoming](row)
            answer = [str(len(sent)), "|".join(sent)]
            made.append(CSV_OUTGOING[outgoing](row + answer if join else answer))
        assert read(output) == made


DOCUMENTS = some.lists(
    some.fixed_dictionaries({"a": some.integers(-99, 99), "b": some.text(max_size=3)}, optional={"c": some.none()}),
    max_size=8,
)
JSON_FILTERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "$": lambda record: record,
    "$.a": lambda record: record["a"],
    "$['a','b']": lambda record: {"a": record["a"], "b": record["b"]},
}


@MANY
@given(
    records=DOCUMENTS,
    incoming=some.sampled_from(list(JSON_FILTERS)),
    join=some.booleans(),
    path=some.sampled_from(["$", "$.SageMakerOutput"]),
    strategy=some.sampled_from(["SingleRecord", "MultiRecord"]),
)
def test_documents_that_are_filtered_and_joined(
    records: list[dict[str, Any]], incoming: str, join: bool, path: str, strategy: Strategy
) -> None:
    def answered(body: bytes) -> bytes:
        return b"".join(json.dumps({"saw": json.loads(line)}).encode() + b"\n" for line in lines_of(body))

    if not join:
        path = path.replace("SageMakerOutput", "saw")
    data = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    job = Job("Line", strategy, 100, 2, content_type="application/jsonlines", processing=(incoming, path, join))
    (output,), outcome = transformed(job, [data], answered)
    assert outcome.ending == "Completed", outcome
    assert output is not None
    made = []
    for record in records:
        saw = {"saw": JSON_FILTERS[incoming](record)}
        whole: Any = {**record, "SageMakerOutput": saw} if join else saw
        made.append(whole if path == "$" else saw if join else saw["saw"])
    assert [json.loads(line) for line in output.splitlines()] == made


# -- records in frames -------------------------------------------------------------------------------------------------


def checksum(data: bytes) -> bytes:
    """TFRecord's, a bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def framed(payload: bytes, split: str) -> bytes:
    if split == "TFRecord":
        length = struct.pack("<Q", len(payload))
        return length + checksum(length) + payload + checksum(payload)
    return struct.pack("<II", 0xCED7230A, len(payload)) + payload + b"\0" * (-len(payload) % 4)


@pytest.mark.parametrize("split", ["RecordIO", "TFRecord"])
@settings(MANY, max_examples=15)
@given(
    payloads=some.lists(some.binary(max_size=12), max_size=8),
    strategy=some.sampled_from(["SingleRecord", "MultiRecord"]),
    piece=some.sampled_from([1, 7, 1000]),
)
def test_records_in_frames(
    split: Literal["RecordIO", "TFRecord"], payloads: list[bytes], strategy: Strategy, piece: int
) -> None:
    job = Job(split, strategy, 60, at_once=3)
    data = b"".join(framed(payload, split) for payload in payloads)
    (output,), outcome = transformed(job, [data], wrapped, piece)
    records = payloads if strategy == "SingleRecord" else [framed(payload, split) for payload in payloads]
    groups = requests_of(records, job)
    assert groups is not None
    assert (output, outcome.ending) == (b"".join(wrapped(b"".join(group)) for group in groups), "Completed")


# -- many --------------------------------------------------------------------------------------------------------------


def test_thousands_of_small_objects() -> None:
    inputs = [b"%d\n" % number if number % 10 else b"" for number in range(3000)]
    outputs, outcome = transformed(Job(at_once=8, strategy="SingleRecord"), inputs, wrapped)
    assert outcome == Outcome("Completed")
    assert outputs == [expected(data, Job(strategy="SingleRecord")) for data in inputs]


# -- what is wrong with the bucket -------------------------------------------------------------------------------------


REASON = "ClientError: See job logs for more information."


class NoOutput(Bucket):
    """There is no bucket of one name."""

    missing = ""

    async def any_below(self, url: str) -> bool:
        if url != f"s3://{self.missing}/":
            return False
        raise ObjectNotFound(f"{url}: there is no such bucket")


@pytest.mark.parametrize("missing", ["out", "captured"])
def test_no_model_works_for_a_bucket_that_is_not_there(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.Bucket", NoOutput)
    monkeypatch.setattr(NoOutput, "missing", missing)
    outputs, outcome = transformed(Job(captured="s3://captured"), [b"1\n", b""], wrapped)
    assert outcome.reason == f"{REASON} s3://{missing}/: there is no such bucket"
    assert outputs == [None, None]


class Guarded(Bucket):
    """Nobody may list the outputs, and those of empty objects find no place."""

    async def any_below(self, url: str) -> bool:
        raise ObjectRefused(f"{url}: the store refuses access to it")

    async def upload(self, url: str, file: IO[bytes], content_type: str = "") -> None:
        if not file.read():
            raise ObjectNotFound(f"{url}: there is no such bucket")
        file.seek(0)
        await super().upload(url, file, content_type)


def test_an_empty_object_whose_output_finds_no_place_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.Bucket", Guarded)
    outputs, outcome = transformed(Job(), [b"1\n", b""], lambda body: body)
    assert outputs == [b"1\n", None]
    assert "0001: s3://out/0001.out: there is no such bucket. (1 of 2 objects failed.)" in outcome.reason


class Changing(Bucket):
    """Objects are replaced while they are read."""

    async def chunks(self, url: str, head: ObjectHead, patience: float) -> AsyncIterator[bytes]:
        yield b"1\n"
        raise ObjectRefused(f"{url}: it is another version than before")


def test_what_is_said_of_an_object_names_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.Bucket", Changing)
    _, outcome = transformed(Job(), [b"1\n2\n"], wrapped)
    assert outcome.reason == f"{REASON} s3://in/x/0000: it is another version than before."


# -- what is nobody's fault but ours -----------------------------------------------------------------------------------


class FullDisk(io.BytesIO):
    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("limit", [0, 6])
def test_a_full_disk_is_not_blamed_on_the_container(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clary.transform.run.tempfile.SpooledTemporaryFile", lambda size, dir: FullDisk())
    asked: list[bytes] = []

    def noted(body: bytes) -> bytes:
        asked.append(body)
        return body

    outputs, outcome = transformed(Job(limit=limit), [b"1\n"], noted)
    assert outputs == [None]
    assert outcome.reason.startswith("InternalServerError: See job logs for more information.")
    assert "Failed to gather the output: No space left on device" in outcome.reason
    assert asked == [b"1\n"]  # the model's work would be in vain
