"""What waits at an asynchronous endpoint: what CloudWatch's API says of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clary.cli.connection import Connection

HOUR = 3600


@dataclass(frozen=True, slots=True)
class Backlog:
    """The queue of an endpoint. `size` and `age` are the means of a minute; None: nobody has looked yet."""

    output: str
    failure: str
    size: float | None
    age: float | None
    """Seconds that the oldest request has been there."""
    ended: int
    failed: int
    """Requests in the last hour."""

    @property
    def words(self) -> str:
        """Say it in a line or two."""
        if self.size is None:
            waiting = "nothing is known of its queue yet"
        elif round(self.size, 1) == 0:
            waiting = "nothing waits"
        else:
            waiting = f"{self.size:.0f} requests wait or are under way, the oldest for {self.age or 0.0:.0f} s"
        where = f"answers go to {self.output or 'nowhere'}, failures to {self.failure or 'nowhere'}"
        why = " (the data log in `clary logs` says why)" if self.failed else ""
        ended = f"{self.ended} ended in the last hour, {self.failed} of them failed{why}"
        return f"asynchronous: {waiting}; {ended}\n    {where}"


def backlog(connection: Connection, description: Mapping[str, Any]) -> Backlog | None:
    """Ask for the backlog of an endpoint, by what DescribeEndpoint says of it; None where it has none."""
    config = description.get("AsyncInferenceConfig")
    if config is None:
        return None
    cloudwatch, now = connection.client("cloudwatch"), time.time()
    endpoint = [{"Name": "EndpointName", "Value": description["EndpointName"]}]

    def newest(metric: str) -> float | None:
        points = _points(cloudwatch, metric, endpoint, (now - 180, now + 60, 60), "Average")
        return max(points)[1] if points else None

    def total(metric: str) -> int:
        names = [variant["VariantName"] for variant in description.get("ProductionVariants", ())]
        of_variants = ([*endpoint, {"Name": "VariantName", "Value": name}] for name in names)
        span = (now - HOUR, now + 60, 2 * HOUR)
        return round(sum(sum(v for _, v in _points(cloudwatch, metric, each, span, "Sum")) for each in of_variants))

    output = config["OutputConfig"]
    return Backlog(
        output=output.get("S3OutputPath", ""),
        failure=output.get("S3FailurePath", ""),
        size=newest("ApproximateBacklogSize"),
        age=newest("ApproximateAgeOfOldestRequest"),
        ended=total("InvocationsProcesssed"),
        failed=total("InvocationFailures"),
    )


def _points(
    cloudwatch: Any,
    metric: str,
    dimensions: list[dict[str, str]],
    span: tuple[float, float, int],
    statistic: str,
) -> list[tuple[float, float]]:
    start, end, period = span
    answer = cloudwatch.get_metric_statistics(
        Namespace="AWS/SageMaker", MetricName=metric, Dimensions=dimensions, StartTime=start, EndTime=end,
        Period=period, Statistics=[statistic],
    )  # fmt: skip
    return [(point["Timestamp"].timestamp(), point[statistic]) for point in answer["Datapoints"]]
