from __future__ import annotations

import pytest

from clary.serving.context import Context
from clary.serving.messages import Headers, Request


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("HTTP_X_AMZN_SAGEMAKER_CUSTOM_ATTRIBUTES", "X-Amzn-SageMaker-Custom-Attributes"),
        ("HTTP_X_AMZN_SAGEMAKER_INFERENCE_ID", "X-Amzn-SageMaker-Inference-Id"),
        ("HTTP_ACCEPT", "Accept"),
        ("CONTENT_TYPE", "Content-Type"),
    ],
)
def test_names_are_spelled_as_aws_writes_them_and_found_in_any_case(variable: str, name: str) -> None:
    headers = Headers.from_environ({variable: "x", "PATH_INFO": "/"})
    assert dict(headers) == {name: "x"}
    assert headers[name.upper()] == headers[name.lower()] == "x"


def test_an_absent_content_type_is_no_header() -> None:
    assert dict(Headers.from_environ({"CONTENT_TYPE": "", "CONTENT_LENGTH": ""})) == {}


def test_the_context_turns_to_the_next_request() -> None:
    context = Context("/opt/ml/model")
    context.begin(Request(Headers({"X-Amzn-SageMaker-Inference-Id": "abc"}), b""))
    context.set_response_status(418, "tea")
    context.set_response_header(0, "content-type", "text/plain")
    context.set_response_content_type(0, "text/csv")
    assert context.get_request_id() == "abc"
    assert context.get_response_status(0) == (418, "tea")
    assert context.get_response_headers(0) == {"Content-Type": "text/csv"}
    context.begin(Request(Headers({}), b""))
    assert context.get_response_status(0) == (200, "")
    assert context.get_response_headers(0) == {}
    assert context.get_request_id() == ""
