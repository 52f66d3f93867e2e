"""Filter patterns: terms, `{ $.json = selectors }` and `[space, delimited, fields]`.

Source: the CloudWatch Logs user guide, "Filter pattern syntax". Terms are case-sensitive and may be parts of words.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from clary.logs.comparison import invalid, matching, unquote
from clary.logs.fields import compile_fields
from clary.logs.selectors import compile_selector

Matches = Callable[[str], bool]

_TERM = re.compile(r'([-?]?)(?:"((?:[^"\\]|\\.)*)"|(%[^%]+%)|([^\s"]+))(?=\s|$)')


def compile_pattern(text: str) -> Matches:
    """Make a test of messages. Raises AwsError InvalidParameterException (400) for what is no pattern.

    The test itself raises it for a regular expression that takes too long.
    """
    stripped = text.strip()
    if stripped.startswith("{"):
        return compile_selector(stripped)
    if stripped.startswith("["):
        return compile_fields(stripped)
    return _terms(stripped)


def _terms(text: str) -> Matches:
    required: list[Matches] = []
    any_of: list[Matches] = []
    excluded: list[Matches] = []
    position = 0
    while position < len(text):
        found = _TERM.match(text, position)
        if found is None:
            invalid(f"cannot read {text[position:][:50]}")
        sign, quoted, expression, plain = found.groups()
        part = _contains(unquote(quoted) if quoted is not None else plain) if not expression else matching(expression)
        {"-": excluded, "?": any_of, "": required}[sign].append(part)
        position = len(text) - len(text[found.end() :].lstrip())
    if required or excluded:
        any_of = []  # beside other terms the service ignores those with a question mark
    return lambda message: (
        all(part(message) for part in required)
        and not any(part(message) for part in excluded)
        and (not any_of or any(part(message) for part in any_of))
    )


def _contains(term: str) -> Matches:
    return lambda message: term in message
