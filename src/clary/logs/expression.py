"""`a && (b || c)`: the part that selectors and fields have in common."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Generic, TypeVar

from clary.logs.comparison import invalid

_Subject = TypeVar("_Subject")
Condition = Callable[[_Subject], bool]

_DEEPEST = 50
"""Brackets within brackets."""


class Tokens:
    """Pieces of a pattern, read from the left."""

    def __init__(self, kinds: re.Pattern[str], text: str) -> None:
        """Part a text. Raises AwsError InvalidParameterException for what is none of the kinds."""
        self._tokens: list[str] = []
        position = 0
        while text[position:].strip():
            found = kinds.match(text, position)
            if found is None:
                invalid(f"cannot read {text[position:].strip()[:50]}")
            self._tokens.append(found[1])
            position = found.end()

    @property
    def next(self) -> str:
        """The next piece; empty at the end."""
        return self._tokens[0] if self._tokens else ""

    def take(self, *wanted: str) -> str:
        """Take the next piece, which must be one of those wanted where any are."""
        token = self.next
        if not token or (wanted and token not in wanted):
            invalid(f"{' or '.join(wanted) or 'more'} expected, not {token or 'its end'}")
        del self._tokens[0]
        return token

    def took(self, *wanted: str) -> bool:
        """Take the next piece if it is one of those."""
        if self.next not in wanted:
            return False
        self.take()
        return True


class Expression(Generic[_Subject]):
    """Reads conditions that are joined by && and ||, which binds less."""

    def __init__(self, tokens: Tokens, condition: Callable[[Tokens], Condition[_Subject]]) -> None:
        self._tokens = tokens
        self._condition = condition

    def read(self, depth: int = 0) -> Condition[_Subject]:
        """Read as far as it goes."""
        found = [self._all(depth)]
        while self._tokens.took("||"):
            found.append(self._all(depth))
        return found[0] if len(found) == 1 else lambda subject: any(each(subject) for each in found)

    def _all(self, depth: int) -> Condition[_Subject]:
        found = [self._one(depth)]
        while self._tokens.took("&&"):
            found.append(self._one(depth))
        return found[0] if len(found) == 1 else lambda subject: all(each(subject) for each in found)

    def _one(self, depth: int) -> Condition[_Subject]:
        if depth > _DEEPEST:
            invalid("too many brackets")
        if not self._tokens.took("("):
            return self._condition(self._tokens)
        inner = self.read(depth + 1)
        self._tokens.take(")")
        return inner
