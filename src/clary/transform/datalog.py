"""The data log: what became of the data, in a stream beside the container's, in the service's form."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime

from clary.core.failure import printable
from clary.core.resources import TRANSFORM_LOGS
from clary.logs.folder import LogFolder
from clary.transform.run import ObjectFailed


class DataLog:
    """The data logs of a job's instances."""

    def __init__(self, logs: LogFolder, job: str, since: int) -> None:
        self._logs = logs
        self._job = job
        self._since = since

    def say(self, instance: str, lines: Iterable[str]) -> None:
        """Write lines, each with the time in front as the service has it."""
        now = time.time()
        stamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
        stream = f"{self._job}/{instance}-{self._since}/data-log"
        with self._logs.writer(TRANSFORM_LOGS, stream) as writer:
            writer.write_all(
                (int(now * 1000), f"{stamp}:[sagemaker logs]: {printable(line)}".encode()) for line in lines
            )

    def failure(self, instance: str, url: str, failed: ObjectFailed) -> None:
        """Say why an object has no output, which record was the first to fail, and what the container answered."""
        failure, place = failed.failure, url.removeprefix("s3://")
        record = f" ({failed.record})" if failed.record else ""
        lines = [f"{place}: {failure.words}{record}"]
        if failure.body:
            body = failure.body.decode(errors="replace")
            lines += [f"{place}: ", f"{place}: Message:", *(f"{place}: {line}" for line in body.splitlines())]
        self.say(instance, lines)
