"""The steps of a request, the answers' form, and what is said about operations that are not there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from clary.errors import AccessDeniedException, AwsError, Transient, ValidationException
from clary.wire.dispatch import Caller, Dispatcher, Handler
from clary.wire.failures import WireResponse, error_response

CALLER = Caller(account_id="123456789012", region="us-east-1", access_key_id="AKID", request_id="req-1")
JSON = "application/x-amz-json-1.1"


@pytest.fixture(autouse=True)
def default_logging() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


def answering(result: dict[str, Any] | None = None, error: Exception | None = None) -> Handler:
    async def handler(caller: Caller, request: dict[str, Any]) -> dict[str, Any] | None:
        if error is not None:
            raise error
        return result

    return handler


async def call(dispatcher: Dispatcher, target: str, body: Any = b"{}", content_type: str = JSON) -> WireResponse:
    headers = {"content-type": content_type, "x-amz-target": target}
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await dispatcher.handle("sagemaker", headers, raw, CALLER)


def assert_error(response: WireResponse, status: int, code: str) -> str:
    assert response.status == status
    assert response.headers["x-amzn-errortype"] == code
    assert response.headers["content-type"] == JSON
    assert response.headers["x-amzn-requestid"] == "req-1"
    document = json.loads(response.body)
    assert document == {"__type": code, "message": document["message"], "Message": document["message"]}
    return document["message"]


async def test_a_handler_gets_the_caller_and_the_decoded_input() -> None:
    seen: list[tuple[Caller, dict[str, Any]]] = []

    async def create_model(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        seen.append((caller, request))
        return {"ModelArn": "arn:aws:sagemaker:us-east-1:123456789012:model/m", "Internal": "not for the wire"}

    dispatcher = Dispatcher({("sagemaker", "CreateModel"): create_model})
    response = await call(dispatcher, "SageMaker.CreateModel", {"ModelName": "m", "Tags": None, "Unknown": 1})
    assert seen == [(CALLER, {"ModelName": "m"})]
    assert response == WireResponse(
        200,
        {"content-type": JSON, "x-amzn-requestid": "req-1"},
        b'{"ModelArn":"arn:aws:sagemaker:us-east-1:123456789012:model/m"}',
    )


async def test_operations_without_output_answer_an_empty_body() -> None:
    dispatcher = Dispatcher({("sagemaker", "DeleteModel"): answering(None)})
    response = await call(dispatcher, "SageMaker.DeleteModel", {"ModelName": "m"})
    assert (response.status, response.body) == (200, b"")


async def test_operations_with_an_empty_output_answer_an_empty_object() -> None:
    dispatcher = Dispatcher({("sagemaker", "DeleteTags"): answering(None)})
    arn = "arn:aws:sagemaker:us-east-1:123456789012:model/m"
    response = await call(dispatcher, "SageMaker.DeleteTags", {"ResourceArn": arn, "TagKeys": ["k"]})
    assert (response.status, response.body) == (200, b"{}")


async def test_constraints_are_checked_before_the_handler() -> None:
    dispatcher = Dispatcher({("sagemaker", "DescribeModel"): answering(error=AssertionError("called"))})
    message = assert_error(await call(dispatcher, "SageMaker.DescribeModel"), 400, "ValidationException")
    assert message == (
        "1 validation error detected: Value null at 'modelName' failed to satisfy constraint: Member must not be null"
    )


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("SageMaker.CreateHub", "Clary does not implement CreateHub yet; docs/coverage.md lists what it does."),
        ("SageMaker.MakeTea", "SageMaker has no operation MakeTea."),
        (
            "Logs_20140328.DescribeLogStreams",
            "Clary does not implement Logs_20140328.DescribeLogStreams; docs/coverage.md lists what it does.",
        ),
        ("", "The X-Amz-Target header must name an operation: SageMaker.ListModels."),
        ("ListModels", "The X-Amz-Target header must name an operation: SageMaker.ListModels."),
        ("SageMaker.", "The X-Amz-Target header must name an operation: SageMaker.ListModels."),
    ],
)
async def test_unknown_targets_are_told_what_is_there(target: str, message: str) -> None:
    dispatcher = Dispatcher({("sagemaker", "ListModels"): answering({"Models": []})})
    assert assert_error(await call(dispatcher, target), 400, "UnknownOperationException") == message


async def test_a_request_without_headers_is_told_so() -> None:
    response = await Dispatcher({}).handle("", {}, b"", CALLER)
    assert "X-Amz-Target" in assert_error(response, 400, "UnknownOperationException")


@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data; boundary=x", "application/xml"])
async def test_other_content_types_are_refused(content_type: str) -> None:
    dispatcher = Dispatcher({("sagemaker", "ListModels"): answering({"Models": []})})
    response = await call(dispatcher, "SageMaker.ListModels", content_type=content_type)
    assert assert_error(response, 400, "SerializationException") == f"The Content-Type must be {JSON}."


@pytest.mark.parametrize("content_type", ["application/json", "Application/X-Amz-Json-1.1; charset=utf-8", ""])
async def test_what_people_type_into_curl_is_accepted(content_type: str) -> None:
    dispatcher = Dispatcher({("sagemaker", "ListModels"): answering({"Models": []})})
    response = await call(dispatcher, "SageMaker.ListModels", b"", content_type)
    assert (response.status, response.body) == (200, b'{"Models":[]}')


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ValidationException("no"), 400, "ValidationException"),
        (AccessDeniedException("no"), 403, "AccessDeniedException"),
        (AwsError("no", code="ResourceInUse", status=400), 400, "ResourceInUse"),
        (Transient("no"), 503, "ServiceUnavailable"),
    ],
)
async def test_errors_of_handlers_are_translated(error: Exception, status: int, code: str) -> None:
    dispatcher = Dispatcher({("sagemaker", "ListModels"): answering(error=error)})
    with capture_logs() as logs:
        assert assert_error(await call(dispatcher, "SageMaker.ListModels"), status, code) == "no"
    assert logs == []


async def test_defects_are_logged_under_the_request_id_and_not_shown() -> None:
    defect = RuntimeError("the password is hunter2")
    dispatcher = Dispatcher({("sagemaker", "ListModels"): answering(error=defect)})
    with capture_logs() as logs:
        message = assert_error(await call(dispatcher, "SageMaker.ListModels"), 500, "InternalFailure")
    assert "req-1" in message
    assert "hunter2" not in message
    assert [(log["event"], log["request_id"], log["exc_info"]) for log in logs] == [("request failed", "req-1", defect)]


async def test_an_answer_that_cannot_be_written_is_a_defect() -> None:
    dispatcher = Dispatcher({("sagemaker", "ListModels"): answering({"Models": 5})})
    with capture_logs() as logs:
        assert_error(await call(dispatcher, "SageMaker.ListModels"), 500, "InternalFailure")
    assert len(logs) == 1


def test_keys_that_the_model_lacks_are_refused() -> None:
    with pytest.raises(LookupError, match="sagemaker has no operation 'CreateModels'"):
        Dispatcher({("sagemaker", "CreateModels"): answering()})
    with pytest.raises(LookupError, match="no service 'sage'"):
        Dispatcher({("sage", "CreateModel"): answering()})


@pytest.mark.parametrize("key", [("s3", "ListBuckets"), ("sagemaker-runtime", "InvokeEndpoint")])
def test_protocols_that_are_not_spoken_are_refused(key: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="not spoken here"):
        Dispatcher({key: answering()})


def test_errors_from_before_dispatch_take_the_form_of_the_request() -> None:
    error = AccessDeniedException("no")
    assert assert_error(error_response(error, JSON, "req-1"), 403, "AccessDeniedException") == "no"
    form = error_response(error, "application/x-www-form-urlencoded; charset=utf-8", "req-1")
    assert form.headers["content-type"] == "text/xml"
    assert b"<Code>AccessDeniedException</Code>" in form.body
