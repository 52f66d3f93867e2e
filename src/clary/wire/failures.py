"""How an error looks on the wire: the one function that translates `clary.errors`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from clary.errors import AwsError
from clary.wire import query

JSON_CONTENT_TYPE = "application/x-amz-json-1.1"


@dataclass(frozen=True, slots=True)
class WireResponse:
    """An HTTP answer; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def render(error: AwsError, content_type: str, request_id: str) -> WireResponse:
    """Answer in the protocol of the request: XML to forms (the query protocol), AWS JSON 1.1 to all else."""
    headers = {"x-amzn-requestid": request_id}
    if content_type.partition(";")[0].strip().lower() == query.CONTENT_TYPE:
        return WireResponse(
            error.status, headers | {"content-type": "text/xml"}, query.error_document(error, request_id)
        )
    # SDKs differ in where they look for the code, and in the case of the message's key.
    document = {"__type": error.code, "message": error.message, "Message": error.message}
    headers |= {"content-type": JSON_CONTENT_TYPE, "x-amzn-errortype": error.code}
    return WireResponse(error.status, headers, json.dumps(document).encode())
