"""The data log is a stream of the endpoint's log group, in the service's form."""

from __future__ import annotations

from pathlib import Path

from clary.controllers.asynchronous import datalog
from clary.controllers.asynchronous.datalog import DataLog
from clary.controllers.asynchronous.delivery import Times
from clary.core.asynchronous import AsyncRequest, Completed, Failed
from clary.logs.folder import LogFolder

NOW = 1_648_034_477.723
REQUEST = AsyncRequest("id", "q", "ep", "mine", NOW - 2.0, NOW + 60, 60.0, "s3://b/o")
GROUP = "/aws/sagemaker/Endpoints/ep"


async def test_ends_become_events_with_their_times(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path, lambda: NOW)
    log = DataLog(folder, lambda: NOW)
    log.ended(REQUEST, "v/i-1", Completed("text/plain"), Times(0.1, 1.5, 0.02), NOW - 1.75)
    log.ended(REQUEST, "v/i-1", Failed("model", 'Received "a\nb\x1b"', "reason", 500), Times(), NOW)
    await log.write()
    stream = folder.stream(GROUP, "v/i-1/data-log")
    assert stream is not None
    assert [(event.timestamp, event.message) for event in stream.events()] == [
        (
            1_648_034_477_723,
            "2022-03-23T11:21:17.723:[sagemaker logs] [mine] Inference request succeeded. ModelLatency: 1500000 us, "
            "RequestDownloadLatency: 100000 us, ResponseUploadLatency: 20000 us, TimeInBacklog: 250 ms, "
            "TotalProcessingTime: 2000 ms",
        ),
        (1_648_034_477_723, '2022-03-23T11:21:17.723:[sagemaker logs] [mine] Received "a\nb\N{REPLACEMENT CHARACTER}"'),
    ]


async def test_a_disk_that_takes_nothing_costs_lines_alone(tmp_path: Path, monkeypatch: object) -> None:
    (tmp_path / "file").write_text("")
    log = DataLog(LogFolder(tmp_path / "file"), lambda: NOW)
    for _ in range(datalog.MOST + 5):
        log.ended(REQUEST, "v/i-1", Completed(""), Times(), NOW)
    assert sum(len(lines) for lines in log._waiting.values()) == datalog.MOST
    await log.write()
    assert not log._waiting
