"""`--output table`: nested boxes, drawn as the aws CLI draws them.

A dictionary is one section: a row of its scalars under their names, then a section, one level deeper, for each of the
others. A list of dictionaries is one section with a row for each, as long as none has anything but scalars. Where the
whole is wider than the terminal, the sections of one row stand upright: a name and a value on each line.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from clary.cli.aws.failures import CommandFailure

PADDING = 4
DEFAULT_WIDTH = 80
_VALUE, _BORDER, _RESET = "\x1b[1m\x1b[34m", "\x1b[2m\x1b[33m", "\x1b[0m"


@dataclass
class Section:
    """A titled box of rows."""

    title: str
    level: int
    headers: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    widest: list[int] | None = None
    """Of each column; None while there are no columns."""

    def head(self, names: list[str]) -> None:
        self.headers = names
        self._measure(names)

    def add(self, values: Iterable[Any]) -> None:
        row = [str(value) for value in values]
        if self.widest is not None and len(row) != len(self.widest):
            raise CommandFailure(f"Row should have {len(self.widest)} elements, instead it has {len(row)}")
        self.rows.append(row)
        self._measure(row)

    def upright(self) -> Section:
        """Give the section with its only row turned; the same where there is another number of rows."""
        if len(self.rows) != 1 or not self.headers:
            return self
        turned = Section(self.title, self.level)
        for pair in zip(self.headers, self.rows[0], strict=True):
            turned.add(pair)
        return turned

    @property
    def width(self) -> int:
        """The width that the section would have by itself, with the borders of its level."""
        columns = sum(width + PADDING for width in self.widest or ())
        return max(columns, _width(self.title)) + 2 + 2 * self.level

    def scaled(self, whole: int) -> list[int]:
        """Give the width of each column in a table of this width."""
        natural = [width + PADDING for width in self.widest or ()]
        if not natural:
            return []
        factor = whole / sum(natural)
        widths = [round(factor * width) for width in natural]
        surplus = sum(widths) - whole
        step = -1 if surplus > 0 else 1
        order = list(range(len(widths))) if surplus > 0 else list(reversed(range(len(widths))))
        for turn in range(abs(surplus)):
            widths[order[turn % len(order)]] += step
        return widths

    def _measure(self, row: list[str]) -> None:
        widths = [_width(text) for text in row]
        self.widest = widths if not self.widest else [max(pair) for pair in zip(self.widest, widths, strict=True)]


def render(title: str, value: Any, *, coloured: bool) -> str:
    """Give the table of a value; nothing where the value is empty. Raises CommandFailure for rows of unequal length."""
    sections: list[Section] = []
    if not value:
        return ""
    _build(sections, title, value, 0)
    width = max(section.width for section in sections)
    if width > _terminal_width():
        sections = [section.upright() for section in sections]
        width = max(section.width for section in sections)
    lines = ["-" * width]
    for section in sections:
        edge = "|" * section.level
        edge = f"{_BORDER}{edge}{_RESET}" if coloured and edge else edge
        lines += [f"{edge}{line}{edge}" for line in _draw(section, width - 2 * section.level, coloured)]
    return "\n".join(lines) + "\n"


def _build(sections: list[Section], title: str | None, value: Any, level: int) -> None:
    if not value:
        return
    if title is not None:
        sections.append(Section(title, level))
    if isinstance(value, dict):
        _build_dictionary(sections, value, level)
    elif isinstance(value, list) and isinstance(value[0], dict):
        _build_dictionaries(sections, title or "", value, level)
    elif isinstance(value, list):
        for item in value:
            if not isinstance(item, list | dict):
                sections[-1].add([item])
            elif not any(isinstance(part, list | dict) for part in item):
                sections[-1].add(item)
            else:
                _build(sections, None, item, 0)


def _build_dictionary(sections: list[Section], value: dict[str, Any], level: int) -> None:
    scalars, others = _divide([value])
    if len(scalars) == 1:
        sections[-1].add([scalars[0], value[scalars[0]]])
    elif scalars:
        sections[-1].head(scalars)
        sections[-1].add(value[name] for name in scalars)
    for name in others:
        _build(sections, name, value[name], level + 1)


def _build_dictionaries(sections: list[Section], title: str, values: Sequence[dict[str, Any]], level: int) -> None:
    scalars, others = _divide(values)
    sections[-1].head(scalars)
    for place, value in enumerate(values):
        if place and others:
            sections.append(Section(title, level))
            sections[-1].head(scalars)
        sections[-1].add(value.get(name, "") for name in scalars)
        for name in others:
            if name in value:
                _build(sections, name, value[name], level + 1)


def _divide(values: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Give the names of scalars and of all others, sorted."""
    scalars = {name for value in values for name, item in value.items() if not isinstance(item, list | dict)}
    others = {name for value in values for name, item in value.items() if isinstance(item, list | dict)}
    return sorted(scalars), sorted(others)


def _draw(section: Section, width: int, coloured: bool) -> Iterable[str]:
    if section.title:
        yield _centred(section.title, width, "|")
        if not section.headers and not section.rows:
            yield f"+{'-' * (width - 2)}+"
    widths = section.scaled(width)
    if not widths:
        return
    rule = "+" + "+".join("-" * (size - 1 - (place == 0)) for place, size in enumerate(widths)) + "+"
    if section.headers:
        yield rule
        yield "".join(_centred(*cell) for cell in zip(section.headers, widths, _edges(widths), strict=True))
    if section.rows:
        yield rule
        for row in section.rows:
            yield "".join(_aligned(*cell, coloured) for cell in zip(row, widths, _edges(widths), strict=True))
        yield rule


def _edges(widths: Sequence[int]) -> list[str]:
    """Give the left edge of each cell: the first has one, the others share their neighbour's right one."""
    return ["|", *[""] * (len(widths) - 1)]


def _centred(text: str, width: int, edge: str) -> str:
    before = width // 2 - _width(text) // 2 - 1
    left = f"{edge}{' ' * before}{text}"
    return f"{left}{' ' * (width - 1 - len(edge) - max(before, 0) - _width(text))}|"


def _aligned(text: str, width: int, edge: str, coloured: bool) -> str:
    padding = 2 if _width(text) + 3 + len(edge) <= width else 0
    after = width - len(edge) - padding - _width(text) - 1
    shown = f"{_VALUE}{text}{_RESET}" if coloured else text
    return f"{edge}{' ' * padding}{shown}{' ' * after}|"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WFA" else 1 for character in text)


def _terminal_width() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return DEFAULT_WIDTH
