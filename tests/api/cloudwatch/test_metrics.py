"""Metrics are put, listed and read, in CloudWatch's words."""

from __future__ import annotations

import math
from typing import Any

import pytest

from clary.core.metrics import INSTANCES
from clary.errors import AwsError
from tests.api.cloudwatch.conftest import NOW, START, CloudWatch

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
