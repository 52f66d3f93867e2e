"""CloudWatch's operations over a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from clary.api.cloudwatch.metric_data import MetricData
from clary.api.cloudwatch.metrics import Metrics
from clary.errors import AwsError
from clary.store.store import Store
from clary.wire import constraints, model
from clary.wire.dispatch import Caller
from tests.stores import new_store

CALLER = Caller("123456789012", "us-east-1", "AKIAEXAMPLE", "request")
START = 1_700_000_040  # a whole minute
NOW = START + 3600


class CloudWatch:
    """`await cloudwatch("ListMetrics", Namespace="N")`, with the model's constraints checked before."""

    def __init__(self, store: Store) -> None:
        self.store = store.metrics
        self.now = float(NOW)
        metrics = Metrics(store.metrics, lambda: self.now)
        self._handlers = {**metrics.operations(), **MetricData(store.metrics).operations()}

    async def __call__(self, operation: str, **members: Any) -> dict[str, Any]:
        constraints.check(model.operation("cloudwatch", operation).input_shape, members, "ValidationError")
        return await self._handlers["cloudwatch", operation](CALLER, members) or {}

    async def refusal(self, operation: str, **members: Any) -> tuple[str, str]:
        with pytest.raises(AwsError) as refused:
            await self(operation, **members)
        assert refused.value.status == 400
        return refused.value.code, refused.value.message

    async def put(self, *values: float, at: float = START, name: str = "m", **members: Any) -> None:
        data = [{"MetricName": name, "Value": value, "Timestamp": at, **members} for value in values]
        await self("PutMetricData", Namespace="N", MetricData=data)

    async def statistics(self, **members: Any) -> list[dict[str, Any]]:
        given = {"Namespace": "N", "MetricName": "m", "StartTime": START, "EndTime": START + 600, "Period": 60}
        if "ExtendedStatistics" not in members:
            given["Statistics"] = ["Sum"]
        return list((await self("GetMetricStatistics", **{**given, **members}))["Datapoints"])

    async def data(self, *queries: Mapping[str, Any], **members: Any) -> dict[str, Any]:
        given = {"StartTime": START, "EndTime": START + 300, "ScanBy": "TimestampAscending", **members}
        return await self("GetMetricData", MetricDataQueries=list(queries), **given)

    async def compute(self, expression: str, *metrics: Mapping[str, Any]) -> list[dict[int, float]]:
        """Give the series of one expression by seconds since START."""
        hidden = [{**each, "ReturnData": False} for each in metrics]
        answer = await self.data({"Id": "e", "Expression": expression}, *hidden)
        return [
            {int(at - START): value for at, value in zip(each["Timestamps"], each["Values"], strict=True)}
            for each in answer["MetricDataResults"]
        ]


@pytest.fixture
async def cloudwatch(tmp_path: Path) -> AsyncIterator[CloudWatch]:
    store = await new_store(tmp_path)
    yield CloudWatch(store)
    await store.close()


def query(id: str, name: str = "m", **stat: Any) -> dict[str, Any]:
    metric = {"Namespace": "N", "MetricName": name}
    return {"Id": id, "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum", **stat}}
