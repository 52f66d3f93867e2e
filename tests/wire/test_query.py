"""The query protocol, read by botocore's own parser."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlencode

import pytest
from botocore.model import ServiceModel
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from clary.errors import ValidationException
from clary.wire import model, query
from clary.wire.dispatch import Caller, Dispatcher
from clary.wire.failures import WireResponse

CALLER = Caller(account_id="123456789012", region="us-east-1", access_key_id="AKID", request_id="req-1")
IDENTITY = {"UserId": "AKID", "Account": "123456789012", "Arn": "arn:aws:iam::123456789012:user/a&b"}
WHO = b"Action=GetCallerIdentity&Version=2011-06-15"


async def identity(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    assert request == {}
    return IDENTITY


async def post(body: bytes, service: str = "sts", handler: Any = identity) -> WireResponse:
    dispatcher = Dispatcher({("sts", "GetCallerIdentity"): handler})
    headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    return await dispatcher.handle(service, headers, body, CALLER)


def parsed(response: WireResponse) -> dict[str, Any]:
    """What boto3 makes of it."""
    raw = {"status_code": response.status, "headers": dict(response.headers), "body": response.body}
    shape = model.operation("sts", "GetCallerIdentity").output_shape
    result: dict[str, Any] = create_parser("query").parse(raw, shape)
    return result


def assert_error(response: WireResponse, status: int, code: str, kind: str = "Sender") -> str:
    assert response.status == status
    assert response.headers["content-type"] == "text/xml"
    answer = parsed(response)
    assert answer["ResponseMetadata"]["RequestId"] == "req-1"
    assert (answer["Error"]["Code"], answer["Error"]["Type"]) == (code, kind)
    return str(answer["Error"]["Message"])


@pytest.mark.parametrize("service", ["sts", ""])
async def test_get_caller_identity(service: str) -> None:
    response = await post(WHO, service)
    answer = parsed(response)
    assert answer.pop("ResponseMetadata")["RequestId"] == "req-1"
    assert answer == IDENTITY
    assert response.status == 200
    assert response.headers == {"content-type": "text/xml", "x-amzn-requestid": "req-1"}
    assert b'<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">' in response.body


async def test_iam_is_denied_so_that_sdks_go_on() -> None:
    message = assert_error(await post(b"Action=GetRole&Version=2010-05-08&RoleName=r", "iam"), 403, "AccessDenied")
    assert message == "Clary does not implement iam:GetRole; docs/coverage.md lists what it does."


@pytest.mark.parametrize("service", ["sts", "ec2", "../../etc", "", "sagemaker"])
async def test_other_actions_are_invalid(service: str) -> None:
    message = assert_error(await post(b"Action=AssumeRole&Version=2011-06-15", service), 400, "InvalidAction")
    assert "AssumeRole; docs/coverage.md" in message


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "MissingAction"),
        (b"Version=2011-06-15", "MissingAction"),
        (b"Action=", "MissingAction"),
        (b"\xff\xfe", "MalformedQueryString"),
        (b"Action=%ff", "MalformedQueryString"),
        (b"&".join(b"a=%d" % n for n in range(200_000)), "MalformedQueryString"),
    ],
)
async def test_bad_forms_are_clear_errors(body: bytes, code: str) -> None:
    assert_error(await post(body), 400, code)


async def test_characters_that_xml_cannot_hold_do_not_break_the_error() -> None:
    body = urlencode({"Action": "A\x00<\x1b\ufffe>", "Version": "v"}).encode()
    assert "A\ufffd<\ufffd\ufffd>" in assert_error(await post(body), 400, "InvalidAction")


async def test_errors_of_handlers_are_translated() -> None:
    async def refuse(caller: Caller, request: dict[str, Any]) -> None:
        raise ValidationException("no")

    async def fail(caller: Caller, request: dict[str, Any]) -> None:
        raise RuntimeError("secret")

    assert assert_error(await post(WHO, handler=refuse), 400, "ValidationException") == "no"
    assert "secret" not in assert_error(await post(WHO, handler=fail), 500, "InternalFailure", "Receiver")


ASSUMED = {
    "RoleArn": "arn:aws:iam::123456789012:role/r",
    "RoleSessionName": "night",
    "DurationSeconds": 900,
    "PolicyArns": [{"arn": "arn:aws:iam::aws:policy/a"}, {"arn": "arn:aws:iam::aws:policy/bbbbbbbbbb"}],
    "Tags": [{"Key": "k", "Value": "v w&+"}],
    "TransitiveTagKeys": ["k"],
}


def sent_by_botocore(service: str, operation: str, value: dict[str, Any]) -> dict[str, str]:
    found = model.operation(service, operation)
    return dict(create_serializer("query", include_validation=False).serialize_to_request(value, found)["body"])


@pytest.mark.parametrize(
    ("service", "operation", "value"),
    [
        ("sts", "AssumeRole", ASSUMED),
        ("sts", "AssumeRole", {"RoleArn": "r", "TransitiveTagKeys": []}),
        ("sns", "Publish", {"MessageAttributes": {"a": {"DataType": "Binary", "BinaryValue": b"\x00x"}, "b": {}}}),
        ("rds", "DescribeEvents", {"StartTime": 1529870369.0, "EventCategories": ["a", "b"], "Filters": []}),
        ("iam", "ListRoles", {"MaxItems": 5}),
        ("autoscaling", "SetDesiredCapacity", {"HonorCooldown": True}),
        ("elbv2", "DescribeTags", {"ResourceArns": [f"arn{n}" for n in range(12)]}),
    ],
)
def test_forms_arrive_as_botocore_was_given_them(service: str, operation: str, value: dict[str, Any]) -> None:
    form = sent_by_botocore(service, operation, value)
    expected = {name: item for name, item in value.items() if name != "MessageAttributes"}
    if "MessageAttributes" in value:  # an element without members leaves no trace in a form
        expected["MessageAttributes"] = {"a": value["MessageAttributes"]["a"], "b": None}
    assert query.decode(model.operation(service, operation).input_shape, form) == expected


async def test_a_form_is_held_against_the_model() -> None:
    dispatcher = Dispatcher({("sts", "AssumeRole"): identity})
    headers = {"content-type": "application/x-www-form-urlencoded"}
    for more, code, text in (
        ("RoleArn=arn:aws:iam::123456789012:role/r&RoleSessionName=x", "ValidationError", "'roleSessionName'"),
        ("RoleSessionName=xy", "ValidationError", "'roleArn'"),
        ("DurationSeconds=soon", "MalformedInput", "DurationSeconds is not of type integer"),
    ):
        body = f"Action=AssumeRole&Version=2011-06-15&{more}".encode()
        assert text in assert_error(await dispatcher.handle("sts", headers, body, CALLER), 400, code)


def test_answers_follow_the_output_shape() -> None:
    facts = {
        "metadata": {"protocol": "query", "endpointPrefix": "t", "xmlNamespace": "https://t/"},
        "operations": {"Get": {"name": "Get", "http": {}, "output": {"shape": "Out", "resultWrapper": "GetResult"}}},
        "shapes": {
            "Out": {
                "type": "structure",
                "members": {
                    "Flag": {"shape": "Flag"},
                    "When": {"shape": "When"},
                    "Data": {"shape": "Data"},
                    "Names": {"shape": "Names"},
                    "Flat": {"shape": "Flat"},
                    "Inner": {"shape": "Inner", "locationName": "inner"},
                    "Absent": {"shape": "Text"},
                },
            },
            "Inner": {"type": "structure", "members": {"Count": {"shape": "Count"}}},
            "Names": {"type": "list", "member": {"shape": "Text"}},
            "Flat": {"type": "list", "flattened": True, "member": {"shape": "Text"}},
            "Text": {"type": "string"},
            "Flag": {"type": "boolean"},
            "When": {"type": "timestamp"},
            "Data": {"type": "blob"},
            "Count": {"type": "integer"},
        },
    }
    operation = ServiceModel(facts, "t").operation_model("Get")
    value = {
        "Flag": True,
        "When": 1.5,
        "Data": b"hi",
        "Names": ["a", "b"],
        "Flat": ["c", "d"],
        "Inner": {"Count": 5},
        "Internal": "x",
    }
    document = query.result_document(operation, value, "req-1")
    raw = {"status_code": 200, "headers": {}, "body": document}
    answer = create_parser("query").parse(raw, operation.output_shape)
    assert answer.pop("ResponseMetadata")["RequestId"] == "req-1"
    assert answer.pop("When").timestamp() == 1.5
    assert answer == {name: value[name] for name in ("Flag", "Data", "Names", "Flat", "Inner")}


def test_a_thousand_metrics_are_read_in_the_time_that_they_take_to_parse() -> None:
    fields = {"Namespace": "N"}
    for number in range(1, 1001):
        at = f"MetricData.member.{number}"
        fields |= {f"{at}.MetricName": "m", f"{at}.Value": "1.5"}
        for dimension in range(1, 11):
            fields |= {f"{at}.Dimensions.member.{dimension}.Name": f"d{dimension}",
                       f"{at}.Dimensions.member.{dimension}.Value": "v"}  # fmt: skip
    begun = time.process_time()
    decoded = query.decode(model.operation("cloudwatch", "PutMetricData").input_shape, fields)
    # A twentieth of a second; looking through the whole form for each element would be minutes.
    assert time.process_time() - begun < 5
    assert len(decoded["MetricData"]) == 1000
    assert decoded["MetricData"][-1]["Dimensions"][-1] == {"Name": "d10", "Value": "v"}
