"""`{ $.level = "error" && $.code >= 500 }`: patterns for messages that are JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from clary.logs.comparison import Test, comparison, invalid
from clary.logs.expression import Expression, Tokens

_TOKEN = re.compile(
    r"""\s*(
        \$(?:\.[\w@-]+|\.?\[\s*(?:\d+|\*|"[^"]*"|'[^']*')\s*\])*   # a selector
        | "(?:[^"\\]|\\.)*" | %[^%]+%                              # a text, an expression
        | && | \|\| | [<>!]= | [=<>()]
        | [^\s"()=<>!&|{}]+                                        # a bare word, a number
    )""",
    re.VERBOSE,
)
_STEP = re.compile(r"""\.([\w@-]+)|\.?\[\s*(?:(\d+|\*)|"([^"]*)"|'([^']*)')\s*\]""")
_ABSENT = object()


def compile_selector(text: str) -> Callable[[str], bool]:
    """Make a test of messages; one that is no JSON object or array does not match."""
    if not text.endswith("}"):
        invalid("} is missing")
    tokens = Tokens(_TOKEN, text[1:-1])
    holds = Expression[Any](tokens, _condition).read()
    if tokens.next:
        invalid(f"&& or || expected before {tokens.next}")

    def matches(message: str) -> bool:
        try:
            document = json.loads(message)
        except (ValueError, RecursionError):
            return False
        return isinstance(document, dict | list) and holds(document)

    return matches


def _condition(tokens: Tokens) -> Callable[[Any], bool]:
    selector = tokens.take()
    if not selector.startswith("$"):
        invalid(f"a selector such as $.level expected, not {selector}")
    path = [
        int(index) if index.isdigit() else index or name or double or single
        for name, index, double, single in _STEP.findall(selector)
    ]
    wildcards = frozenset(n for n, (_, index, _, _) in enumerate(_STEP.findall(selector)) if index == "*")
    judge = _test(tokens)
    return lambda document: any(judge(value) for value in _select(document, path, wildcards, 0))


def _test(tokens: Tokens) -> Test:
    sign = tokens.take()
    match sign.upper():
        case "IS":
            word = tokens.take().upper()
            wanted = {"NULL": None, "TRUE": True, "FALSE": False}
            if word not in wanted:
                invalid(f"IS takes NULL, TRUE or FALSE, not {word}")
            return lambda found: found is wanted[word]
        case "EXISTS":
            return lambda found: found is not _ABSENT
        case "NOT":
            if tokens.take().upper() != "EXISTS":
                invalid("NOT is followed by EXISTS")
            return lambda found: found is _ABSENT
        case "=" | "!=" | "<" | "<=" | ">" | ">=":
            compare = comparison(sign, tokens.take())
            # Of what is not there nothing holds, not even that it differs.
            return lambda found: found is not _ABSENT and not isinstance(found, dict | list) and compare(found)
    invalid(f"a comparison expected, not {sign}")


def _select(value: Any, path: list[Any], wildcards: frozenset[int], depth: int) -> list[Any]:
    """Give what a path leads to: one value, several by `[*]`, _ABSENT where it leads nowhere."""
    for n in range(depth, len(path)):
        step = path[n]
        if n in wildcards:
            inside = value if isinstance(value, list) else []
            return [found for each in inside for found in _select(each, path, wildcards, n + 1)] or [_ABSENT]
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and step < len(value) else _ABSENT
        else:
            value = value.get(step, _ABSENT) if isinstance(value, dict) else _ABSENT
        if value is _ABSENT:
            break
    return [value]
