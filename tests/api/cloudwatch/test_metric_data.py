"""GetMetricData: pages, and every function of its expressions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clary.api.cloudwatch.expressions import FUNCTIONS
from clary.errors import AwsError
from tests.api.cloudwatch.conftest import START, CloudWatch, query

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
