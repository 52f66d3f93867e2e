"""The documentation of the service model, which is HTML, as text for a terminal."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field
from html.parser import HTMLParser

_BLOCKS = {"p", "li", "dt", "dd", "note", "important", "ul", "ol", "dl", "fullname"}
_INDENTED = {"li": 2, "dd": 4, "note": 2, "important": 2}
_LABELS = {"note": "Note:", "important": "Important:"}


@dataclass
class _Block:
    """A paragraph: its words, how deep it stands, and what stands before its first line."""

    indent: int
    bullet: str = ""
    words: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks = [_Block(0)]
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _BLOCKS:
            return
        self._open.append(tag)
        if tag in _LABELS:
            self.blocks.append(_Block(self._indent - _INDENTED[tag], words=[_LABELS[tag]]))
        last = self.blocks[-1]
        if tag == "p" and last.bullet and not "".join(last.words).strip():
            return
        self.blocks.append(_Block(self._indent, bullet="* " if tag == "li" else ""))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self._open:
            return
        # Lists of the model are not always closed in order.
        while self._open.pop() != tag:
            pass
        self.blocks.append(_Block(self._indent))

    def handle_data(self, data: str) -> None:
        self.blocks[-1].words.append(data)

    @property
    def _indent(self) -> int:
        return sum(_INDENTED.get(tag, 0) for tag in self._open)


def first_sentence(html: str) -> str:
    """Give the first sentence, on one line."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    words = " ".join(" ".join("".join(block.words) for block in reader.blocks).split())
    # Version 2 of the aws CLI ends the sentence at a colon too, and puts a full stop in its place.
    first = re.split(r"[.:](?:\s|$)", words, maxsplit=1)[0]
    return f"{first}." if first else ""


def render(html: str, width: int, indent: int = 0) -> str:
    """Give the text, wrapped at a width, each line indented; paragraphs are parted by an empty line."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    paragraphs = []
    for block in reader.blocks:
        text = " ".join("".join(block.words).split())
        if text:
            margin = " " * (indent + block.indent)
            first = margin[: len(margin) - len(block.bullet)] + block.bullet
            paragraphs.append(
                textwrap.fill(
                    text,
                    max(width, indent + block.indent + 20),
                    initial_indent=first,
                    subsequent_indent=margin,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
    return "\n\n".join(paragraphs)
