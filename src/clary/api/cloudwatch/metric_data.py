"""GetMetricData: several metrics at once, and expressions over them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from clary.api.cloudwatch import expressions
from clary.api.cloudwatch.expressions import Scope, TimeSeries, Value
from clary.api.cloudwatch.metrics import (
    Answer,
    Request,
    by_period,
    check_period,
    check_span,
    read_token,
    refused,
    rounded,
    series_of,
    statistic,
    write_token,
)
from clary.core.metrics import MINUTE
from clary.core.ports import MetricStore
from clary.errors import AwsError
from clary.wire.dispatch import Caller, Handler

MOST_QUERIES = 500
MOST_DATAPOINTS = 100_800
_ID = re.compile(r"[a-z][a-zA-Z0-9_]*")
_Query = Mapping[str, Any]


class MetricData:
    """GetMetricData."""

    def __init__(self, store: MetricStore) -> None:
        self._store = store

    def operations(self) -> dict[tuple[str, str], Handler]:
        """Give the operation by service and name."""
        return {("cloudwatch", "GetMetricData"): self.get}

    async def get(self, caller: Caller, request: Request) -> Answer:
        """Give the datapoints of every query that returns data, the newest first unless ScanBy says otherwise."""
        start, end = check_span(request, "ValidationError")
        queries = _checked(request["MetricDataQueries"], caller)
        limit = request.get("MaxDatapoints", MOST_DATAPOINTS)
        if not 1 <= limit <= MOST_DATAPOINTS:
            raise refused("ValidationError", f"The parameter MaxDatapoints must be between 1 and {MOST_DATAPOINTS}.")
        metrics = {
            id: await self._metric(query["MetricStat"], _label(query), start, end)
            for id, query in queries.items()
            if "MetricStat" in query
        }
        computation = _Computation(queries, metrics, start, end)
        ascending = request.get("ScanBy") == "TimestampAscending"
        found = []
        for id, query in queries.items():
            if query.get("ReturnData", True):
                for series in computation.returned(id):
                    found.append((id, series, sorted(series.values.items(), reverse=not ascending)))
        return _page(found, read_token(request.get("NextToken")), limit)

    async def _metric(self, stat: Request, label: str, start: int, end: int) -> TimeSeries:
        period = stat["Period"]
        check_period(period, "ValidationError")
        of = statistic(stat["Stat"])
        if of is None:
            raise refused("ValidationError", f"The value {stat['Stat']} for parameter Stat is not supported.")
        begin = rounded(start, period)
        points = await self._store.points(series_of(stat["Metric"]), begin, end)
        if "Unit" in stat:
            points = [point for point in points if point.series.unit == stat["Unit"]]
        spans = by_period(points, begin, period)
        values = {at: value for at, span in spans.items() if (value := of(span)) is not None}
        return TimeSeries(label, values, period)


class _Computation:
    """One request's expressions, each computed once."""

    def __init__(self, queries: Mapping[str, _Query], metrics: Mapping[str, TimeSeries], start: int, end: int) -> None:
        self._queries = queries
        self._metrics = metrics
        self._found: dict[str, Value] = dict(metrics)
        self._under_way: list[str] = []
        period = max((series.period for series in metrics.values()), default=MINUTE)
        self._scope = Scope(
            self._value,
            lambda: list(metrics.items()),
            lambda period: range(rounded(start, period), end, period),
            period,
        )

    def returned(self, id: str) -> Sequence[TimeSeries]:
        """Give the series of a query. Raises ValidationError for an expression that gives none."""
        value = self._value(id)
        label = _label(self._queries[id])
        if isinstance(value, float):
            raise _in_expression(id, "it must give a time series; TIME_SERIES makes one of a number")
        if isinstance(value, TimeSeries):
            return [TimeSeries(label, value.values, value.period)]
        return value

    def _value(self, id: str) -> Value:
        if id in self._found:
            return self._found[id]
        if id not in self._queries:
            raise refused("ValidationError", f"there is no query with the Id {id}")
        if id in self._under_way:
            raise refused("ValidationError", f"{' -> '.join([*self._under_way, id])} goes in a circle")
        self._under_way.append(id)
        try:
            value = expressions.evaluate(self._queries[id]["Expression"], self._scope)
        except AwsError as error:
            raise error if error.message.startswith("Error in") else _in_expression(id, error.message) from error
        self._under_way.pop()
        self._found[id] = value
        return value


def _in_expression(id: str, why: str) -> AwsError:
    return refused("ValidationError", f"Error in expression '{id}': {why}.")


def _checked(queries: Sequence[_Query], caller: Caller) -> dict[str, _Query]:
    """Give the queries by their ids. Raises ValidationError."""
    if len(queries) > MOST_QUERIES:
        text = f"The collection MetricDataQueries must not have a size greater than {MOST_QUERIES}."
        raise refused("ValidationError", text)
    found: dict[str, _Query] = {}
    for number, query in enumerate(queries, 1):
        path, id = f"MetricDataQueries.member.{number}", query["Id"]
        if _ID.fullmatch(id) is None:
            text = f"The value {id} for parameter {path}.Id is not matching the expected pattern ^{_ID.pattern}$."
            raise refused("ValidationError", text)
        if id in found:
            raise refused("ValidationError", f"The values for parameter id in MetricDataQueries are not unique: {id}.")
        if ("MetricStat" in query) == ("Expression" in query):
            text = f"Exactly one of the parameters {path}.MetricStat and {path}.Expression must be specified."
            raise refused("ValidationError", text)
        if "MetricStat" in query and not {"Namespace", "MetricName"} <= query["MetricStat"]["Metric"].keys():
            text = f"The parameters {path}.MetricStat.Metric.Namespace and .MetricName are required."
            raise refused("ValidationError", text)
        if query.get("AccountId", caller.account_id) != caller.account_id:
            raise refused(
                "ValidationError", f"The value {query['AccountId']} for parameter {path}.AccountId is unknown."
            )
        found[id] = query
    return found


def _label(query: _Query) -> str:
    if label := query.get("Label"):
        return str(label)
    return str(query["MetricStat"]["Metric"].get("MetricName", "")) if "MetricStat" in query else str(query["Id"])


def _page(found: Sequence[tuple[str, TimeSeries, list[tuple[int, float]]]], place: int, limit: int) -> Answer:
    """Cut a page out of all datapoints, counted through; `place` is how many have been given already."""
    results, skip, room = [], place, limit
    total = sum(len(values) for _, _, values in found)
    for id, series, values in found:
        part = values[skip : skip + room]
        rest = len(values) - skip - len(part)
        if part or (not values and room and not place) or (rest > 0 and room):
            results.append(
                {
                    "Id": id,
                    "Label": series.label,
                    "Timestamps": [float(at) for at, _ in part],
                    "Values": [value for _, value in part],
                    "StatusCode": "PartialData" if rest > 0 else "Complete",
                }
            )
        room -= len(part)
        skip = max(0, skip - len(values))
    answer: Answer = {"MetricDataResults": results, "Messages": []}
    if place + limit < total:
        answer["NextToken"] = write_token(place + limit)
    return answer
