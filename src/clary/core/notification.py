"""What is published when an asynchronous request has ended, as JSON. Source: messages that were seen, and the service's
developer guide ("Check prediction results"). What `responseBody` looks like is not documented there member by member.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from clary.core.asynchronous import AsyncRequest, Completed, Failed, Notification
from clary.core.routing import AsyncInference

LARGEST_RESPONSE = 128 * 1024
"""Bytes of a response that a notification may have in it."""
_ENVELOPE = {"eventVersion": "1.0", "eventSource": "aws:sagemaker"}


def notification(
    request: AsyncRequest, end: Completed | Failed, variant: str, region: str, now: float
) -> Notification | None:
    """Give what to publish, and where; None where nobody asked for it."""
    topic = request.success_topic if isinstance(end, Completed) else request.error_topic
    if not topic:
        return None
    asked = {
        "accept": request.accept,
        "contentType": request.content_type,
        "endpointName": request.endpoint,
        "inputLocation": request.input_location,
    }
    message: dict[str, Any] = {
        "awsRegion": region,
        "eventTime": _time(now),
        "receivedTime": _time(request.accepted_at),
        "invocationStatus": "Completed" if isinstance(end, Completed) else "Failed",
    }
    if isinstance(end, Failed):
        message["failureReason"] = end.reason
    message["requestParameters"] = {name: value for name, value in asked.items() if value}
    if isinstance(end, Completed):
        answer = {"contentType": end.content_type, "outputLocation": request.output_location}
        message["responseParameters"] = {name: value for name, value in answer.items() if value}
    if (included := _response(request, end)) is not None:
        message["responseBody"] = included
    message |= {"inferenceId": request.inference_id, **_ENVELOPE, "eventName": "InferenceResult"}
    return Notification(topic, message, request.endpoint, variant)


def _response(request: AsyncRequest, end: Completed | Failed) -> Mapping[str, str] | None:
    if end.body is None or len(end.body) > LARGEST_RESPONSE:
        return None
    if isinstance(end, Completed):
        return {"content": b64encode(end.body).decode(), "encoding": "BASE64"} if request.include_success else None
    if not request.include_error:
        return None
    return {"content": end.body.decode("utf-8", "replace"), "message": end.text}


def greetings(endpoint: str, config: AsyncInference) -> list[Notification]:
    """Give what is published when an endpoint is created, so that a topic that cannot be used is found at once."""
    topics = dict.fromkeys(filter(None, (config.success_topic, config.error_topic)))
    return [Notification(topic, {**_ENVELOPE, "eventName": "TestNotification"}, endpoint) for topic in topics]


def envelope(topic: str, message: str, id: str, now: float) -> Mapping[str, str]:
    """Give what SNS makes of a message for whoever subscribed to a topic over HTTP, but for its signature."""
    return {"Type": "Notification", "MessageId": id, "TopicArn": topic, "Message": message, "Timestamp": _time(now)}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
