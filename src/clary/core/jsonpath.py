"""The filters of DataProcessing: the part of JSONPath that batch transform has, and what it makes of a record.

    $            the record              $.name      a member             $['a','b']   an object of these members
    $.*          all elements            $[0]        an element           $[0,-1]      a list of these elements
                                                                          $[1:3]       a list of elements 1 and 2

Unlike JSONPath's, the result is one value and not a list of nodes, because it becomes a record again. The end of a
slice is not part of it, as in JavaScript's `slice`, to which the service's documentation likens it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, Union

from clary.errors import Fatal

Json: TypeAlias = Union[bool, int, float, str, "Sequence[Json]", "Mapping[str, Json]", None]
Step = Callable[[Json], Json]

_NAME = re.compile(r"\.([^.\[\]*'\"\s]+)")
_QUOTED = r"(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
_BRACKET = re.compile(
    rf"\[\s*(?:(?P<names>{_QUOTED}(?:\s*,\s*{_QUOTED})*)|(?P<slice>-?\d*\s*:\s*-?\d*)"
    r"|(?P<indices>-?\d+(?:\s*,\s*-?\d+)*)|(?P<all>\*))\s*\]"
)
_ONE_NAME = re.compile(_QUOTED)


class PathRefused(Fatal):
    """It is not of the subset that batch transform has."""


class NoSuchElement(Exception):
    """The path leads to nothing in this record."""


class Path:
    """A filter. Raises PathRefused for a text that is none."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._steps = tuple(_steps(text))
        self.by_position = all(step.by_position for step in self._steps)
        """Whether it asks for nothing that a row of CSV has not."""

    @property
    def is_whole(self) -> bool:
        """Whether it gives the record as it is."""
        return not self._steps

    def __call__(self, record: Json) -> Json:
        """Give what the path leads to. Raises NoSuchElement."""
        for step in self._steps:
            record = step(record)
        return record


class _Members:
    by_position = False

    def __init__(self, names: Sequence[str], *, several: bool) -> None:
        self._names = names
        self._several = several

    def __call__(self, value: Json) -> Json:
        if not isinstance(value, Mapping):
            raise NoSuchElement(f"{self._names[0]!r} is asked for of what is no object")
        if missing := [name for name in self._names if name not in value]:
            raise NoSuchElement(f"there is no member {missing[0]!r}")
        return {name: value[name] for name in self._names} if self._several else value[self._names[0]]


class _Elements:
    by_position = True

    def __init__(self, indices: Sequence[int], *, several: bool) -> None:
        self._indices = indices
        self._several = several

    def __call__(self, value: Json) -> Json:
        if not isinstance(value, list):
            raise NoSuchElement(f"element {self._indices[0]} is asked for of what is no list")
        if beyond := [index for index in self._indices if not -len(value) <= index < len(value)]:
            raise NoSuchElement(f"index {beyond[0]} is out of range: there are {len(value)} elements")
        return [value[index] for index in self._indices] if self._several else value[self._indices[0]]


class _Slice:
    by_position = True

    def __init__(self, start: int | None, end: int | None) -> None:
        self._slice = slice(start, end)

    def __call__(self, value: Json) -> Json:
        if not isinstance(value, list):
            raise NoSuchElement("a slice is asked for of what is no list")
        return value[self._slice]


class _All:
    by_position = True

    def __call__(self, value: Json) -> Json:
        if isinstance(value, Mapping):
            return list(value.values())
        if isinstance(value, list):
            return value
        raise NoSuchElement("all elements are asked for of what has none")


def _steps(text: str) -> list[_Members | _Elements | _Slice | _All]:
    if not text.startswith("$"):
        raise PathRefused(f"{text!r} does not start with $")
    steps: list[_Members | _Elements | _Slice | _All] = []
    place = 1
    while place < len(text):
        if found := _NAME.match(text, place):
            steps.append(_Members([found[1]], several=False))
        elif text.startswith(".*", place):
            steps.append(_All())
            place += 2
            continue
        elif found := _BRACKET.match(text, place):
            steps.append(_bracket(found))
        else:
            raise PathRefused(f"{text!r} is not understood from {text[place:]!r} on")
        place = found.end()
    return steps


def _bracket(found: re.Match[str]) -> _Members | _Elements | _Slice | _All:
    if found["names"] is not None:
        names = [re.sub(r"\\(.)", r"\1", each[1:-1]) for each in _ONE_NAME.findall(found["names"])]
        return _Members(names, several=len(names) > 1)
    if found["slice"] is not None:
        start, end = (int(bound) if bound.strip() else None for bound in found["slice"].split(":"))
        return _Slice(start, end)
    if found["indices"] is not None:
        indices = [int(each) for each in found["indices"].split(",")]
        return _Elements(indices, several=len(indices) > 1)
    return _All()
