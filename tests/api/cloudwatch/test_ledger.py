"""The numbers of gateways on their way to the store and to Prometheus."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from clary.api.cloudwatch.exposition import name_of
from clary.api.cloudwatch.ledger import SILENCE, Ledger
from clary.core.metrics import INSTANCES, INVOCATIONS, METRICS, Delivery, Point, Statistics, series
from clary.errors import SerializationException
from tests.api.cloudwatch.conftest import NOW, START, CloudWatch

# What gateways deliver


def delivery(source: str, number: int, *points: Point, concurrent: int = 0) -> dict[str, Any]:
    gauges = {"requests_under_way": float(concurrent), "route_table_revision": 7.0}
    return Delivery(source, number, points, gauges, [("e", "v", concurrent)] if concurrent else []).to_json()


def invocations(*values: float) -> Point:
    statistics = Statistics()
    statistics.extend(values)
    return Point(series(INVOCATIONS, "Invocations", "e", "v"), START, statistics)


def samples(text: bytes) -> dict[str, float]:
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


async def test_what_comes_twice_counts_once_everywhere(cloudwatch: CloudWatch) -> None:
    ledger = Ledger(cloudwatch.store, lambda: cloudwatch.now)
    for _ in range(2):
        await ledger.take(delivery("g1", 1, invocations(1.0, 1.0)))
    await ledger.take(delivery("g2", 1, invocations(1.0)))
    (point,) = await cloudwatch.store.points(series(INVOCATIONS, "Invocations", "e", "v"), 0, NOW)
    assert point.statistics.sum == 3
    found = samples(ledger.exposition())
    assert found["clary_invocations_total"] == 3
    assert (found["clary_gateways"], found["clary_route_table_revision"]) == (2, 7)


@pytest.mark.parametrize("document", [{}, [], {"source": "s"}, {**delivery("s", 1), "points": [{}]}])
async def test_what_is_no_delivery_is_refused(cloudwatch: CloudWatch, document: Any) -> None:
    with pytest.raises(SerializationException):
        await Ledger(cloudwatch.store).take(document)


async def test_concurrency_adds_up_over_gateways_at_each_moment(cloudwatch: CloudWatch) -> None:
    cloudwatch.now = float(START)
    ledger = Ledger(cloudwatch.store, lambda: cloudwatch.now)
    await ledger.take(delivery("g1", 1, concurrent=2))
    await ledger.take(delivery("g2", 1, concurrent=3))
    await ledger.sample()
    assert samples(ledger.exposition())["clary_concurrent_requests_per_model"] == 5
    cloudwatch.now += 1
    await ledger.take(delivery("g2", 2, concurrent=0))
    await ledger.sample()
    cloudwatch.now += 10
    await ledger.sample()
    (point,) = await cloudwatch.store.points(series(INVOCATIONS, "ConcurrentRequestsPerModel", "e", "v"), 0, NOW)
    s = point.statistics
    assert (point.start, s.count, s.maximum, s.minimum) == (START, 2, 5, 2)


async def test_idle_seconds_of_a_busy_span_count(cloudwatch: CloudWatch) -> None:
    cloudwatch.now = float(START)
    ledger = Ledger(cloudwatch.store, lambda: cloudwatch.now)
    for number, concurrent in enumerate([0, 4, 0, 0], 1):
        await ledger.take(delivery("g", number, concurrent=concurrent))
        await ledger.sample()
        cloudwatch.now += 1
    await ledger.finish()
    (point,) = await cloudwatch.store.points(series(INVOCATIONS, "ConcurrentRequestsPerModel", "e", "v"), 0, NOW)
    assert (point.statistics.count, point.statistics.sum, point.statistics.minimum) == (4, 4, 0)


async def test_a_gateway_that_is_silent_is_gone(cloudwatch: CloudWatch) -> None:
    ledger = Ledger(cloudwatch.store, lambda: cloudwatch.now)
    await ledger.take(delivery("g1", 1, concurrent=2))
    cloudwatch.now += SILENCE + 1
    found = samples(ledger.exposition())
    assert (found["clary_gateways"], found["clary_requests_under_way"]) == (0, 0)


async def test_histograms_are_in_seconds_and_cumulative(cloudwatch: CloudWatch) -> None:
    ledger = Ledger(cloudwatch.store)
    statistics = Statistics()
    statistics.extend([2_000.0, 40_000.0, 40_000.0, 90_000_000.0])
    await ledger.record([Point(series(INVOCATIONS, "ModelLatency", "e", "v"), START, statistics)])
    (family,) = (f for f in text_string_to_metric_families(ledger.exposition().decode()) if "model_latency" in f.name)
    buckets = {s.labels["le"]: s.value for s in family.samples if s.name.endswith("_bucket")}
    assert (buckets["0.001"], buckets["0.0025"], buckets["0.05"], buckets["60.0"], buckets["+Inf"]) == (0, 1, 3, 3, 4)
    assert samples(ledger.exposition())["clary_model_latency_seconds_sum"] == pytest.approx(90.082)


async def test_whatever_unit_cloudwatch_has_prometheus_gets_seconds(cloudwatch: CloudWatch) -> None:
    ledger = Ledger(cloudwatch.store)
    waited, age = Statistics(), Statistics()
    waited.extend([40.0, 2_000.0])
    age.add(7.0)
    points = [Point(series(INVOCATIONS, "TimeInBacklog", "e", "v"), START, waited)]
    await ledger.record([*points, Point(series(INVOCATIONS, "ApproximateAgeOfOldestRequest", "e"), START, age)])
    found = samples(ledger.exposition())
    assert found["clary_time_in_backlog_seconds_sum"] == pytest.approx(2.04)
    assert found["clary_approximate_age_of_oldest_request_seconds"] == 7.0
    (family,) = (f for f in text_string_to_metric_families(ledger.exposition().decode()) if "in_backlog" in f.name)
    buckets = {s.labels["le"]: s.value for s in family.samples if s.name.endswith("_bucket")}
    assert (buckets["0.025"], buckets["0.05"], buckets["2.5"]) == (0, 1, 2)


async def test_endpoints_that_are_gone_are_forgotten(cloudwatch: CloudWatch) -> None:
    ledger = Ledger(cloudwatch.store)
    await ledger.record([invocations(1.0)])
    ledger.keep(["e"])
    assert "clary_invocations_total" in samples(ledger.exposition())
    ledger.keep(["other"])
    assert "clary_invocations_total" not in samples(ledger.exposition())


async def test_what_was_measured_long_ago_is_not_shown_as_of_now(cloudwatch: CloudWatch) -> None:
    ledger = Ledger(cloudwatch.store, lambda: cloudwatch.now)
    statistics = Statistics()
    statistics.extend([20.0, 40.0])
    await ledger.record([Point(series(INSTANCES, "CPUUtilization", "e", "v"), START, statistics)])
    assert samples(ledger.exposition())["clary_cpu_utilization_percent"] == 30.0
    cloudwatch.now += SILENCE + 1
    assert "clary_cpu_utilization_percent" not in samples(ledger.exposition())


async def test_what_clients_put_is_not_prometheus_business(cloudwatch: CloudWatch) -> None:
    ledger = Ledger(cloudwatch.store)
    await cloudwatch.put(1.0)
    assert not any("clary_m" in name for name in samples(ledger.exposition()))


def test_names_for_prometheus_are_unique_and_follow_its_rules() -> None:
    names = [name_of(metric) for metric in METRICS]
    assert len(set(names)) == len(names)
    assert {name_of(metric) for metric in METRICS if "Errors" in metric.name} == {
        f"clary_{part}" for part in (
            "invocation_4xx_errors_total", "invocation_5xx_errors_total", "invocation_model_errors_total",
            "container_invocation_4xx_errors_total", "container_invocation_5xx_errors_total",
            "component_invocation_4xx_errors_total", "component_invocation_5xx_errors_total",
            "component_invocation_model_errors_total",
        )
    }  # fmt: skip
