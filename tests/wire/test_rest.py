"""REST-JSON requests: members in headers, the payload, and the numbers among them."""

from __future__ import annotations

import pytest
from botocore.model import StructureShape

from clary.errors import SerializationException
from clary.wire import model, rest


@pytest.fixture
def shape() -> StructureShape:
    found = model.operation("sagemaker-runtime", "InvokeEndpointAsync").input_shape
    assert isinstance(found, StructureShape)
    return found


def test_members_are_read_from_the_headers_that_the_model_names(shape: StructureShape) -> None:
    headers = {
        b"x-amzn-sagemaker-inputlocation": b"s3://b/k",
        b"x-amzn-sagemaker-requestttlseconds": b"60",
        b"x-amzn-sagemaker-custom-attributes": "gr\xfcn".encode("latin-1"),
        b"content-type": b"not a member here",
    }
    assert rest.decode(shape, headers, b"") == {
        "InputLocation": "s3://b/k",
        "RequestTTLSeconds": 60,
        "CustomAttributes": "gr\xfcn",
    }


def test_a_header_is_utf8_where_it_can_be(shape: StructureShape) -> None:
    headers = {b"x-amzn-sagemaker-inputlocation": "s3://b/gr\xfcn".encode()}
    assert rest.decode(shape, headers, b"") == {"InputLocation": "s3://b/gr\xfcn"}


def test_a_body_is_the_payload_and_an_empty_one_is_none(shape: StructureShape) -> None:
    assert rest.decode(shape, {}, b"\x00") == {"Body": b"\x00"}
    assert rest.decode(shape, {}, b"") == {}


@pytest.mark.parametrize("number", [b"", b"1.5", b"soon", b"0x10", b"99999999999", "\xb2".encode("latin-1"), b"--1"])
def test_what_is_no_number_is_refused(shape: StructureShape, number: bytes) -> None:
    with pytest.raises(SerializationException, match="RequestTTLSeconds must be an integer"):
        rest.decode(shape, {b"x-amzn-sagemaker-requestttlseconds": number}, b"")


def test_a_negative_number_is_one(shape: StructureShape) -> None:
    assert rest.decode(shape, {b"x-amzn-sagemaker-requestttlseconds": b"-5"}, b"") == {"RequestTTLSeconds": -5}
