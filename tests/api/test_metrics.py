"""CloudWatch's operations over a real store, in CloudWatch's words; and the numbers of gateways on their way there."""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from clary.api.exposition import name_of
from clary.api.expressions import FUNCTIONS
from clary.api.ledger import SILENCE, Ledger
from clary.api.metric_data import MetricData
from clary.api.metrics import Metrics
from clary.core.metrics import INSTANCES, INVOCATIONS, METRICS, Delivery, Point, Statistics, series
from clary.errors import AwsError, SerializationException
from clary.store.store import Store
from clary.wire import constraints, model
from clary.wire.dispatch import Caller

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


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is up to date: migrating takes longer than any test here."""

    async def make(path: Path) -> Path:
        await (await Store.open(path)).close()
        return path

    return asyncio.run(make(tmp_path_factory.mktemp("metrics") / "clary.db"))


@pytest.fixture
async def cloudwatch(tmp_path: Path, empty: Path) -> AsyncIterator[CloudWatch]:
    store = await Store.open(Path(shutil.copy(empty, tmp_path)))
    yield CloudWatch(store)
    await store.close()


def query(id: str, name: str = "m", **stat: Any) -> dict[str, Any]:
    metric = {"Namespace": "N", "MetricName": name}
    return {"Id": id, "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum", **stat}}


# PutMetricData


async def test_every_statistic_of_what_was_put(cloudwatch: CloudWatch) -> None:
    await cloudwatch.put(1.0, 2.0, 6.0, Unit="Seconds")
    (found,) = await cloudwatch.statistics(Statistics=["SampleCount", "Average", "Sum", "Minimum", "Maximum"])
    assert found == {
        "Timestamp": START, "Unit": "Seconds", "SampleCount": 3, "Average": 3.0, "Sum": 9.0, "Minimum": 1.0,
        "Maximum": 6.0,
    }  # fmt: skip


async def test_values_with_counts_and_statistic_sets(cloudwatch: CloudWatch) -> None:
    sets = {"SampleCount": 4.0, "Sum": 8.0, "Minimum": 1.0, "Maximum": 3.0}
    data = [
        {"MetricName": "m", "Timestamp": START, "Values": [1.0, 5.0], "Counts": [3.0, 1.0]},
        {"MetricName": "m", "Timestamp": START, "StatisticValues": sets},
    ]
    await cloudwatch("PutMetricData", Namespace="N", MetricData=data)
    (found,) = await cloudwatch.statistics(Statistics=["SampleCount", "Sum", "Maximum"])
    assert (found["SampleCount"], found["Sum"], found["Maximum"]) == (8, 16.0, 5.0)
    assert await cloudwatch.statistics(ExtendedStatistics=["p50"]) == []  # of a set nobody knows them


async def test_a_set_of_equal_values_has_percentiles(cloudwatch: CloudWatch) -> None:
    sets = {"SampleCount": 4.0, "Sum": 8.0, "Minimum": 2.0, "Maximum": 2.0}
    data = [{"MetricName": "m", "Timestamp": START, "StatisticValues": sets}]
    await cloudwatch("PutMetricData", Namespace="N", MetricData=data)
    (found,) = await cloudwatch.statistics(ExtendedStatistics=["p90"])
    assert found["ExtendedStatistics"] == {"p90": 2.0}


async def test_numbers_of_an_entity_count_too(cloudwatch: CloudWatch) -> None:
    entity = {"MetricData": [{"MetricName": "m", "Value": 2.0, "Timestamp": START}]}
    await cloudwatch("PutMetricData", Namespace="N", EntityMetricData=[entity])
    assert [found["Sum"] for found in await cloudwatch.statistics()] == [2.0]


async def test_a_datum_without_a_time_is_of_now(cloudwatch: CloudWatch) -> None:
    await cloudwatch("PutMetricData", Namespace="N", MetricData=[{"MetricName": "m", "Value": 1.0}])
    (found,) = await cloudwatch.statistics(StartTime=NOW - 60, EndTime=NOW + 60)
    assert found["Timestamp"] == NOW


@pytest.mark.parametrize(
    ("datum", "code", "message"),
    [
        ({}, "MissingParameter", "At least one of the parameters must be specified: "
         "MetricData.member.1.Value, .Values, .StatisticValues."),
        ({"Value": 1.0, "Values": [1.0]}, "InvalidParameterCombination",
         "The parameters MetricData.member.1.Value and MetricData.member.1.Values are mutually exclusive; both are "
         "specified."),
        ({"Value": math.nan}, "InvalidParameterValue",
         "The value nan for parameter MetricData.member.1.Value is invalid."),
        ({"Value": 2.0**361}, "InvalidParameterValue", None),
        ({"Values": [1.0], "Counts": [1.0, 2.0]}, "InvalidParameterValue", None),
        ({"Values": [1.0] * 151}, "InvalidParameterValue", None),
        ({"Values": [1.0], "Counts": [0.0]}, "InvalidParameterValue", None),
        ({"Value": 1.0, "Timestamp": NOW + 7201}, "InvalidParameterValue",
         "The parameter MetricData.member.1.Timestamp must specify a time no more than two hours in the future."),
        ({"Value": 1.0, "Timestamp": NOW - 15 * 86400}, "InvalidParameterValue",
         "The parameter MetricData.member.1.Timestamp must specify a time within the past two weeks."),
        ({"Value": 1.0, "StorageResolution": 5}, "InvalidParameterValue", None),
        ({"Value": 1.0, "Dimensions": [{"Name": "a", "Value": "1"}, {"Name": "a", "Value": "2"}]},
         "InvalidParameterValue", "The parameter Dimensions contains a name twice."),
        ({"StatisticValues": {"SampleCount": 0.0, "Sum": 0.0, "Minimum": 0.0, "Maximum": 0.0}},
         "InvalidParameterValue", None),
    ],
)  # fmt: skip
async def test_what_cannot_be_a_datum_is_refused(
    cloudwatch: CloudWatch, datum: dict[str, Any], code: str, message: str | None
) -> None:
    refused = await cloudwatch.refusal("PutMetricData", Namespace="N", MetricData=[{"MetricName": "m", **datum}])
    assert refused[0] == code
    assert message is None or refused[1] == message


@pytest.mark.parametrize("namespace", ["AWS/SageMaker", INSTANCES, "Clary"])
async def test_nobody_writes_into_namespaces_that_are_not_theirs(cloudwatch: CloudWatch, namespace: str) -> None:
    data = [{"MetricName": "m", "Value": 1.0}]
    code, _ = await cloudwatch.refusal("PutMetricData", Namespace=namespace, MetricData=data)
    assert code == "InvalidParameterValue"


async def test_one_bad_datum_keeps_all_of_its_request_out(cloudwatch: CloudWatch) -> None:
    data = [{"MetricName": "m", "Value": 1.0, "Timestamp": START}, {"MetricName": "m", "Value": math.inf}]
    await cloudwatch.refusal("PutMetricData", Namespace="N", MetricData=data)
    assert await cloudwatch.statistics() == []


# GetMetricStatistics


async def test_datapoints_begin_at_the_start_that_was_asked_for(cloudwatch: CloudWatch) -> None:
    for minute in range(10):
        await cloudwatch.put(1.0, at=START + 60 * minute + 30)
    found = await cloudwatch.statistics(StartTime=START + 61, EndTime=START + 600, Period=240)
    assert [(point["Timestamp"] - START, point["Sum"]) for point in found] == [(60, 4.0), (300, 4.0), (540, 1.0)]


async def test_seconds_are_kept_where_they_were_asked_for(cloudwatch: CloudWatch) -> None:
    for second in range(20):
        await cloudwatch.put(1.0, at=START + second, StorageResolution=1)
    found = await cloudwatch.statistics(EndTime=START + 60, Period=10)
    assert [(point["Timestamp"] - START, point["Sum"]) for point in found] == [(0, 10.0), (10, 10.0)]


async def test_units_are_apart_and_one_can_be_asked_for(cloudwatch: CloudWatch) -> None:
    await cloudwatch.put(1.0, Unit="Seconds")
    await cloudwatch.put(2.0, Unit="Bytes")
    assert [(found["Unit"], found["Sum"]) for found in await cloudwatch.statistics()] == [
        ("Bytes", 2.0),
        ("Seconds", 1.0),
    ]
    assert [found["Sum"] for found in await cloudwatch.statistics(Unit="Seconds")] == [1.0]
    assert await cloudwatch.statistics(Unit="Percent") == []


async def test_percentiles_are_right_to_a_hundredth(cloudwatch: CloudWatch) -> None:
    await cloudwatch.put(*[float(number) for number in range(1, 1001)])
    (found,) = await cloudwatch.statistics(ExtendedStatistics=["p50", "p90", "p99", "p99.9", "p100", "p0"])
    wanted = {"p50": 500, "p90": 900, "p99": 990, "p99.9": 999, "p100": 1000, "p0": 1}
    assert found["ExtendedStatistics"] == {name: pytest.approx(value, rel=0.011) for name, value in wanted.items()}


async def test_dimensions_are_all_or_nothing(cloudwatch: CloudWatch) -> None:
    both = [{"Name": "a", "Value": "1"}, {"Name": "b", "Value": "2"}]
    await cloudwatch.put(1.0, Dimensions=both)
    assert await cloudwatch.statistics() == []
    assert await cloudwatch.statistics(Dimensions=both[:1]) == []
    assert [found["Sum"] for found in await cloudwatch.statistics(Dimensions=both[::-1])] == [1.0]


@pytest.mark.parametrize(
    ("members", "code", "message"),
    [
        ({"EndTime": START}, "InvalidParameterValue", "The parameter StartTime must not equal parameter EndTime."),
        ({"EndTime": START - 1}, "InvalidParameterValue",
         "The parameter StartTime must be less than the parameter EndTime."),
        ({"Period": 61}, "InvalidParameterValue",
         "The parameter Period must be one of 1, 5, 10, 20, 30, or a multiple of 60."),
        ({"EndTime": START + 86400 * 2}, "InvalidParameterCombination",
         "You have requested up to 2,880 datapoints, which exceeds the limit of 1,440. You may reduce the datapoints "
         "requested by increasing Period, or decreasing the time range."),
        ({"Statistics": ["Sum"], "ExtendedStatistics": ["p9"]}, "InvalidParameterCombination", None),
        ({"ExtendedStatistics": ["p101"]}, "InvalidParameterValue",
         "The value p101 for parameter ExtendedStatistics.member.1 is not supported."),
        ({"ExtendedStatistics": ["Sum"]}, "InvalidParameterValue", None),
    ],
)  # fmt: skip
async def test_what_cannot_be_asked_for_is_refused(
    cloudwatch: CloudWatch, members: dict[str, Any], code: str, message: str | None
) -> None:
    with pytest.raises(AwsError) as refused:
        await cloudwatch.statistics(**members)
    assert refused.value.code == code
    assert message is None or refused.value.message == message


# ListMetrics


async def test_metrics_are_listed_once_whatever_their_units(cloudwatch: CloudWatch) -> None:
    await cloudwatch.put(1.0, Unit="Seconds")
    await cloudwatch.put(1.0, Unit="Bytes", Dimensions=[{"Name": "b", "Value": "2"}, {"Name": "a", "Value": "1"}])
    await cloudwatch.put(1.0, Unit="Bits", Dimensions=[{"Name": "a", "Value": "1"}, {"Name": "b", "Value": "2"}])
    found = (await cloudwatch("ListMetrics"))["Metrics"]
    dimensions = [{"Name": "a", "Value": "1"}, {"Name": "b", "Value": "2"}]
    assert found == [
        {"Namespace": "N", "MetricName": "m", "Dimensions": []},
        {"Namespace": "N", "MetricName": "m", "Dimensions": dimensions},
    ]


async def test_a_filter_by_dimension_takes_a_name_or_a_name_and_a_value(cloudwatch: CloudWatch) -> None:
    for value in ("1", "2"):
        await cloudwatch.put(1.0, Dimensions=[{"Name": "a", "Value": value}])
    assert len((await cloudwatch("ListMetrics", Dimensions=[{"Name": "a"}]))["Metrics"]) == 2
    (found,) = (await cloudwatch("ListMetrics", Dimensions=[{"Name": "a", "Value": "2"}]))["Metrics"]
    assert found["Dimensions"] == [{"Name": "a", "Value": "2"}]


async def test_recently_active_is_three_hours(cloudwatch: CloudWatch) -> None:
    await cloudwatch.put(1.0, name="old", at=NOW - 3 * 3600 - 120)
    await cloudwatch.put(1.0, name="new", at=NOW - 3 * 3600 + 120)
    found = (await cloudwatch("ListMetrics", RecentlyActive="PT3H"))["Metrics"]
    assert [each["MetricName"] for each in found] == ["new"]


async def test_pages_add_up(cloudwatch: CloudWatch) -> None:
    data = [{"MetricName": f"m{number}", "Value": 1.0} for number in range(1000)]
    await cloudwatch("PutMetricData", Namespace="N", MetricData=data)
    await cloudwatch.put(1.0, name="last")
    names: list[str] = []
    token: dict[str, str] = {}
    for size in (500, 500, 1):
        page = await cloudwatch("ListMetrics", **token)
        assert len(page["Metrics"]) == size
        names += [each["MetricName"] for each in page["Metrics"]]
        token = {"NextToken": page["NextToken"]} if "NextToken" in page else {}
    assert not token
    assert (len(set(names)), names[-1]) == (1001, "last")


async def test_a_token_of_somebody_elses_is_refused(cloudwatch: CloudWatch) -> None:
    code, _ = await cloudwatch.refusal("ListMetrics", NextToken="no token")
    assert code == "InvalidNextToken"


# GetMetricData


async def test_several_metrics_newest_first_by_default(cloudwatch: CloudWatch) -> None:
    for minute in range(3):
        await cloudwatch.put(float(minute), at=START + 60 * minute)
    await cloudwatch.put(7.0, name="other")
    answer = await cloudwatch.data(query("a"), query("b", "other"), ScanBy="TimestampDescending")
    a, b = answer["MetricDataResults"]
    assert (a["Id"], a["Label"], a["StatusCode"], a["Values"]) == ("a", "m", "Complete", [2.0, 1.0, 0.0])
    assert a["Timestamps"] == [START + 120, START + 60, START]
    assert (b["Label"], b["Values"]) == ("other", [7.0])
    assert "NextToken" not in answer


async def test_a_metric_without_data_is_in_the_answer(cloudwatch: CloudWatch) -> None:
    (found,) = (await cloudwatch.data(query("a")))["MetricDataResults"]
    assert (found["Values"], found["StatusCode"]) == ([], "Complete")


async def test_pages_of_datapoints_add_up(cloudwatch: CloudWatch) -> None:
    for minute in range(5):
        await cloudwatch.put(float(minute), at=START + 60 * minute)
    values: dict[str, list[float]] = {"a": [], "b": []}
    token: dict[str, str] = {}
    for _ in range(4):
        page = await cloudwatch.data(query("a"), query("b"), MaxDatapoints=3, **token)
        for result in page["MetricDataResults"]:
            values[result["Id"]] += result["Values"]
        token = {"NextToken": page["NextToken"]} if "NextToken" in page else {}
    assert not token
    assert values == {"a": [0.0, 1.0, 2.0, 3.0, 4.0], "b": [0.0, 1.0, 2.0, 3.0, 4.0]}


M = {0: 4.0, 60: 9.0, 180: 1.0}
N = {60: 3.0, 120: 5.0}


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("a + 1", [{0: 5, 60: 10, 180: 2}]),
        ("a + b", [{60: 12}]),
        ("10 - 2 * a ^ 2 / 4", [{0: 2, 60: -30.5, 180: 9.5}]),
        ("-a ^ 2", [{0: -16, 60: -81, 180: -1}]),
        ("2 ^ 3 ^ 0 * a", [{0: 8, 60: 18, 180: 2}]),
        ("(a + 1) * 2", [{0: 10, 60: 20, 180: 4}]),
        ("a / 0", [{}]),
        ("1 / (a - 4)", [{60: 0.2, 180: pytest.approx(-1 / 3)}]),
        ("a > 3", [{0: 1, 60: 1, 180: 0}]),
        ("a > 3 AND a < 9", [{0: 1, 60: 0, 180: 0}]),
        ("a > 5 || a == 1", [{0: 0, 60: 1, 180: 1}]),
        ("FILL(a, 0)", [{0: 4, 60: 9, 120: 0, 180: 1, 240: 0}]),
        ("FILL(a, REPEAT)", [{0: 4, 60: 9, 120: 9, 180: 1, 240: 1}]),
        ("FILL(a, LINEAR)", [{0: 4, 60: 9, 120: 5, 180: 1}]),
        ("FILL(a, b)", [{0: 4, 60: 9, 120: 5, 180: 1}]),
        ("SUM([a, b])", [{0: 4, 60: 12, 120: 5, 180: 1}]),
        ("SUM(METRICS())", [{0: 4, 60: 12, 120: 5, 180: 1}]),
        ("AVG(METRICS())", [{0: 4, 60: 6, 120: 5, 180: 1}]),
        ("MAX([a, b])", [{0: 4, 60: 9, 120: 5, 180: 1}]),
        ("MIN([a, b])", [{0: 4, 60: 3, 120: 5, 180: 1}]),
        ('METRICS("b")', [N]),
        ("METRICS() * 2", [{0: 8, 60: 18, 180: 2}, {60: 6, 120: 10}]),
        ("a / SUM(a)", [{0: pytest.approx(4 / 14), 60: pytest.approx(9 / 14), 180: pytest.approx(1 / 14)}]),
        ("a - AVG(a) + STDDEV(a) * 0 + MIN(a) + MAX(a)", [{at: pytest.approx(v - 14 / 3 + 10) for at, v in M.items()}]),
        ("a * METRIC_COUNT(METRICS()) + DATAPOINT_COUNT(b)", [{0: 10, 60: 20, 180: 4}]),
        ("ABS(-a)", [M]),
        ("CEIL(a / 2)", [{0: 2, 60: 5, 180: 1}]),
        ("FLOOR(a / 2)", [{0: 2, 60: 4, 180: 0}]),
        ("LOG10(a * 0 + 100) + LOG(a * 0 + 1)", [{0: 2, 60: 2, 180: 2}]),
        ("DIFF(a)", [{60: 5, 180: -8}]),
        ("DIFF_TIME(a)", [{60: 60, 180: 120}]),
        ("RATE(a)", [{60: pytest.approx(5 / 60), 180: pytest.approx(-8 / 120)}]),
        ("RUNNING_SUM(a)", [{0: 4, 60: 13, 180: 14}]),
        ("a / PERIOD(a)", [{at: pytest.approx(value / 60) for at, value in M.items()}]),
        ("IF(a > 3, a, 0)", [{0: 4, 60: 9, 180: 0}]),
        ("IF(a > 3, b)", [{60: 3}]),
        ("IF(1, a, b)", [M]),
        ("FIRST(METRICS())", [M]),
        ("LAST([a, b])", [N]),
        ("REMOVE_EMPTY([a, b - 1000 > 0, c])", [M, {60: 0, 120: 0}]),
        ("TIME_SERIES(3)", [{0: 3, 60: 3, 120: 3, 180: 3, 240: 3}]),
    ],
)
async def test_expressions(cloudwatch: CloudWatch, expression: str, wanted: list[dict[int, float]]) -> None:
    for name, values in (("a", M), ("b", N)):
        for at, value in values.items():
            await cloudwatch.put(value, name=name, at=START + at)
    metrics = [query("a", "a"), query("b", "b")]
    if "c]" in expression:
        metrics.append(query("c", "c"))
    assert await cloudwatch.compute(expression, *metrics) == wanted


async def test_expressions_may_stand_on_one_another_in_any_order(cloudwatch: CloudWatch) -> None:
    await cloudwatch.put(2.0)
    chain = [{"Id": "c", "Expression": "d + 1"}, {"Id": "d", "Expression": "a * 10", "ReturnData": False}, query("a")]
    found = (await cloudwatch.data(*chain))["MetricDataResults"]
    assert [(each["Id"], each["Label"], each["Values"]) for each in found] == [("c", "c", [21.0]), ("a", "m", [2.0])]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("SEARCH('{N} m', 'Sum', 60)",
         "Error in expression 'e': Clary does not implement SEARCH; docs/metrics.md lists the functions that it does."),
        ("nobody + 1", "Error in expression 'e': there is no query with the Id nobody."),
        ("e + 1", "Error in expression 'e': e -> e goes in a circle."),
        ("1 + 1", "Error in expression 'e': it must give a time series; TIME_SERIES makes one of a number."),
        ("a +", "Error in expression 'e': a value is expected where it has its end."),
        ("(a", "Error in expression 'e': ')' is expected where it has its end."),
        ("a b", "Error in expression 'e': 'end' is expected where it has 'b'."),
        ("a ? 1", "Error in expression 'e': it cannot be read from ' ? 1' on."),
        ("FILL(a)", "Error in expression 'e': FILL takes 2 arguments."),
        ("FILL(a, 'x')",
         "Error in expression 'e': FILL: the second argument must be a number, a time series, REPEAT or LINEAR."),
        ("RATE(1)", "Error in expression 'e': RATE: a time series is expected."),
        ("a + REPEAT", "Error in expression 'e': an operator stands between values that it cannot combine."),
        ("[a] + [a]", "Error in expression 'e': an operator stands between values that it cannot combine."),
        ("'text'", "Error in expression 'e': it is a text."),
        ("(" * 500 + "a" + ")" * 500, "Error in expression 'e': it is nested too deeply."),
        ("-" * 2000 + "a", "Error in expression 'e': it is nested too deeply."),
    ],
)  # fmt: skip
async def test_what_is_wrong_with_an_expression_is_told(cloudwatch: CloudWatch, expression: str, message: str) -> None:
    with pytest.raises(AwsError) as refused:
        await cloudwatch.compute(expression, query("a"))
    assert (refused.value.code, refused.value.message) == ("ValidationError", message)


async def test_huge_powers_are_no_datapoints(cloudwatch: CloudWatch) -> None:
    await cloudwatch.put(10.0)
    assert await cloudwatch.compute("a ^ 9999 ^ 9", query("a")) == [{}]


def test_every_function_is_tried_above() -> None:
    tried = Path(__file__).read_text()
    assert [name for name in FUNCTIONS if f"{name}(" not in tried] == []


@pytest.mark.parametrize(
    "queries",
    [
        [query("A")],
        [query("a"), query("a")],
        [{"Id": "a"}],
        [{**query("a"), "Expression": "1"}],
        [query("a", Stat="tm99")],
        [query("a", Period=7)],
        [{**query("a"), "AccountId": "999999999999"}],
        [{"Id": "a", "MetricStat": {"Metric": {"MetricName": "m"}, "Period": 60, "Stat": "Sum"}}],
        [query(f"a{number}") for number in range(501)],
    ],
)
async def test_queries_that_cannot_be_are_refused(cloudwatch: CloudWatch, queries: list[dict[str, Any]]) -> None:
    with pytest.raises(AwsError) as refused:
        await cloudwatch.data(*queries)
    assert refused.value.code == "ValidationError"


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
