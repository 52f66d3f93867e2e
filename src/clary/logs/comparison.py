"""Tests of one value, which all kinds of filter patterns share."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any, NoReturn

import regex

from clary.errors import AwsError

Test = Callable[[Any], bool]
"""Judges one value: a text, a number, a truth value, None for JSON's null."""

_MATCH_SECONDS = 0.1
"""What a regular expression may take for one event."""
_LESS_MORE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def invalid(why: str) -> NoReturn:
    """Refuse a pattern."""
    raise AwsError(f"Invalid filter pattern: {why}", code="InvalidParameterException", status=400)


def unquote(text: str) -> str:
    """Take the backslashes out of what stood in quotation marks."""
    return re.sub(r"\\(.)", r"\1", text)


def matching(expression: str) -> Callable[[str], bool]:
    """Make a test of `%expression%`, a regular expression that is looked for anywhere in a text."""
    try:
        compiled = regex.compile(expression[1:-1])
    except regex.error as error:
        invalid(f"{expression}: {error}")

    def matches(text: str) -> bool:
        try:
            return compiled.search(text, timeout=_MATCH_SECONDS) is not None
        except TimeoutError:
            invalid(f"{expression} takes too long")

    return matches


def comparison(sign: str, value: str) -> Test:
    """Make the test `<sign> <value>` of one value, where `value` is as written: a number, a text, a %regex%.

    `=` knows `*` at any place in texts, quoted or not. What has no number is neither less nor more than anything.
    """
    if sign in _LESS_MORE:
        if (limit := _number(value)) is None:
            invalid(f"{sign} takes a number, not {value}")
        compare = _LESS_MORE[sign]
        return lambda found: (n := _number(found)) is not None and compare(n, limit)
    equal = _equal(value)
    return equal if sign == "=" else lambda found: not equal(found)


def _equal(value: str) -> Test:
    if len(value) > 2 and value[0] == value[-1] == "%":
        matches = matching(value)
        return lambda found: isinstance(found, str) and matches(found)
    quoted = len(value) > 1 and value[0] == value[-1] == '"'
    text = unquote(value[1:-1]) if quoted else value
    number = None if quoted else _number(text)
    wild = re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)

    def equal(found: Any) -> bool:
        if number is not None and (n := _number(found)) is not None:
            return n == number
        return found is not None and not isinstance(found, bool) and wild.fullmatch(str(found)) is not None

    return equal


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
