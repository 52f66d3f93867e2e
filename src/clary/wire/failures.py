"""How an error looks on the wire, in each protocol: the one translation of `clary.errors`.

It needs no service model, so that a gateway, which refuses much and models nothing, need not load any.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from clary.errors import AwsError

JSON_CONTENT_TYPE = "application/x-amz-json-1.1"
FORM_CONTENT_TYPE = "application/x-www-form-urlencoded"
XML_CONTENT_TYPE = "text/xml"
CBOR_CONTENT_TYPE = "application/cbor"
# Errors come from any service and from before one is known; clients read local names, so STS's namespace does for all.
_NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
# What XML 1.0 cannot hold, not even escaped.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")


@dataclass(frozen=True, slots=True)
class WireResponse:
    """An HTTP answer; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def error_response(error: AwsError, content_type: str, request_id: str) -> WireResponse:
    """Write an error in the protocol of the request, which its content type tells."""
    if media_type(content_type) == FORM_CONTENT_TYPE:
        return WireResponse(error.status, headers(XML_CONTENT_TYPE, request_id), _error_document(error, request_id))
    if media_type(content_type) == CBOR_CONTENT_TYPE:
        import cbor2  # here: a gateway hardly ever needs it, and starts sooner without

        message = error.message.encode("utf-8", "replace").decode()  # half a surrogate pair is no UTF-8
        body = cbor2.dumps({"__type": error.code, "message": message})
        return WireResponse(error.status, headers(CBOR_CONTENT_TYPE, request_id), body)
    # SDKs differ in where they look for the code, and in the case of the message's key.
    body = json.dumps({"__type": error.code, "message": error.message, "Message": error.message}).encode()
    return WireResponse(error.status, headers(JSON_CONTENT_TYPE, request_id) | {"x-amzn-errortype": error.code}, body)


def headers(content_type: str, request_id: str) -> dict[str, str]:
    """Give the headers that every answer has."""
    found = {"content-type": content_type, "x-amzn-requestid": request_id}
    return found | {"smithy-protocol": "rpc-v2-cbor"} if content_type == CBOR_CONTENT_TYPE else found


def media_type(content_type: str) -> str:
    """Give a content type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def xml_document(root: Element) -> bytes:
    """Write a document with its declaration."""
    written: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def xml_text(text: str) -> str:
    """Replace what XML cannot hold, not even escaped."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _error_document(error: AwsError, request_id: str) -> bytes:
    """Write an error of the query protocol; the fault is the sender's below status 500."""
    root = Element("ErrorResponse", xmlns=_NAMESPACE)
    details = SubElement(root, "Error")
    SubElement(details, "Type").text = "Sender" if error.status < 500 else "Receiver"
    SubElement(details, "Code").text = error.code
    SubElement(details, "Message").text = xml_text(error.message)
    SubElement(root, "RequestId").text = request_id
    return xml_document(root)
