"""RPC v2 CBOR: botocore's own vectors and serializer in the server's direction, what nobody should send, the errors."""

from __future__ import annotations

import base64
import json
from typing import Any

import cbor2
import pytest
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clary.errors import AwsError, SerializationException
from clary.wire import cbor, model
from clary.wire.dispatch import Caller, Dispatcher
from clary.wire.failures import WireResponse

from .shapes import typed
from .test_protocol_vectors import alike, for_botocore
from .test_published_vectors import cases, operation, plain, with_bytes

CALLER = Caller("123456789012", "us-east-1", "AKIA", "request-1")
OPERATIONS = ("GetMetricData", "GetMetricStatistics", "ListMetrics", "PutMetricData")
CBOR = {"smithy-protocol": "rpc-v2-cbor", "content-type": "application/cbor"}
_drawn = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))

# What an answer of ours never has, by the vector's id.
UNSENT = {
    "RpcV2CborExtraFieldsInTheBodyShouldBeSkippedByClients": "no member that the model lacks goes out",
    "RpcV2CborPayloadWithUnsetUnion": "no null goes out",
}


@pytest.mark.parametrize(("suite", "case"), list(cases("input", "smithy-rpc-v2-cbor")))
def test_a_request_decodes_to_what_the_client_meant(suite: dict[str, Any], case: dict[str, Any]) -> None:
    described = operation(suite, case)
    target = cbor.target(case["serialized"]["uri"])
    assert target == (suite["metadata"]["targetPrefix"], described.name)
    if described.input_shape is None:
        return
    body = base64.b64decode(case["serialized"]["body"])
    decoded = cbor.decode(described.input_shape, cbor.parse(body))
    assert plain(decoded) == plain(with_bytes(described.input_shape, case["params"]))


@pytest.mark.parametrize(("suite", "case"), list(cases("output", "smithy-rpc-v2-cbor")))
def test_an_answer_is_encoded_as_clients_are_shown_it(suite: dict[str, Any], case: dict[str, Any]) -> None:
    shape = operation(suite, case).output_shape
    if case["id"] in UNSENT or shape is None or case["response"]["status_code"] >= 300 or "result" not in case:
        return
    ours = cbor.dump(cbor.encode(shape, with_bytes(shape, case["result"])))
    shown = base64.b64decode(case["response"].get("body", ""))
    assert plain(cbor2.loads(ours)) == plain(cbor2.loads(shown) if shown else {})


@pytest.mark.parametrize("name", OPERATIONS)
@_drawn
@given(st.data())
def test_requests_arrive_as_botocore_was_given_them(name: str, data: st.DataObject) -> None:
    described = model.operation("cloudwatch", name)
    value = data.draw(typed(described.input_shape))
    serializer = create_serializer("smithy-rpc-v2-cbor", include_validation=False)
    request = serializer.serialize_to_request(for_botocore(described.input_shape, value), described)
    assert cbor.target(request["url_path"]) == ("GraniteServiceVersion20100801", name)
    assert alike(cbor.decode(described.input_shape, cbor.parse(request["body"])), value)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "PutMetricData"])
@_drawn
@given(st.data())
def test_answers_are_read_by_botocore_as_they_were_meant(name: str, data: st.DataObject) -> None:
    shape = model.operation("cloudwatch", name).output_shape
    value = data.draw(typed(shape))
    body = cbor.dump(cbor.encode(shape, value))
    answer = create_parser("smithy-rpc-v2-cbor").parse({"status_code": 200, "headers": {}, "body": body}, shape)
    del answer["ResponseMetadata"]
    assert alike(answer, for_botocore(shape, value))


@pytest.mark.parametrize(
    "body",
    [
        b"\xa1",  # cut off
        b"\x9b\x00\x00\x00\xff\xff\xff\xff\xff",  # four thousand million elements, of which none comes
        b"\x81" * 100_000 + b"\x01",  # a hundred thousand lists in each other
        b"\xa2\x61a\x01\x61a\x02",  # one key twice
        b"\xa1\x01\x02",  # a number for a key
        b"\xa1\x61a\x62\xff\xfe",  # a text that is not UTF-8
        b"\xff",
    ],
)
def test_what_is_no_cbor_is_refused(body: bytes) -> None:
    with pytest.raises(SerializationException, match=r"not valid CBOR|is no structure"):
        cbor.decode(model.operation("cloudwatch", "ListMetrics").input_shape, cbor.parse(body))


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ([], "A value of CBOR type list is no structure."),
        ({"Namespace": 5}, "A value of CBOR type int is no string at 'Namespace'."),
        ({"Dimensions": {}}, "A value of CBOR type dict is no list at 'Dimensions'."),
        ({"Dimensions": [{"Name": True}]}, "A value of CBOR type bool is no string at 'Dimensions[0].Name'."),
        ({"IncludeLinkedAccounts": 1}, "A value of CBOR type int is no boolean at 'IncludeLinkedAccounts'."),
    ],
)  # fmt: skip
def test_another_type_is_refused_with_its_place(sent: Any, message: str) -> None:
    with pytest.raises(SerializationException) as refused:
        cbor.decode(model.operation("cloudwatch", "ListMetrics").input_shape, cbor.parse(cbor2.dumps(sent)))
    assert refused.value.message == message


@pytest.mark.parametrize("value", [1.5, "2024-01-01", True, 2**40])
def test_numbers_and_times_keep_to_their_types(value: Any) -> None:
    shape = model.operation("cloudwatch", "GetMetricStatistics").input_shape
    with pytest.raises(SerializationException):
        cbor.decode(shape, {"Period": value})
    with pytest.raises(SerializationException):
        cbor.decode(shape, {"StartTime": value})


def test_a_lone_surrogate_cannot_break_an_answer() -> None:
    shape = model.operation("cloudwatch", "GetMetricData").output_shape
    body = cbor.dump(cbor.encode(shape, {"Messages": [{"Code": "a\ud800b"}]}))
    assert cbor2.loads(body) == {"Messages": [{"Code": "a?b"}]}


# Through the dispatcher


async def list_metrics(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    match request.get("Namespace"):
        case "refused":
            raise AwsError("No.", code="InvalidParameterValue", status=400)
        case "broken":
            raise RuntimeError("by mistake")
    return {"Metrics": [{"Namespace": request.get("Namespace", "N"), "MetricName": "m"}]}


async def call(headers: dict[str, str], body: bytes, path: str = "/", hint: str = "monitoring") -> WireResponse:
    return await Dispatcher({("cloudwatch", "ListMetrics"): list_metrics}).handle(hint, headers, body, CALLER, path)


PATH = "/service/GraniteServiceVersion20100801/operation/ListMetrics"


async def test_one_handler_answers_in_all_three_protocols() -> None:
    target = {"x-amz-target": "GraniteServiceVersion20100801.ListMetrics", "content-type": "application/x-amz-json-1.0"}
    form = {"content-type": "application/x-www-form-urlencoded"}
    by_cbor = await call(CBOR, cbor2.dumps({"Namespace": "A"}), PATH)
    by_json = await call(target, b'{"Namespace":"A"}')
    by_query = await call(form, b"Action=ListMetrics&Version=2010-08-01&Namespace=A")
    unsigned = await call(form, b"Action=ListMetrics&Version=2010-08-01&Namespace=A", hint="")
    wanted = {"Metrics": [{"Namespace": "A", "MetricName": "m"}]}
    assert cbor2.loads(by_cbor.body) == json.loads(by_json.body) == wanted
    assert b"<ListMetricsResult><Metrics><member><Namespace>A</Namespace>" in by_query.body
    assert unsigned.body == by_query.body
    assert by_cbor.headers["content-type"] == "application/cbor"
    assert by_cbor.headers["smithy-protocol"] == "rpc-v2-cbor"
    assert by_json.headers["content-type"] == "application/x-amz-json-1.0"


@pytest.mark.parametrize("protocol", ["smithy-rpc-v2-cbor", "json"])
async def test_errors_have_the_shapes_name_and_the_query_protocols(protocol: str) -> None:
    headers = CBOR if protocol != "json" else {"x-amz-target": "GraniteServiceVersion20100801.ListMetrics"}
    body = cbor2.dumps({"Namespace": "refused"}) if protocol != "json" else b'{"Namespace":"refused"}'
    response = await call(headers, body, PATH)
    assert response.status == 400
    said = cbor2.loads(response.body) if protocol != "json" else json.loads(response.body)
    assert (said["__type"], said["message"]) == ("InvalidParameterValueException", "No.")
    assert response.headers["x-amzn-query-error"] == "InvalidParameterValue;Sender"
    shape = model.operation("cloudwatch", "ListMetrics").output_shape
    raw = {"status_code": 400, "headers": dict(response.headers), "body": response.body}
    assert create_parser(protocol).parse(raw, shape)["Error"]["Code"] == "InvalidParameterValue"


async def test_a_defect_is_the_servers_fault() -> None:
    response = await call(CBOR, cbor2.dumps({"Namespace": "broken"}), PATH)
    assert (response.status, response.headers["x-amzn-query-error"]) == (500, "InternalFailure;Receiver")


async def test_constraints_are_checked() -> None:
    response = await call(CBOR, cbor2.dumps({"MetricName": ""}), PATH)
    assert response.headers["x-amzn-query-error"] == "ValidationError;Sender"
    assert "'metricName' failed to satisfy constraint" in cbor2.loads(response.body)["message"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/", "The path must be /service/<service>/operation/<operation>."),
        ("/service/A/B/operation/C", "The path must be /service/<service>/operation/<operation>."),
        ("/service/Other/operation/Do", "Clary does not implement Other.Do; docs/coverage.md lists what it does."),
        (PATH.replace("List", "Lost"), "GraniteServiceVersion20100801 has no operation LostMetrics."),
        (PATH.replace("ListMetrics", "PutDashboard"),
         "Clary does not implement PutDashboard yet; docs/coverage.md lists what it does."),
    ],
)  # fmt: skip
async def test_an_unknown_operation_is_told_as_such(path: str, message: str) -> None:
    response = await call(CBOR, b"\xa0", path)
    assert (response.status, response.headers["content-type"]) == (400, "application/cbor")
    assert cbor2.loads(response.body) == {"__type": "UnknownOperationException", "message": message}


async def test_another_content_type_is_refused_and_none_is_fine() -> None:
    response = await call({**CBOR, "content-type": "text/plain"}, b"\xa0", PATH)
    assert response.status == 400
    assert (await call({"smithy-protocol": "rpc-v2-cbor"}, b"", PATH)).status == 200
