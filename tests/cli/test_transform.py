"""`clary transform` beside a stand-in for a running Clary, and a job's folder as its agent leaves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clary.core.resources import TRANSFORM_LOGS
from clary.core.transform import Progress
from clary.jobfolder import JobFolder
from clary.logs.folder import LogFolder

from .conftest import FakeClary

JOB: dict[str, Any] = {
    "TransformJobName": "night", "TransformJobArn": "arn", "CreationTime": 1_700_000_000, "ModelName": "m"
}  # fmt: skip
HALF = Progress(objects=1, objects_total=4, failed=1, records=3000, size=50, size_total=100, seconds=2.0)


def under_way(clary: FakeClary) -> None:
    folder = JobFolder(clary.data / "run" / "transforms" / "night-1")
    folder.create({"name": "Night", "key": "night"})
    folder.report(HALF)


def test_a_list_tells_how_far_each_job_is(clary: FakeClary, run: Any) -> None:
    under_way(clary)
    summaries = [
        {**JOB, "TransformJobStatus": "InProgress"},
        {**JOB, "TransformJobName": "old", "TransformJobStatus": "Completed", "TransformEndTime": 1_700_000_007},
        {**JOB, "TransformJobName": "bad", "TransformJobStatus": "Failed", "FailureReason": "ClientError: x\x1b\nmore"},
    ]
    clary.operations["ListTransformJobs"] = [(200, {"TransformJobSummaries": summaries})]
    lines = run("transform", "list", "--data", clary.data).output.splitlines()
    words = "1 of 4 objects (1 failed), 3,000 records, 1,500 records/s, 0:02 left"
    assert lines[0].split(maxsplit=2) == ["night", "InProgress", words]
    assert lines[1].split(maxsplit=2) == ["old", "Completed", "after 7.0 s"]
    assert lines[2].split(maxsplit=2) == ["bad", "Failed", "ClientError: x\N{REPLACEMENT CHARACTER}"]


def test_a_wait_shows_progress_and_leaves_with_the_reason(clary: FakeClary, run: Any) -> None:
    under_way(clary)
    clary.operations["DescribeTransformJob"] = [
        (200, {**JOB, "TransformJobStatus": "InProgress"}),
        (200, {**JOB, "TransformJobStatus": "Failed", "FailureReason": "AlgorithmError: because"}),
    ]
    result = run("transform", "wait", "night", "--data", clary.data)
    assert result.exit_code == 1
    assert "Failed  1 of 4 objects (1 failed), 3,000 records" in result.output
    assert "AlgorithmError: because" in result.stderr


def test_logs_are_the_containers_and_the_data_log(clary: FakeClary, run: Any) -> None:
    folder = LogFolder(clary.data / "logs")
    written = {"night/i-0-17": b"loading", "night/i-0-17/data-log": b"in.csv: ClientError: 400", "other/i": b"x"}
    for stream, line in written.items():
        with folder.writer(TRANSFORM_LOGS, stream) as writer:
            writer.write(1_700_000_000_000, line)
    result = run("transform", "logs", "night", "--data", clary.data)
    assert result.output.splitlines() == ["i-0-17  loading", "i-0-17/data-log  in.csv: ClientError: 400"]
    assert run("transform", "logs", "nobody", "--data", clary.data).exit_code == 1


def test_time_that_is_left_is_told_only_from_what_this_agent_has_done(tmp_path: Path) -> None:
    again = Progress(size=90, size_before=50, size_total=100, records=500, records_before=300, seconds=4.0)
    assert (again.rate, again.left) == (50.0, 1.0)
    assert Progress(size=50, size_before=50, size_total=100, seconds=4.0).left is None
    assert Progress(objects=1, objects_total=2, size=100, size_total=100, seconds=4.0).left is None  # it is written now
    assert Progress(objects=2, objects_total=2, size=100, size_total=100, seconds=4.0).left == 0
    assert JobFolder(tmp_path / "nothing").progress() is None
