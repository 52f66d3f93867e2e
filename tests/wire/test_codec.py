"""Types, JSON rules, and what is dropped."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.model import ServiceModel, Shape

from clary.errors import SerializationException
from clary.wire import codec

from .shapes import operation

ITEM = ServiceModel(
    {
        "metadata": {"protocol": "json", "endpointPrefix": "test"},
        "operations": {},
        "shapes": {
            "Item": {
                "type": "structure",
                "members": {
                    "Text": {"shape": "Text"},
                    "Count": {"shape": "Count"},
                    "Big": {"shape": "Big"},
                    "Weight": {"shape": "Weight"},
                    "Flag": {"shape": "Flag"},
                    "When": {"shape": "When"},
                    "Data": {"shape": "Data"},
                    "Items": {"shape": "Items"},
                    "Table": {"shape": "Table"},
                    "Choice": {"shape": "Choice"},
                },
            },
            "Items": {"type": "list", "member": {"shape": "Item"}},
            "Table": {"type": "map", "key": {"shape": "Text"}, "value": {"shape": "Text"}},
            "Choice": {
                "type": "structure",
                "union": True,
                "members": {"A": {"shape": "Text"}, "B": {"shape": "Text"}},
            },
            "Text": {"type": "string"},
            "Count": {"type": "integer"},
            "Big": {"type": "long"},
            "Weight": {"type": "float"},
            "Flag": {"type": "boolean"},
            "When": {"type": "timestamp"},
            "Data": {"type": "blob"},
        },
    },
    "test",
).shape_for("Item")


def refusal(shape: Shape, value: Any) -> str:
    with pytest.raises(SerializationException) as caught:
        codec.decode(shape, value)
    assert (caught.value.code, caught.value.status) == ("SerializationException", 400)
    return caught.value.message


def test_every_type_is_decoded() -> None:
    wire = {
        "Text": "é",
        "Count": -5,
        "Big": 2**40,
        "Weight": 1,
        "Flag": False,
        "When": 1529870369.986,
        "Data": "aGk=",
        "Items": [{"Text": "inner"}],
        "Table": {"a": "b"},
        "Choice": {"B": "b"},
    }
    decoded = codec.decode(ITEM, wire)
    assert decoded == wire | {"Data": b"hi"}
    assert type(decoded["Weight"]) is float
    assert codec.encode(ITEM, decoded) == wire


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("1970-01-01T00:00:00.5", 0.5),
        ("1970-01-02", 86400.0),
    ],
)
def test_times_may_be_iso_8601(text: str, seconds: float) -> None:
    assert codec.decode(ITEM, {"When": text}) == {"When": seconds}


@pytest.mark.parametrize(
    ("member", "value", "message"),
    [
        ("Text", 5, "NUMBER_VALUE can not be converted to a String at 'text'"),
        ("Text", True, "TRUE_VALUE can not be converted to a String at 'text'"),
        ("Text", {}, "Start of structure or map found where not expected at 'text'"),
        ("Text", [], "Start of list found where not expected at 'text'"),
        ("Text", "\ud800", "Text has an unpaired surrogate at 'text'"),
        ("Count", "5", "STRING_VALUE can not be converted to an Integer at 'count'"),
        ("Count", True, "TRUE_VALUE can not be converted to an Integer at 'count'"),
        ("Count", 1.5, "NUMBER_VALUE can not be converted to an Integer at 'count'"),
        ("Count", 2**31, "NUMBER_VALUE is out of the range of Integer at 'count'"),
        ("Big", -(2**63) - 1, "NUMBER_VALUE is out of the range of Long at 'big'"),
        ("Weight", False, "FALSE_VALUE can not be converted to a Float at 'weight'"),
        ("Weight", 10**400, "NUMBER_VALUE is out of the range of Float at 'weight'"),
        ("Weight", float("inf"), "NUMBER_VALUE is out of the range of Float at 'weight'"),
        ("Flag", "true", "STRING_VALUE can not be converted to a Boolean at 'flag'"),
        ("Flag", 1, "NUMBER_VALUE can not be converted to a Boolean at 'flag'"),
        ("When", "yesterday", "STRING_VALUE can not be converted to a Timestamp at 'when'"),
        ("When", True, "TRUE_VALUE can not be converted to a Timestamp at 'when'"),
        ("When", 1e300, "NUMBER_VALUE is out of the range of Timestamp at 'when'"),
        ("Data", "a", "STRING_VALUE is not base64 at 'data'"),
        ("Data", "é", "STRING_VALUE is not base64 at 'data'"),
        ("Items", {}, "Start of structure or map found where not expected at 'items'"),
        ("Items", [{}, {"Text": 1}], "NUMBER_VALUE can not be converted to a String at 'items.2.member.text'"),
        ("Items", [None], "NULL_VALUE can not be converted to a Structure at 'items.1.member'"),
        ("Table", [], "Start of list found where not expected at 'table'"),
        ("Table", {"k": 1}, "NUMBER_VALUE can not be converted to a String at 'table.k.member'"),
        ("Table", {"k": None}, "NULL_VALUE can not be converted to a String at 'table.k.member'"),
        ("Choice", {}, "Exactly one member of the union Choice must be set at 'choice'"),
        ("Choice", {"A": "", "B": ""}, "Exactly one member of the union Choice must be set at 'choice'"),
    ],
)
def test_wrong_types_are_refused_with_their_path(member: str, value: Any, message: str) -> None:
    assert refusal(ITEM, {member: value}) == message


@pytest.mark.parametrize("value", [[], "text", 5, None, True])
def test_the_top_level_must_be_an_object(value: Any) -> None:
    assert " at " not in refusal(ITEM, value)


def test_unknown_members_are_ignored_whatever_they_are() -> None:
    assert codec.decode(ITEM, {"Nonsense": [None, {"a": "\ud800"}], "Text": "x"}) == {"Text": "x"}


def test_null_members_are_absent() -> None:
    assert codec.decode(ITEM, {"Text": None, "Items": [{"Count": None}]}) == {"Items": [{}]}


def test_answers_omit_what_is_none_or_not_in_the_shape() -> None:
    assert codec.encode(ITEM, {"Text": None, "Secret": "x", "Items": [], "Flag": False, "Count": 0}) == {
        "Items": [],
        "Flag": False,
        "Count": 0,
    }


def test_times_are_answered_to_the_millisecond() -> None:
    assert codec.encode(ITEM, {"When": 1529870369.98649}) == {"When": 1529870369.986}


def test_deep_nesting_is_refused_in_the_parser_and_in_the_shape() -> None:
    with pytest.raises(SerializationException, match="nested too deeply"):
        codec.parse(b'{"Items":[' * 100_000)
    nested: dict[str, Any] = {}
    for _ in range(5_000):
        nested = {"Items": [nested]}
    assert refusal(ITEM, nested) == "The body is nested too deeply."


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"not json",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b"\xff\xfe",
        b'{"a": "\xc3"}',
        b"\xef\xbb\xbf{}",
        b'{"a": ' + b"9" * 5000 + b"}",
        b"{} {}",
        b" ",
        '{"a": 1}'.encode("utf-16"),
    ],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(SerializationException, match="not valid JSON"):
        codec.parse(body)


def test_an_empty_body_is_an_empty_object() -> None:
    assert codec.parse(b"") == {}


def test_answers_are_compact_and_survive_lone_surrogates() -> None:
    assert codec.dump({"a": [1, "é"]}) == b'{"a":[1,"\\u00e9"]}'
    assert json.loads(codec.dump({"a": "\udcff"})) == {"a": "\udcff"}


def test_paths_lower_the_first_letter_only() -> None:
    assert [codec.wire_path(name) for name in ("ModelName", "S3Uri", "KMSKeyId", "")] == [
        "modelName",
        "s3Uri",
        "kMSKeyId",
        "",
    ]


def test_shapes_that_contain_themselves_are_decoded() -> None:
    shape = operation("Search").input_shape
    value = {"SearchExpression": {"SubExpressions": [{"SubExpressions": [{"Operator": "And"}]}]}}
    assert codec.decode(shape, value) == value
