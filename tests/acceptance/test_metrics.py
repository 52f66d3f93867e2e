"""Numbers of real invocations, read by boto3 in each of its protocols, by the aws CLI and by a Prometheus parser."""

from __future__ import annotations

import datetime as dt
import http.client
import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from prometheus_client.parser import text_string_to_metric_families

from clary.gateway import short
from tests.acceptance.conftest import Clary, running, wait_until
from tests.acceptance.test_identities import allow, made_key

pytestmark = pytest.mark.acceptance

PROTOCOLS = ("smithy-rpc-v2-cbor", "json", "query")
ALL = 3650 * 86_400
"""Seconds: all that is counted here is in one period, also at midnight."""
DIMENSIONS = [{"Name": "EndpointName", "Value": "numbers"}, {"Name": "VariantName", "Value": "AllTraffic"}]


@pytest.fixture(scope="module")
def clary() -> Iterator[Clary]:
    """One Clary of two gateway processes, with an endpoint that was invoked ten times, of which three failed."""
    with running("--workers", "2") as here:
        here.create("numbers")
        here.wait("numbers")
        for body in (b"x",) * 7 + (b"fail500", b"fail400", b"fail404"):
            if body == b"x":
                here.invoke("numbers", body)
            else:
                with pytest.raises(ClientError):
                    here.client("sagemaker-runtime").invoke_endpoint(EndpointName="numbers", Body=body)
        wait_until(lambda: total(here, "Invocations") == 10, "all invocations are counted", here.output)
        yield here


def span() -> dict[str, Any]:
    now = dt.datetime.now(dt.UTC)
    return {"StartTime": now - dt.timedelta(minutes=10), "EndTime": now + dt.timedelta(minutes=1)}


def cloudwatch(clary: Clary, protocol: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a real client that speaks this protocol; boto3 chooses the first that it knows of the service's."""
    monkeypatch.setattr("botocore.model.PRIORITY_ORDERED_SUPPORTED_PROTOCOLS", (protocol,))
    client = clary.client("cloudwatch")
    assert client.meta.service_model.resolved_protocol == protocol
    return client


def statistics(client: Any, name: str, namespace: str = "AWS/SageMaker", **members: Any) -> list[dict[str, Any]]:
    wanted = members or {"Statistics": ["Sum", "SampleCount", "Minimum", "Maximum"]}
    answer = client.get_metric_statistics(
        Namespace=namespace, MetricName=name, Dimensions=DIMENSIONS, Period=ALL, **span(), **wanted
    )
    return list(answer["Datapoints"])


def total(clary: Clary, name: str) -> float:
    return float(sum(point["Sum"] for point in statistics(clary.client("cloudwatch"), name)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_boto3_reads_the_numbers_in_every_protocol(
    clary: Clary, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = cloudwatch(clary, protocol, monkeypatch)
    wanted = {
        "Invocations": (10, 10), "Invocation4XXErrors": (2, 10), "Invocation5XXErrors": (1, 10),
        "InvocationModelErrors": (3, 10), "InvocationsPerInstance": (10, 10),
    }  # fmt: skip
    for name, (sum_, count) in wanted.items():
        (found,) = statistics(client, name)
        assert (found["Sum"], found["SampleCount"], found["Unit"]) == (sum_, count, "None"), name
    (latency,) = statistics(client, "ModelLatency", ExtendedStatistics=["p50", "p99"])
    assert latency["Unit"] == "Microseconds"
    assert 100 < latency["ExtendedStatistics"]["p50"] <= latency["ExtendedStatistics"]["p99"] < 60e6
    metric = {"Namespace": "AWS/SageMaker", "MetricName": "Invocation4XXErrors", "Dimensions": DIMENSIONS}
    data = client.get_metric_data(
        MetricDataQueries=[
            {"Id": "errors", "MetricStat": {"Metric": metric, "Period": ALL, "Stat": "Sum"}, "ReturnData": False},
            {"Id": "rate", "Expression": "errors / 10 * 100", "Label": "error rate"},
        ],
        **span(),
    )
    (rate,) = data["MetricDataResults"]
    assert (rate["Label"], rate["Values"], rate["StatusCode"]) == ("error rate", [20.0], "Complete")
    assert rate["Timestamps"][0].tzinfo is not None
    listed = client.list_metrics(Namespace="AWS/SageMaker", Dimensions=DIMENSIONS[:1])["Metrics"]
    assert set(wanted) | {"ModelLatency", "OverheadLatency"} <= {each["MetricName"] for each in listed}
    assert all(each["Dimensions"] == DIMENSIONS for each in listed)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_clients_own_metrics_come_back(clary: Clary, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = cloudwatch(clary, protocol, monkeypatch)
    name = f"drift-{protocol}"
    # So many that the SDK compresses them.
    data = [{"MetricName": name, "Value": float(number), "Unit": "Count"} for number in range(1, 501)]
    client.put_metric_data(Namespace="Mine", MetricData=data)
    answer = client.get_metric_statistics(
        Namespace="Mine", MetricName=name, Period=ALL, Statistics=["Sum", "SampleCount"], **span()
    )
    (found,) = answer["Datapoints"]
    assert (found["Sum"], found["SampleCount"], found["Unit"]) == (125_250.0, 500.0, "Count")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_errors_have_cloudwatchs_codes(clary: Clary, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = cloudwatch(clary, protocol, monkeypatch)
    with pytest.raises(ClientError) as refused:
        client.put_metric_data(Namespace="AWS/Mine", MetricData=[{"MetricName": "m", "Value": 1.0}])
    assert refused.value.response["Error"]["Code"] == "InvalidParameterValue"
    assert refused.value.response["Error"]["Message"] == "The value AWS/Mine for parameter Namespace is reserved."
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_the_aws_cli_reads_them(clary: Clary) -> None:
    def aws(*arguments: str) -> Any:
        done = clary.aws("cloudwatch", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    listed = aws("list-metrics", "--namespace", "AWS/SageMaker", "--metric-name", "Invocations")
    assert {"Namespace": "AWS/SageMaker", "MetricName": "Invocations", "Dimensions": DIMENSIONS} in listed["Metrics"]
    start, end = (at.isoformat() for at in span().values())
    dimensions = "Name=EndpointName,Value=numbers", "Name=VariantName,Value=AllTraffic"
    found = aws(
        "get-metric-statistics", "--namespace", "AWS/SageMaker", "--metric-name", "Invocations", "--dimensions",
        *dimensions, "--start-time", start, "--end-time", end, "--period", str(ALL), "--statistics", "Sum",
    )  # fmt: skip
    assert [point["Sum"] for point in found["Datapoints"]] == [10.0]
    metric = {"Namespace": "AWS/SageMaker", "MetricName": "ModelLatency", "Dimensions": DIMENSIONS}
    queries = [{"Id": "l", "MetricStat": {"Metric": metric, "Period": ALL, "Stat": "p90"}}]
    data = aws(
        "get-metric-data", "--metric-data-queries", json.dumps(queries), "--start-time", start, "--end-time", end
    )
    (latency,) = data["MetricDataResults"]
    assert latency["Values"][0] > 100
    refused = clary.aws("cloudwatch", "get-metric-statistics", "--namespace", "N", "--metric-name", "m", "--start-time",
                        end, "--end-time", end, "--period", "60", "--statistics", "Sum")  # fmt: skip
    assert "(InvalidParameterValue)" in refused.stderr


def test_instances_are_measured(clary: Clary) -> None:
    client = clary.client("cloudwatch")

    def measured() -> set[str]:
        found = client.list_metrics(Namespace="/aws/sagemaker/Endpoints", Dimensions=DIMENSIONS)["Metrics"]
        return {each["MetricName"] for each in found}

    wanted = {"CPUUtilization", "MemoryUtilization", "DiskUtilization"}
    wait_until(lambda: measured() == wanted, "instances are measured twice", clary.output)
    (memory,) = statistics(client, "MemoryUtilization", "/aws/sagemaker/Endpoints")
    assert memory["Unit"] == "Percent"
    assert 0 < memory["Minimum"] <= memory["Maximum"] < 100


def scrape(clary: Clary) -> dict[str, float]:
    with urllib.request.urlopen(f"{clary.url}/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels in ({}, {"endpoint": "numbers", "variant": "AllTraffic"})
    }


def test_prometheus_reads_the_same_from_all_gateways_together(clary: Clary) -> None:
    wait_until(
        lambda: scrape(clary)["clary_gateways"] == 2, "both gateways have said that they are there", clary.output
    )
    found = scrape(clary)
    assert found["clary_invocations_total"] == 10
    assert found["clary_invocation_4xx_errors_total"] == 2
    assert found["clary_model_latency_seconds_count"] == 10
    assert found["clary_control_plane_up"] == 1


@pytest.mark.skipif(not short.is_compiled(), reason="the short way of invocations is not compiled")
def test_an_ordinary_model_is_invoked_the_short_way(clary: Clary) -> None:
    runtime = clary.client("sagemaker-runtime")

    def most_do() -> bool:
        runtime.invoke_endpoint(EndpointName="numbers", Body=b"1")["Body"].read()
        return scrape(clary)["clary_plain_requests"] >= 5

    wait_until(most_do, "invocations go the short way", clary.output)


def test_nobody_but_a_gateway_delivers_numbers(clary: Clary) -> None:
    statistics_ = [1.0, 1000.0, 1000.0, 1000.0]
    names = [["EndpointName", "forged"], ["VariantName", "AllTraffic"]]
    point = {"series": ["AWS/SageMaker", "Invocations", names, "None"], "start": int(dt.datetime.now().timestamp()),
             "statistics": statistics_, "histogram": {}}  # fmt: skip
    body = json.dumps({"source": "x", "number": 1, "points": [point], "gauges": {}, "concurrency": []}).encode()
    for path in ("/_clary/metrics", "/service/../_clary/metrics", "/service/a/operation/../../../_clary/metrics"):
        request = AWSRequest("POST", clary.url + path, {"smithy-protocol": "rpc-v2-cbor"}, body)
        pair = clary.environment
        key = Credentials(pair["AWS_ACCESS_KEY_ID"], pair["AWS_SECRET_ACCESS_KEY"])
        SigV4Auth(key, "monitoring", "us-east-1").add_auth(request)
        connection = http.client.HTTPConnection(clary.url.removeprefix("http://"))
        connection.request("POST", path, body, dict(request.headers.items()))
        assert connection.getresponse().status >= 400, path
        connection.close()
    forged = [{"Name": "EndpointName", "Value": "forged"}]
    assert clary.client("cloudwatch").list_metrics(Namespace="AWS/SageMaker", Dimensions=forged)["Metrics"] == []


def test_a_bucket_named_metrics_is_still_a_bucket(clary: Clary) -> None:
    clary.upload("key", b"body", bucket="metrics")
    s3 = clary.client("s3")
    assert [each["Key"] for each in s3.list_objects_v2(Bucket="metrics")["Contents"]] == ["key"]
    assert [each["Key"] for each in s3.list_objects(Bucket="metrics")["Contents"]] == ["key"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_user_needs_a_policy(clary: Clary, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.model.PRIORITY_ORDERED_SUPPORTED_PROTOCOLS", (protocol,))
    allowed = allow("cloudwatch:PutMetricData", "*")
    allowed["Statement"]["Condition"] = {"StringEquals": {"cloudwatch:namespace": "Mine"}}
    session = made_key(clary, f"reporter-{protocol}", allowed)
    client = session.client("cloudwatch", endpoint_url=clary.url)
    data = [{"MetricName": "m", "Value": 1.0}]
    client.put_metric_data(Namespace="Mine", MetricData=data)
    for call in (client.list_metrics, lambda: client.put_metric_data(Namespace="Other", MetricData=data)):
        with pytest.raises(ClientError, match=r"not authorized to perform: cloudwatch:\w+ on resource: \*") as refused:
            call()
        assert refused.value.response["Error"]["Code"] == "AccessDenied"


@pytest.fixture
def alone() -> Iterator[Clary]:
    with running() as here:
        here.create("numbers")
        here.wait("numbers")
        yield here


def test_nothing_is_lost_or_counted_twice_while_the_control_plane_is_killed(alone: Clary) -> None:
    for _ in range(5):
        alone.invoke("numbers")
    killed = alone.child("clary.server control")
    os.kill(killed, signal.SIGKILL)
    for _ in range(5):
        alone.invoke("numbers")
    wait_until(lambda: total(alone, "Invocations") == 10, "all invocations are counted", alone.output)
    alone.kill_control()
    wait_until(lambda: total(alone, "Invocations") == 10, "they survive", alone.output)


def test_the_last_second_is_delivered_at_the_end(alone: Clary) -> None:
    alone.invoke("numbers")
    alone.process.terminate()
    assert alone.process.wait(300) == 0
    alone.start()
    wait_until(lambda: total(alone, "Invocations") == 1, "it was kept", alone.output)


def test_a_scrape_without_the_token_is_refused() -> None:
    with running("--metrics-token", "secret") as here:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(urllib.request.Request(f"{here.url}/metrics", headers=headers))
            refused.value.close()
            assert refused.value.code == 401
        good = urllib.request.Request(f"{here.url}/metrics", headers={"Authorization": "Bearer secret"})
        with urllib.request.urlopen(good) as answer:
            assert b"clary_control_plane_up 1.0" in answer.read()
