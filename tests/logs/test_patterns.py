"""Filter patterns of terms; what all kinds of patterns refuse."""

from __future__ import annotations

import pytest

from clary.errors import AwsError
from clary.logs.patterns import compile_pattern


@pytest.mark.parametrize(
    ("pattern", "message", "expected"),
    [
        ("", "anything", True),
        ("ERROR", "[ERROR 400] BAD REQUEST", True),
        ("ERROR", "error", False),
        ("ERROR ARGUMENTS", "[ERROR 419] MISSING ARGUMENTS", True),
        ("ERROR ARGUMENTS", "[ERROR 400] BAD REQUEST", False),
        ("?ERROR ?WARN", "WARN: slow", True),
        ("?ERROR ?WARN", "INFO: fast", False),
        ('"INTERNAL SERVER ERROR"', "500 INTERNAL SERVER ERROR", True),
        ('"SERVER INTERNAL"', "500 INTERNAL SERVER ERROR", False),
        (r'"say \"a\""', 'say "a"', True),
        ("ERROR -ARGUMENTS", "[ERROR 400] BAD REQUEST", True),
        ("ERROR -ARGUMENTS", "[ERROR 419] MISSING ARGUMENTS", False),
        ('-"GET /ping"', "GET /ping 200", False),
        ('-"GET /ping"', "POST /invocations 200", True),
        ("ERROR ?WARN", "ERROR", True),
        ("%AUTH[0-9]%", "xAUTH7", True),
        ("%AUTH[0-9]%", "AUTH", False),
        ('?"a b" ?c', "xc", True),
    ],
)
def test_terms(pattern: str, message: str, expected: bool) -> None:
    assert compile_pattern(pattern)(message) is expected


@pytest.mark.parametrize(
    "pattern",
    [
        '"open', 'a "b"c', "%(%", "{ $.a = 1", "{}", "{ a = 1 }", "{ $.a = }", "{ $.a > x }", "{ $.a ~ 1 }",
        "{ $.a = 1 && }", "{ ($.a = 1 }", "{ $.a = 1 $.b = 2 }", "{ $.a IS MAYBE }", "{ $.a NOT THERE }",
        "{ " + "(" * 100 + "$.a = 1" + ")" * 100 + " }", "[a", "[a, ..., ...]", "[a =]", "[a b]", '[a = "x]',
    ],
)  # fmt: skip
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(AwsError, match=r"^Invalid filter pattern: ") as refused:
        compile_pattern(pattern)
    assert (refused.value.code, refused.value.status) == ("InvalidParameterException", 400)


def test_an_expression_that_takes_forever_is_refused() -> None:
    with pytest.raises(AwsError, match="takes too long"):
        compile_pattern("%(a|aa)+(b|bb)+(c|cc)+$%")("a" * 5000 + "b" * 5000 + "c" * 5000 + "!")
