"""Numbers in Prometheus' text format.

CloudWatch's names become Prometheus': snake case, `clary_` in front, base units (seconds), `_total` where it counts.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from clary.core.metrics import METRICS, TRANSFORMS, Series, Statistics, middle
from clary.core.metrics import Metric as Known

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histograms' buckets, in seconds: a model answers in a millisecond or in a minute."""

_SECOND: Mapping[str, float] = {"Microseconds": 1e6, "Milliseconds": 1e3, "Seconds": 1.0}
"""How many of a unit are the base unit."""
_WORD = re.compile(r"\d[A-Z]+(?=[A-Z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_LABELS = {
    "EndpointName": "endpoint",
    "VariantName": "variant",
    "ContainerName": "container",
    "InferenceComponentName": "component",
    "Kind": "kind",
    "Host": "host",
}


def name_of(metric: Known) -> str:
    """Give a metric's name in Prometheus: `clary_model_latency_seconds`, `clary_container_invocations_total`."""
    words = [word.lower() for word in _WORD.findall(metric.name)]
    if "ContainerName" in metric.dimensions and words[0] != "container":
        words.insert(0, "container")  # a label that only some series of a name have makes sums count twice
    if "InferenceComponentName" in metric.dimensions:
        words.insert(0, "component")
    if metric.namespace == TRANSFORMS:
        words.insert(0, "transform")
    suffix = ["seconds"] if metric.unit in _SECOND else ["percent"] if metric.unit == "Percent" else []
    return "_".join(["clary", *words, *suffix, *(["total"] if metric.kind == "sum" else [])])


def text(
    totals: Mapping[Series, Statistics], newest: Mapping[Series, float], gauges: Mapping[str, tuple[str, float]]
) -> bytes:
    """Write totals since the start, the newest values, and numbers of the whole Clary: by name, help and value."""
    return generate_latest(_Snapshot(totals, newest, gauges))


class _Snapshot(Collector):
    """A registry of one moment."""

    def __init__(
        self,
        totals: Mapping[Series, Statistics],
        newest: Mapping[Series, float],
        gauges: Mapping[str, tuple[str, float]],
    ) -> None:
        self._totals: dict[Known, list[tuple[Series, Statistics]]] = defaultdict(list)
        self._newest: dict[Known, list[tuple[Series, float]]] = defaultdict(list)
        self._gauges = gauges
        for each, statistics in totals.items():
            if (known := each.metric) is not None:
                self._totals[known].append((each, statistics))
        for each, value in newest.items():
            if (known := each.metric) is not None:
                self._newest[known].append((each, value))

    def collect(self) -> Iterator[Metric]:
        for name, (meaning, value) in self._gauges.items():
            yield GaugeMetricFamily(f"clary_{name}", meaning, value=value)
        for known in METRICS:
            family = self._family(known)
            if family.samples:
                yield family

    def _family(self, known: Known) -> Metric:
        name, labels = name_of(known), [_LABELS[dimension] for dimension in known.dimensions]
        if known.kind == "gauge":
            gauge = GaugeMetricFamily(name, known.meaning, labels=labels)
            for each, value in self._newest[known]:
                gauge.add_metric(_values(known, each), value)
            return gauge
        found = [(_values(known, each), totals) for each, totals in self._totals[known]]
        if known.kind == "sum":
            counter = CounterMetricFamily(name, known.meaning, labels=labels)
            for values, totals in found:
                counter.add_metric(values, totals.sum)
            return counter
        histogram = HistogramMetricFamily(name, known.meaning, labels=labels)
        second = _SECOND[known.unit]
        for values, totals in found:
            histogram.add_metric(values, _buckets(totals, second), totals.sum / second)
        return histogram


def _values(known: Known, of: Series) -> list[str]:
    values = dict(of.dimensions)
    return [values[dimension] for dimension in known.dimensions]


def _buckets(totals: Statistics, second: float) -> list[tuple[str, float]]:
    """Give how many values are at or below each bound; a value counts where the middle of its bucket lies."""
    placed = sorted((middle(number) / second, times) for number, times in totals.histogram.items())
    found, sum_so_far, at = [], 0.0, 0
    for bound in (*BOUNDS, math.inf):
        while at < len(placed) and placed[at][0] <= bound:
            sum_so_far += placed[at][1]
            at += 1
        found.append(("+Inf" if math.isinf(bound) else str(bound), sum_so_far))
    return found
