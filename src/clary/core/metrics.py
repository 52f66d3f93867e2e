"""Metrics as CloudWatch knows them: which there are, and numbers that can be added up without losing percentiles.

A datapoint is a statistic set (count, sum, minimum, maximum) and a histogram with logarithmic buckets. Both merge by
addition: over seconds, gateway processes and periods. Source of names, dimensions and units: "Monitor Amazon SageMaker
AI with Amazon CloudWatch" in the service's developer guide.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypedDict

INVOCATIONS = "AWS/SageMaker"
INSTANCES = "/aws/sagemaker/Endpoints"
COMPONENTS = "/aws/sagemaker/InferenceComponents"
TRANSFORMS = "/aws/sagemaker/TransformJobs"
CLARY = "Clary"

MINUTE = 60
"""Seconds that one stored datapoint stands for, unless its metric is finer."""

GROWTH = math.log(1.02)
"""Of the buckets' bounds: a percentile is off by one per cent at most."""
OFFSET = 20_000
"""Added to a bucket's logarithm, so that the sign of its number is the sign of its values and 0 is zero's."""

ENDPOINT = ("EndpointName",)
VARIANT = (*ENDPOINT, "VariantName")
CONTAINER = (*VARIANT, "ContainerName")
COMPONENT = ("InferenceComponentName",)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that Clary makes by itself."""

    namespace: str
    name: str
    dimensions: tuple[str, ...]
    unit: str
    meaning: str
    """One sentence for the documentation and the help line of Prometheus."""
    resolution: int = MINUTE
    """Seconds between stored datapoints."""
    kind: Literal["sum", "distribution", "gauge"] = "sum"
    """What it is to Prometheus: a counter of its sum, a histogram, or the newest value."""


_ANSWERED = "the model (Clary, where the model was not asked) answered with a"
_ONE_CONTAINER = "The same of one container of a pipeline that was invoked by its name."

_ONE_COMPONENT = "The same of one inference component."


def _count(name: str, meaning: str, dimensions: tuple[str, ...] = VARIANT) -> Metric:
    return Metric(INVOCATIONS, name, dimensions, "None", meaning)


def _latency(name: str, meaning: str, dimensions: tuple[str, ...] = VARIANT) -> Metric:
    return Metric(INVOCATIONS, name, dimensions, "Microseconds", meaning, kind="distribution")


def _backlog(name: str, unit: str, meaning: str) -> Metric:
    return Metric(INVOCATIONS, name, ENDPOINT, unit, meaning, kind="gauge")


def _ended(name: str, meaning: str) -> Metric:
    return Metric(INVOCATIONS, name, VARIANT, "Count", meaning)


def _duration(name: str, meaning: str) -> Metric:
    return Metric(INVOCATIONS, name, VARIANT, "Milliseconds", meaning, kind="distribution")


METRICS: tuple[Metric, ...] = (
    _count("Invocations", "Requests that were sent to the variant, failed ones included."),
    _count("Invocation4XXErrors", f"1 for each request that {_ANSWERED} 4xx status, else 0."),
    _count("Invocation5XXErrors", f"1 for each request that {_ANSWERED} 5xx status, else 0."),
    _count(
        "InvocationModelErrors",
        "1 for each request to which the container gave no 2xx answer (another status, a broken connection, a "
        "time-out), else 0.",
    ),
    _count("InvocationsPerInstance", "1 divided by the number of active instances, for each request."),
    _latency("ModelLatency", "Time that the containers took to answer, network included."),
    _latency("OverheadLatency", "Time of a request beyond ModelLatency."),
    Metric(
        INVOCATIONS, "ConcurrentRequestsPerModel", VARIANT, "None",
        "Requests under way or waiting for a place, looked at once a second.", resolution=10, kind="gauge",
    ),
    _latency("ContainerLatency", "Time that one container of a pipeline took to answer.", CONTAINER),
    _count("ModelCacheHit", "1 for each request to a multi-model variant whose model was loaded already, else 0."),
    _latency("ModelLoadingWaitTime", "Time that a request waited for its model to be downloaded, loaded, or both."),
    _latency("ModelDownloadingTime", "Time that it took to download a model and to unpack it."),
    _latency("ModelLoadingTime", "Time that a multi-model container took to load a model."),
    _latency("ModelUnloadingTime", "Time that a multi-model container took to unload a model."),
    _count("Invocations", _ONE_CONTAINER, CONTAINER),
    _count("Invocation4XXErrors", _ONE_CONTAINER, CONTAINER),
    _count("Invocation5XXErrors", _ONE_CONTAINER, CONTAINER),
    _latency("OverheadLatency", _ONE_CONTAINER, CONTAINER),
    _backlog(
        "ApproximateBacklogSize", "Count", "Requests of an asynchronous endpoint that wait or are being worked at."
    ),
    _backlog(
        "ApproximateBacklogSizePerInstance", "Count",
        "The same divided by the number of instances that are ready; not there while there are none.",
    ),
    _backlog("ApproximateAgeOfOldestRequest", "Seconds", "How long the oldest of them has been there; 0 without any."),
    _backlog("HasBacklogWithoutCapacity", "Count", "1 where there are such requests and no instance is ready, else 0."),
    _ended("InvocationsProcesssed", "Asynchronous requests that ended, failed ones included. (AWS's spelling.)"),
    _ended("InvocationFailures", "1 for each of them that failed, for whatever reason, else 0."),
    _ended("ExpiredRequests", "Asynchronous requests that waited for longer than RequestTTLSeconds."),
    _ended("RequestDownloadFailures", "Asynchronous requests whose input could not be had."),
    _ended("ResponseUploadFailures", "Asynchronous requests whose answer, or failure, could not be put anywhere."),
    _ended("NotificationFailures", "Notifications that could not be sent."),
    _latency("RequestDownloadLatency", "Time that was spent waiting for the input of an asynchronous request."),
    _latency("ResponseUploadLatency", "Time from the end of the model's answer until it was in S3."),
    _duration("TimeInBacklog", "How long an asynchronous request waited for an instance."),
    _duration("TotalProcessingTime", "Time from the acknowledgement of an asynchronous request to its end."),
    _count("Invocations", _ONE_COMPONENT, COMPONENT),
    _count("Invocation4XXErrors", _ONE_COMPONENT, COMPONENT),
    _count("Invocation5XXErrors", _ONE_COMPONENT, COMPONENT),
    _count("InvocationModelErrors", _ONE_COMPONENT, COMPONENT),
    _count("InvocationsPerCopy", "1 divided by the number of active copies, for each request.", COMPONENT),
    _latency("ModelLatency", _ONE_COMPONENT, COMPONENT),
    _latency("OverheadLatency", _ONE_COMPONENT, COMPONENT),
    _count(
        "NoCapacityInvocationFailures",
        "Requests for the component that were refused because it has been scaled to no copies.", COMPONENT,
    ),
    Metric(
        INVOCATIONS, "ConcurrentRequestsPerCopy", COMPONENT, "None",
        "Requests for the component that are under way or wait for a place, divided by its active copies; looked at "
        "once a second.", resolution=10, kind="gauge",
    ),
    Metric(
        INSTANCES, "CPUUtilization", VARIANT, "Percent",
        "CPU time of an instance's containers; 100 is one core in full, so four cores make 400.", kind="gauge",
    ),
    Metric(
        INSTANCES, "MemoryUtilization", VARIANT, "Percent",
        "Memory of an instance's containers, of what its instance type has (of the machine's, for `ml.clary.local`).",
        kind="gauge",
    ),
    Metric(
        INSTANCES, "DiskUtilization", VARIANT, "Percent", "How full the disk is that the containers use.", kind="gauge"
    ),
    *(
        Metric(
            INSTANCES, f"{what}Reservation", VARIANT, "Percent",
            f"{words} of an instance that is set aside for copies of inference components.", kind="gauge",
        )
        for what, words in (("CPU", "CPU"), ("Memory", "Memory"), ("GPU", "Accelerators"))
    ),
    Metric(
        COMPONENTS, "CPUUtilizationNormalized", COMPONENT, "Percent",
        "CPU time of a copy, of what is set aside for it (of the instance's, where nothing is).", kind="gauge",
    ),
    Metric(
        COMPONENTS, "MemoryUtilizationNormalized", COMPONENT, "Percent",
        "Memory of a copy, of what is set aside for it.", kind="gauge",
    ),
    Metric(
        INSTANCES, "LoadedModelCount", VARIANT, "None", "Models that a multi-model container has loaded.", kind="gauge"
    ),
    Metric(
        TRANSFORMS, "CPUUtilization", ("Host",), "Percent",
        "The same of an instance of a transform job; the host is `<job>/<instance id>`.", kind="gauge",
    ),
    Metric(
        TRANSFORMS, "MemoryUtilization", ("Host",), "Percent", "The same of an instance of a transform job.",
        kind="gauge",
    ),
    Metric(
        CLARY, "Dropped", ("Kind",), "Count",
        "What was given up, so that nobody need wait: `metrics` (seconds of numbers while the control plane was away "
        "for long), `capture` (records of data capture), `logs` (times that Docker left out lines of a container).",
    ),
)  # fmt: skip

_BY_NAME = {(metric.namespace, metric.name, len(metric.dimensions)): metric for metric in METRICS}


class Series(NamedTuple):
    """What CloudWatch tells metrics apart by, and the unit. Dimensions are sorted by name."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]
    unit: str = "None"

    @property
    def metric(self) -> Metric | None:
        """Give what this is of, None for a metric that is somebody else's."""
        return _BY_NAME.get((self.namespace, self.name, len(self.dimensions)))


def series(namespace: str, name: str, *values: str) -> Series:
    """Name one of Clary's own metrics, by the values of its dimensions in their order."""
    metric = _BY_NAME[namespace, name, len(values)]
    return Series(namespace, name, tuple(sorted(zip(metric.dimensions, values, strict=True))), metric.unit)


def bucket(value: float) -> int:
    """Give the number of a value's bucket."""
    if value == 0:
        return 0
    number = round(math.log(abs(value)) / GROWTH) + OFFSET
    return number if value > 0 else -number


def middle(number: float) -> float:
    """Give the value that a bucket stands for."""
    if number == 0:
        return 0.0
    return math.copysign(math.exp((abs(number) - OFFSET) * GROWTH), number)


class Document(TypedDict):
    """A point as JSON; JSON's keys are texts."""

    series: tuple[str, str, Sequence[Sequence[str]], str]
    start: int
    statistics: tuple[float, float, float, float]
    histogram: dict[str, float]


@dataclass(slots=True)
class Statistics:
    """Numbers of one span of time. `histogram` counts values by `bucket`; it has fewer than `count` of them where
    only their statistics are known, and then there are no percentiles.
    """

    count: float = 0.0
    sum: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf
    histogram: dict[int, float] = field(default_factory=dict)

    def add(self, value: float, times: float = 1.0) -> None:
        """Count a value."""
        self.count += times
        self.sum += value * times
        self.minimum = min(self.minimum, value)
        self.maximum = max(self.maximum, value)
        number = bucket(value)
        self.histogram[number] = self.histogram.get(number, 0.0) + times

    def extend(self, values: Iterable[float]) -> None:
        """Count many values, a bucket at a time: much cheaper than one by one."""
        ordered = sorted(values)
        if not ordered:
            return
        self.count += len(ordered)
        self.sum += math.fsum(ordered)
        self.minimum = min(self.minimum, ordered[0])
        self.maximum = max(self.maximum, ordered[-1])
        at = 0
        while at < len(ordered):
            number = bucket(ordered[at])
            end = middle(number + 0.5)
            beyond = max(bisect_left(ordered, end, at), at + 1) if number else bisect_right(ordered, 0.0, at)
            self.histogram[number] = self.histogram.get(number, 0.0) + (beyond - at)
            at = beyond

    def merge(self, other: Statistics) -> None:
        """Count another span's values."""
        self.count += other.count
        self.sum += other.sum
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        for number, times in other.histogram.items():
            self.histogram[number] = self.histogram.get(number, 0.0) + times

    def percentile(self, percent: float) -> float | None:
        """Give a percentile, right to one per cent; None where it cannot be told.

        It cannot of values of which some are known by their statistics alone, nor of negative ones, as at CloudWatch.
        """
        if self.minimum == self.maximum:
            return self.minimum
        known = math.fsum(self.histogram.values())
        if self.minimum < 0 or known < self.count * (1 - 1e-9):
            return None
        if percent in (0, 100):  # known exactly
            return self.maximum if percent else self.minimum
        left = known * percent / 100
        for number in sorted(self.histogram):
            left -= self.histogram[number]
            if left <= 1e-9 * known:
                return min(max(middle(number), self.minimum), self.maximum)
        return self.maximum


class Point(NamedTuple):
    """Statistics of one series from `start` on (seconds since the epoch) for its resolution."""

    series: Series
    start: int
    statistics: Statistics

    def to_json(self) -> Document:
        """Give the point as plain JSON values."""
        s = self.statistics
        return {
            "series": self.series,
            "start": self.start,
            "statistics": (s.count, s.sum, s.minimum, s.maximum),
            "histogram": {str(number): times for number, times in s.histogram.items()},
        }

    @classmethod
    def from_json(cls, document: Document) -> Point:
        """Read what `to_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        namespace, name, dimensions, unit = document["series"]
        found = Series(namespace, name, tuple((key, value) for key, value in dimensions), unit)
        histogram = {int(number): times for number, times in document["histogram"].items()}
        return cls(found, int(document["start"]), Statistics(*document["statistics"], histogram))


def merged(points: Iterable[Point]) -> list[Point]:
    """Put points of the same series and time together; the first of each is changed and given back."""
    found: dict[tuple[Series, int], Point] = {}
    for point in points:
        before = found.setdefault((point.series, point.start), point)
        if before is not point:
            before.statistics.merge(point.statistics)
    return list(found.values())


class Selection(NamedTuple):
    """What ListMetrics filters by. A dimension without a value matches every value."""

    namespace: str | None = None
    name: str | None = None
    dimensions: tuple[tuple[str, str | None], ...] = ()
    active_since: int | None = None
    """Only series with a datapoint at this second or after."""


class Delivery(NamedTuple):
    """What a gateway hands over: numbered, so that what comes twice counts once."""

    source: str
    number: int
    points: Sequence[Point]
    gauges: Mapping[str, float]
    concurrency: Sequence[tuple[str, str, float]]
    """Endpoint, variant, requests under way."""

    def to_json(self) -> dict[str, object]:
        """Give the delivery as plain JSON values."""
        return {**self._asdict(), "points": [point.to_json() for point in self.points]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Delivery:
        """Read what `to_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        return cls(
            str(document["source"]),
            int(document["number"]),
            [Point.from_json(point) for point in document["points"]],
            {str(name): float(value) for name, value in document["gauges"].items()},
            [(str(endpoint), str(variant), float(number)) for endpoint, variant, number in document["concurrency"]],
        )
