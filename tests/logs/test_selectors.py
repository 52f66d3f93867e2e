"""Filter patterns of JSON."""

from __future__ import annotations

import json

import pytest

from clary.logs.patterns import compile_pattern

EVENT = json.dumps(
    {
        "eventType": "UpdateTrail",
        "sourceIPAddress": "123.123.4.5",
        "latency": 12.5,
        "code": "404",
        "nothing": None,
        "ok": True,
        "users": [{"id": 1, "name": "A"}, {"id": 2, "name": "B"}],
        "a.b": {"c-d": 3},
        "text": 'say "hi" {x}',
    }
)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ('{ $.eventType = "UpdateTrail" }', True),
        ("{ $.eventType = UpdateTrail }", True),
        ('{ $.eventType = "updatetrail" }', False),
        ('{$.eventType="Update*"}', True),
        ("{ $.sourceIPAddress != 123.123.* }", False),
        ("{ $.sourceIPAddress = 123.*.5 }", True),
        (r"{ $.sourceIPAddress = %^123\.% }", True),
        ("{ $.latency > 12 && $.latency <= 12.5 }", True),
        ("{ $.latency = 1.25e1 }", True),
        ("{ $.code >= 400 && $.code < 500 }", True),
        ("{ $.code = 4* }", True),
        ("{ $.eventType < 5 }", False),
        ("{ $.nothing IS NULL }", True),
        ("{ $.ok IS NULL }", False),
        ("{ $.ok IS TRUE }", True),
        ("{ $.ok IS FALSE }", False),
        ("{ $.absent NOT EXISTS }", True),
        ("{ $.nothing NOT EXISTS }", False),
        ("{ $.users EXISTS }", True),
        ("{ $.absent != 1 }", False),
        ("{ $.absent IS NULL }", False),
        ("{ $.users[1].name = B }", True),
        ("{ $.users[2].name = B }", False),
        ("{ $.users[*].id = 2 }", True),
        ("{ $.users[*].id = 3 }", False),
        ("{ $.['a.b'].c-d = 3 }", True),
        ('{ $["a.b"].c-d = 3 }', True),
        (r'{ $.text = "say \"hi\" {x}" }', True),
        ("{ $.latency > 100 || $.ok IS TRUE && $.code = 404 }", True),
        ("{ ($.latency > 100 || $.ok IS TRUE) && $.code = 500 }", False),
    ],
)
def test_selectors(pattern: str, expected: bool) -> None:
    assert compile_pattern(pattern)(EVENT) is expected


@pytest.mark.parametrize("message", ["no JSON", "42", '"x"', "{", "[" * 100_000, ""])
def test_other_messages_do_not_match(message: str) -> None:
    assert not compile_pattern("{ $.a NOT EXISTS }")(message)


def test_a_message_may_be_an_array() -> None:
    assert compile_pattern("{ $[0].a = 1 }")('[{"a": 1}]')
