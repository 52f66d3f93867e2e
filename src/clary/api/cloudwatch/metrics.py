"""CloudWatch: metrics are put, listed and read. Times in seconds since the epoch.

Errors have the query protocol's codes; on the other protocols they go out under both names.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from clary.core.metrics import CLARY, INSTANCES, MINUTE, TRANSFORMS, Point, Selection, Series, Statistics
from clary.core.ports import MetricStore
from clary.errors import AwsError
from clary.wire.dispatch import Caller, Handler

Request = Mapping[str, Any]
Answer = dict[str, Any]

PAGE = 500
"""Metrics of one ListMetrics answer."""
MOST_DATAPOINTS = 1440
"""Of one GetMetricStatistics answer."""
RECENT = 3 * 3600
"""Seconds of `RecentlyActive`."""

_MOST_METRICS = 1000
_MOST_VALUES = 150
_LARGEST = 2.0**360
_PAST, _FUTURE = 14 * 86_400, 2 * 3600
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,10})?|100(?:\.0{1,10})?)")

Statistic = Callable[[Statistics], float | None]

_STATISTICS: Mapping[str, Statistic] = {
    "SampleCount": lambda s: s.count,
    "Average": lambda s: s.sum / s.count,
    "Sum": lambda s: s.sum,
    "Minimum": lambda s: s.minimum,
    "Maximum": lambda s: s.maximum,
}


def refused(code: str, message: str) -> AwsError:
    """Make an error of the caller's."""
    return AwsError(message, code=code, status=400)


def statistic(name: str) -> Statistic | None:
    """Give what computes a statistic: `Average`, `p99.9`; None for a name that is none, or none that Clary has."""
    if (match := _PERCENTILE.fullmatch(name)) is not None:
        percent = float(match[1])
        return lambda s: s.percentile(percent)
    return _STATISTICS.get(name)


def check_period(period: int, code: str) -> None:
    """Raise, under `code`, for a period that CloudWatch does not have."""
    if period not in (1, 5, 10, 20, 30) and period % MINUTE:
        raise refused(code, "The parameter Period must be one of 1, 5, 10, 20, 30, or a multiple of 60.")


def check_span(request: Request, code: str) -> tuple[int, int]:
    """Give start and end of the time that is asked for; in whole seconds. Raises under `code`."""
    start, end = request["StartTime"], request["EndTime"]
    if start == end:
        raise refused(code, "The parameter StartTime must not equal parameter EndTime.")
    if start > end:
        raise refused(code, "The parameter StartTime must be less than the parameter EndTime.")
    return math.floor(start), math.ceil(end)


def rounded(start: int, period: int) -> int:
    """Round a start as the service does: to the period below a minute, else to the minute.

    Datapoints are aligned to that, not to the clock: an hour's from 10:20 on is of 10:20 to 11:20.
    """
    return start - start % min(period, MINUTE)


def by_period(points: Sequence[Point], start: int, period: int) -> dict[int, Statistics]:
    """Put together what belongs to one datapoint, by its time."""
    found: dict[int, Statistics] = {}
    for point in points:
        at = start + (point.start - start) // period * period
        found.setdefault(at, Statistics()).merge(point.statistics)
    return found


def series_of(request: Request, unit: str = "None") -> Series:
    """Read namespace, name and dimensions. Raises InvalidParameterValue where two dimensions have one name."""
    pairs = sorted((each["Name"], each["Value"]) for each in request.get("Dimensions") or ())
    if len({name for name, _ in pairs}) < len(pairs):
        raise refused("InvalidParameterValue", "The parameter Dimensions contains a name twice.")
    return Series(request["Namespace"], request["MetricName"], tuple(pairs), unit)


class Metrics:
    """PutMetricData, ListMetrics, GetMetricStatistics."""

    def __init__(self, store: MetricStore, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    def operations(self) -> dict[tuple[str, str], Handler]:
        """Give the operations by service and name."""
        return {
            ("cloudwatch", "PutMetricData"): self.put,
            ("cloudwatch", "ListMetrics"): self.list,
            ("cloudwatch", "GetMetricStatistics"): self.statistics,
        }

    async def put(self, caller: Caller, request: Request) -> None:
        """Add somebody's own numbers. What belongs to an entity counts as well; the entity is not kept."""
        namespace = request["Namespace"]
        if namespace.startswith("AWS/") or namespace in (INSTANCES, TRANSFORMS, CLARY):
            raise refused("InvalidParameterValue", f"The value {namespace} for parameter Namespace is reserved.")
        data = [("MetricData", request.get("MetricData") or ())]
        for number, entity in enumerate(request.get("EntityMetricData") or (), 1):
            data.append((f"EntityMetricData.member.{number}.MetricData", entity.get("MetricData") or ()))
        if not any(items for _, items in data):
            raise refused("MissingParameter", "The parameter MetricData is required.")
        points = []
        for path, items in data:
            if len(items) > _MOST_METRICS:
                text = f"The collection {path} must not have a size greater than {_MOST_METRICS}."
                raise refused("InvalidParameterValue", text)
            points += [
                _datum(namespace, item, f"{path}.member.{number}", self._clock())
                for number, item in enumerate(items, 1)
            ]
        await self._store.record(points)

    async def list(self, caller: Caller, request: Request) -> Answer:
        """Give a page of the metrics that have datapoints."""
        if request.get("OwningAccount", caller.account_id) != caller.account_id:
            return {"Metrics": []}
        recent = int(self._clock()) - RECENT if "RecentlyActive" in request else None
        dimensions = tuple((each["Name"], each.get("Value")) for each in request.get("Dimensions") or ())
        selection = Selection(request.get("Namespace"), request.get("MetricName"), dimensions, recent)
        rows = await self._store.series(selection, read_token(request.get("NextToken")), PAGE + 1)
        # Units are no part of a metric's name.
        found = dict.fromkeys(series._replace(unit="") for _, series in rows[:PAGE])
        answer: Answer = {"Metrics": [_metric(series) for series in found]}
        if request.get("IncludeLinkedAccounts"):
            answer["OwningAccounts"] = [caller.account_id] * len(found)
        if len(rows) > PAGE:
            answer["NextToken"] = write_token(rows[PAGE - 1][0])
        return answer

    async def statistics(self, caller: Caller, request: Request) -> Answer:
        """Give one metric's datapoints, those of each unit apart."""
        plain, extended = request.get("Statistics") or (), request.get("ExtendedStatistics") or ()
        if plain and extended:
            text = "The parameters Statistics and ExtendedStatistics must not be specified together."
            raise refused("InvalidParameterCombination", text)
        if not plain and not extended:
            text = "At least one of the parameters Statistics and ExtendedStatistics must be specified."
            raise refused("MissingParameter", text)
        wanted = {name: _extended(name, number) for number, name in enumerate(extended, 1)}
        start, end = check_span(request, "InvalidParameterValue")
        period = request["Period"]
        check_period(period, "InvalidParameterValue")
        if (number := math.ceil((end - start) / period)) > MOST_DATAPOINTS:
            raise refused(
                "InvalidParameterCombination",
                f"You have requested up to {number:,} datapoints, which exceeds the limit of {MOST_DATAPOINTS:,}. You "
                "may reduce the datapoints requested by increasing Period, or decreasing the time range.",
            )
        start = rounded(start, period)
        points = await self._store.points(series_of(request), start, end)
        datapoints: list[Answer] = []
        units = {point.series.unit for point in points}
        if "Unit" in request:
            units &= {request["Unit"]}
        for unit in sorted(units):
            spans = by_period([point for point in points if point.series.unit == unit], start, period)
            datapoints += _datapoints(spans, plain, wanted, unit)
        return {"Label": request["MetricName"], "Datapoints": datapoints}


def _datapoints(
    spans: Mapping[int, Statistics], plain: Sequence[str], extended: Mapping[str, Statistic], unit: str
) -> Iterator[Answer]:
    for at, span in sorted(spans.items()):
        found = {name: _STATISTICS[name](span) for name in plain}
        percentiles = {name: value for name, of in extended.items() if (value := of(span)) is not None}
        if percentiles:
            yield {"Timestamp": float(at), "Unit": unit, "ExtendedStatistics": percentiles}
        elif found:
            yield {"Timestamp": float(at), "Unit": unit, **found}


def _extended(name: str, number: int) -> Statistic:
    found = None if name in _STATISTICS else statistic(name)
    if found is None:
        text = f"The value {name} for parameter ExtendedStatistics.member.{number} is not supported."
        raise refused("InvalidParameterValue", text)
    return found


def _metric(series: Series) -> Answer:
    dimensions = [{"Name": name, "Value": value} for name, value in series.dimensions]
    return {"Namespace": series.namespace, "MetricName": series.name, "Dimensions": dimensions}


def _datum(namespace: str, item: Request, path: str, now: float) -> Point:
    resolution = item.get("StorageResolution", MINUTE)
    if resolution not in (1, MINUTE):
        raise refused(
            "InvalidParameterValue", f"The value {resolution} for parameter {path}.StorageResolution is invalid."
        )
    at = item.get("Timestamp", now)
    if at > now + _FUTURE:
        text = f"The parameter {path}.Timestamp must specify a time no more than two hours in the future."
        raise refused("InvalidParameterValue", text)
    if at < now - _PAST:
        text = f"The parameter {path}.Timestamp must specify a time within the past two weeks."
        raise refused("InvalidParameterValue", text)
    series = series_of({**item, "Namespace": namespace}, item.get("Unit", "None"))
    return Point(series, int(at) // resolution * resolution, _statistics(item, path))


def _statistics(item: Request, path: str) -> Statistics:
    given = [name for name in ("Value", "Values", "StatisticValues") if name in item]
    if not given:
        text = f"At least one of the parameters must be specified: {path}.Value, .Values, .StatisticValues."
        raise refused("MissingParameter", text)
    if len(given) > 1:
        text = f"The parameters {path}.{given[0]} and {path}.{given[1]} are mutually exclusive; both are specified."
        raise refused("InvalidParameterCombination", text)
    found = Statistics()
    if "StatisticValues" in item:
        s = item["StatisticValues"]
        count, total, least, most = (float(s[name]) for name in ("SampleCount", "Sum", "Minimum", "Maximum"))
        for value in (count, total, least, most):
            _check_number(value, f"{path}.StatisticValues")
        if count <= 0 or least > most:
            raise refused("InvalidParameterValue", f"The value of {path}.StatisticValues contradicts itself.")
        found.merge(Statistics(count, total, least, most))
        if least == most:
            found.histogram.update(_alone(least, count))
        return found
    values = item["Values"] if "Values" in item else [item["Value"]]
    counts = item.get("Counts") or [1.0] * len(values)
    if len(counts) != len(values) or not 0 < len(values) <= _MOST_VALUES:
        text = f"The parameters {path}.Values and {path}.Counts must have one size, of 1 to {_MOST_VALUES}."
        raise refused("InvalidParameterValue", text)
    for value, count in zip(values, counts, strict=True):
        _check_number(value, f"{path}.Value")
        _check_number(count, f"{path}.Counts")
        if count > 0:
            found.add(value, count)
    if not found.count:
        raise refused("InvalidParameterValue", f"The parameter {path}.Counts must have a number above 0.")
    return found


def _alone(value: float, count: float) -> dict[int, float]:
    one = Statistics()
    one.add(value, count)
    return one.histogram


def _check_number(value: float, path: str) -> None:
    if not math.isfinite(value) or abs(value) > _LARGEST:
        raise refused("InvalidParameterValue", f"The value {value} for parameter {path} is invalid.")


def write_token(place: int) -> str:
    """Write where the next page begins."""
    return base64.urlsafe_b64encode(str(place).encode()).decode()


def read_token(token: str | None) -> int:
    """Read what `write_token` gave; 0 without one. Raises InvalidNextToken."""
    if token is None:
        return 0
    try:
        return int(base64.b64decode(token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise refused("InvalidNextToken", "The next token that was specified is invalid.") from None
