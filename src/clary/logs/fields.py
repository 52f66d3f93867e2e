"""`[host, ..., status = 4*, bytes]`: patterns for messages of fields with spaces between them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from clary.logs.comparison import comparison, invalid
from clary.logs.expression import Expression, Tokens

_FIELD = re.compile(r'\[([^\]]*)\]|"([^"]*)"|(\S+)')
"""Of a message: what stands in brackets or quotation marks is one field."""
_PART = re.compile(r'(?:[^,"%]|"(?:[^"\\]|\\.)*"|%[^%]*%)+')
_TOKEN = re.compile(
    r"""\s*("(?:[^"\\]|\\.)*" | %[^%]+% | && | \|\| | [<>!]= | [=<>()] | [^\s"()=<>!&|]+)""", re.VERBOSE
)
_ANYTHING = "..."

_Judge = Callable[[str], bool]


def compile_fields(text: str) -> Callable[[str], bool]:
    """Make a test of messages; one with another number of fields does not match, unless `...` stands for the others."""
    if not text.endswith("]"):
        invalid("] is missing")
    if _PART.sub("", text[1:-1]).strip(","):
        invalid("a quotation mark or a % is missing")
    written = [part.strip() for part in _PART.findall(text[1:-1])]
    if written.count(_ANYTHING) > 1:
        invalid("... may stand once")
    if _ANYTHING not in written:
        judges = [_judge(part) for part in written]
        return lambda message: _fit(judges, _fields(message))
    at = written.index(_ANYTHING)
    before, behind = [_judge(part) for part in written[:at]], [_judge(part) for part in written[at + 1 :]]

    def matches(message: str) -> bool:
        fields = _fields(message)
        if len(fields) < len(before) + len(behind):
            return False
        return _fit(before, fields[: len(before)]) and _fit(behind, fields[len(fields) - len(behind) :])

    return matches


def _fields(message: str) -> Sequence[str]:
    return ["".join(found.groups("")) for found in _FIELD.finditer(message)]


def _fit(judges: Sequence[_Judge], fields: Sequence[str]) -> bool:
    return len(judges) == len(fields) and all(judge(field) for judge, field in zip(judges, fields, strict=True))


def _judge(part: str) -> _Judge:
    """Read a field: a name, or conditions on it, `status = 404 || status = 410`."""
    tokens = Tokens(_TOKEN, part)
    if not tokens.next:
        return lambda field: True
    conditions = Expression[str](tokens, _condition).read()
    if tokens.next:
        invalid(f", expected before {tokens.next}")
    return conditions


def _condition(tokens: Tokens) -> _Judge:
    tokens.take()  # the field's name, which is for those who read the pattern
    if tokens.next not in ("=", "!=", "<", "<=", ">", ">="):
        return lambda field: True
    return comparison(tokens.take(), tokens.take())
