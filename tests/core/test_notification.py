"""Notifications as the service publishes them (samples that were seen in 2023 and 2024)."""

from __future__ import annotations

from dataclasses import replace

from clary.core.asynchronous import AsyncRequest, Completed, Failed
from clary.core.notification import LARGEST_RESPONSE, greetings, notification
from clary.core.routing import AsyncInference

REQUEST = AsyncRequest(
    "id", "q", "ep", "mine", 1_684_812_189.588, 1_684_900_000.0, 60.0, "s3://b/out/id.out",
    input_location="s3://b/in", accept="application/json", content_type="text/csv",
    success_topic="arn:ok", error_topic="arn:bad",
)  # fmt: skip
NOW = 1_684_812_201.814
FAILED = Failed("model", "the text", "ClientError: the reason", 500, b"said")


def told(request: AsyncRequest, end: Completed | Failed) -> dict[str, object]:
    found = notification(request, end, "v", "us-east-1", NOW)
    assert found is not None
    assert (found.endpoint, found.variant) == ("ep", "v")
    return {"topic": found.topic, **found.message}


def test_a_success_names_input_and_output() -> None:
    assert told(REQUEST, Completed("application/json")) == {
        "topic": "arn:ok",
        "awsRegion": "us-east-1",
        "eventTime": "2023-05-23T03:23:21.814Z",
        "receivedTime": "2023-05-23T03:23:09.588Z",
        "invocationStatus": "Completed",
        "requestParameters": {
            "accept": "application/json",
            "contentType": "text/csv",
            "endpointName": "ep",
            "inputLocation": "s3://b/in",
        },
        "responseParameters": {"contentType": "application/json", "outputLocation": "s3://b/out/id.out"},
        "inferenceId": "mine",
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }


def test_a_failure_has_a_reason_and_no_output() -> None:
    message = told(replace(REQUEST, accept="", content_type=""), FAILED)
    assert (message["topic"], message["invocationStatus"]) == ("arn:bad", "Failed")
    assert message["failureReason"] == "ClientError: the reason"
    assert message["requestParameters"] == {"endpointName": "ep", "inputLocation": "s3://b/in"}
    assert "responseParameters" not in message


def test_nobody_is_told_who_did_not_ask() -> None:
    silent = replace(REQUEST, success_topic="", error_topic="")
    assert notification(silent, Completed(""), "v", "us-east-1", NOW) is None
    assert notification(silent, FAILED, "v", "us-east-1", NOW) is None


def test_a_response_is_included_where_it_is_asked_for_and_small() -> None:
    asked = replace(REQUEST, include_success=True, include_error=True)
    assert told(asked, Completed("", body=b"\x00answer"))["responseBody"] == {
        "content": "AGFuc3dlcg==",
        "encoding": "BASE64",
    }
    assert told(asked, FAILED)["responseBody"] == {"content": "said", "message": "the text"}
    assert "responseBody" in told(asked, Completed("", body=b"x" * LARGEST_RESPONSE))
    assert "responseBody" not in told(asked, Completed("", body=b"x" * (LARGEST_RESPONSE + 1)))
    assert "responseBody" not in told(asked, Completed("", body=None))
    assert "responseBody" not in told(REQUEST, Completed("", body=b"answer"))
    assert "responseBody" not in told(REQUEST, FAILED)


def test_topics_are_greeted_once_each() -> None:
    found = greetings("ep", AsyncInference("q", "s3://b", success_topic="arn:t", error_topic="arn:t"))
    assert [(each.topic, each.message) for each in found] == [
        ("arn:t", {"eventVersion": "1.0", "eventSource": "aws:sagemaker", "eventName": "TestNotification"})
    ]
    assert greetings("ep", AsyncInference("q", "s3://b")) == []
