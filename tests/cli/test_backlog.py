"""What clary doctor says of the queue of an asynchronous endpoint."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from clary.cli.backlog import Backlog, backlog
from clary.cli.connection import Connection


class CloudWatch:
    """Has these datapoints: by metric, moments and values."""

    def __init__(self, **points: list[tuple[int, float]]) -> None:
        self.points = points

    def get_metric_statistics(self, **asked: Any) -> dict[str, Any]:
        (statistic,) = asked["Statistics"]
        found = self.points.get(asked["MetricName"], [])
        return {"Datapoints": [{"Timestamp": datetime.fromtimestamp(at, UTC), statistic: v} for at, v in found]}


def ask(cloudwatch: CloudWatch, **description: Any) -> Backlog | None:
    class Here:
        def client(self, service: str) -> CloudWatch:
            assert service == "cloudwatch"
            return cloudwatch

    return backlog(cast("Connection", Here()), {"EndpointName": "ep", **description})


CONFIG = {"OutputConfig": {"S3OutputPath": "s3://b/out", "S3FailurePath": "s3://b/failed"}}
VARIANTS = [{"VariantName": "a"}, {"VariantName": "b"}]


def test_an_endpoint_that_answers_at_once_has_no_queue() -> None:
    assert ask(CloudWatch()) is None


def test_the_newest_minute_counts_and_variants_add_up() -> None:
    numbers = CloudWatch(
        ApproximateBacklogSize=[(120, 7.0), (60, 900.0)],
        ApproximateAgeOfOldestRequest=[(60, 1.0), (120, 33.6)],
        InvocationsProcesssed=[(0, 100.0)],
        InvocationFailures=[(0, 3.0)],
    )
    found = ask(numbers, AsyncInferenceConfig=CONFIG, ProductionVariants=VARIANTS)
    assert found == Backlog("s3://b/out", "s3://b/failed", 7.0, 33.6, 200, 6)
    assert found.words == (
        "asynchronous: 7 requests wait or are under way, the oldest for 34 s; 200 ended in the last hour, 6 of them "
        "failed (the data log in `clary logs` says why)\n    answers go to s3://b/out, failures to s3://b/failed"
    )


def test_an_empty_queue_and_one_that_nobody_has_looked_at_are_told_apart() -> None:
    found = ask(CloudWatch(ApproximateBacklogSize=[(60, 0.0)]), AsyncInferenceConfig=CONFIG)
    assert found is not None
    assert found.words.startswith("asynchronous: nothing waits; 0 ended")
    unknown = ask(CloudWatch(), AsyncInferenceConfig={"OutputConfig": {}})
    assert unknown is not None
    assert unknown.words.startswith("asynchronous: nothing is known of its queue yet")
    assert unknown.words.endswith("answers go to nowhere, failures to nowhere")
