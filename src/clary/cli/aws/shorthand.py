"""The shorthand syntax of option values: `Key=a,Value=b`, `Containers=[{Image=x},{Image=y}]`, `Environment={A=1,B=2}`.

    parameter = keyval *("," keyval)
    keyval    = key ["@"] "=" values               with "@" a value may be file://path or fileb://path
    key       = 1*(letter / digit / one of -_.#/:)
    values    = list / hash / quoted / word *("," word)
    list      = "[" [item *("," item)] "]"         item = list / hash / quoted / word
    hash      = "{" [key ["@"] "=" item *("," key ["@"] "=" item)] "}"
    quoted    = "'...'" / '"..."'                  the quote and the backslash are escaped with a backslash
    word      = anything up to a delimiter         a comma is escaped with a backslash

Grammar and error texts are those of the AWS CLI user guide and of version 1.46. A parse knows nothing of the model;
`values.fit` gives what it returns the types of the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn

_KEY = re.compile(r"[A-Za-z0-9\-_.#/:]*")
_SPACE = re.compile(r"[ \t\n\r\x0b\x0c]*")
_START = r"""(?:\\,|[^\x00-\x20"',=\[{])"""
# The first word of a value may hold "=", as base64 does; each further one ends there, being the next key then.
_FIRST = re.compile(_START + r"""(?:\\,|[^"',\]}])*""")
_FURTHER = re.compile(_START + r"""(?:\\,|[^"',=])*""")
_QUOTED = {
    "'": ("singled quoted", re.compile(r"'((?:\\'|[^'])*)'")),
    '"': ("double quoted", re.compile(r'"((?:\\"|[^"])*)"')),
}

Load = Callable[[str], str | bytes]


class ShorthandError(Exception):
    """The text is not shorthand; the message shows where."""


class Parser:
    """Parse one value. `load` gives what an `@=` value stands for: the content of a file, or the value itself."""

    def __init__(self, text: str, load: Load) -> None:
        self._text = text
        self._load = load
        self._at = 0

    def parse(self) -> dict[str, Any]:
        """Give the value as a dictionary of strings, lists and dictionaries. Raises ShorthandError."""
        found: dict[str, Any] = {}
        begin = 0
        while True:
            key, load = self._key()
            value = self._values(load)
            if key in found:
                self._repeated(key, begin)
            found[key] = value
            if self._ended:
                return found
            begin = self._at + 1
            self._expect(",")

    @property
    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    @property
    def _ended(self) -> bool:
        return self._at >= len(self._text)

    def _key(self) -> tuple[str, Load]:
        key = self._take(_KEY)
        self._skip()
        marked = self._next == "@"
        if marked:
            self._expect("@")
        self._expect("=")
        return key, self._load if marked else str

    def _values(self, load: Load) -> Any:
        if self._ended:
            return ""
        if self._next in ("[", "{"):
            return self._item(load)
        values = [self._item(load)]
        self._skip()
        while self._next == ",":
            self._expect(",")
            further = self._further(load)
            if further is None:
                # What follows is the next key, or a mistake that the caller words. Going back from here, and not to
                # where the word began, is what the aws CLI does: two commas are as good as one.
                self._at = self._text.rfind(",", 0, self._at + 1)
                break
            values.append(further)
        return values[0] if len(values) == 1 else values

    def _further(self, load: Load) -> str | bytes | None:
        """Give one more word of a list without brackets; None where the text goes on with something else."""
        quote = self._next
        found = (_QUOTED[quote][1] if quote in _QUOTED else _FURTHER).match(self._text, self._at)
        if found is None:
            if self._ended:
                self._fail("<second>", "<none>")
            return None
        if quote in _QUOTED:
            value: str | bytes = self._quoted(load)
        else:
            self._at = found.end()
            value = load(found[0].replace("\\,", ",").rstrip())
        self._skip()
        return value if self._ended or self._next == "," else None

    def _item(self, load: Load) -> Any:
        if self._next == "[":
            return self._list(load)
        if self._next == "{":
            return self._hash()
        if self._next in _QUOTED:
            return self._quoted(load)
        word = self._take(_FIRST).replace("\\,", ",").rstrip()
        return load(word) if word else word

    def _list(self, load: Load) -> list[Any]:
        self._expect("[")
        found: list[Any] = []
        while self._next != "]":
            found.append(self._item(load))
            self._separator("]")
        self._expect("]", skip=False)
        return found

    def _hash(self) -> dict[str, Any]:
        self._expect("{")
        found: dict[str, Any] = {}
        while self._next != "}":
            key, load = self._key()
            found[key] = self._item(load)
            self._separator("}")
        self._expect("}", skip=False)
        return found

    def _separator(self, end: str) -> None:
        self._skip()
        if self._next != end:
            self._expect(",", skip=False)
            self._skip()

    def _quoted(self, load: Load) -> str | bytes:
        quote = self._next
        name, pattern = _QUOTED[quote]
        found = pattern.match(self._text, self._at)
        if found is None:
            self._fail(f"<{name}>", "<none>")
        self._at = found.end()
        return load(found[1].replace(f"\\{quote}", quote).replace("\\\\", "\\"))

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found[0]

    def _skip(self) -> None:
        self._take(_SPACE)

    def _expect(self, character: str, *, skip: bool = True) -> None:
        if skip:
            self._skip()
        if self._next != character:
            self._fail(character, self._next or "EOF")
        self._at += 1
        if skip:
            self._skip()

    def _fail(self, expected: str, received: str) -> NoReturn:
        raise ShorthandError(
            f"Expected: '{expected}', received: '{received}' for input:\n{_pointed(self._text, self._at)}"
        )

    def _repeated(self, key: str, begin: int) -> NoReturn:
        raise ShorthandError(
            f'Second instance of key "{key}" encountered for input:\n{_pointed(self._text, begin)}\n'
            'This is often because there is a preceding "," instead of a space.'
        )


def _pointed(text: str, at: int) -> str:
    """Give the text with a caret under a place, in the middle of it where it has several lines."""
    line_end = text.find("\n", at)
    shown, rest = (text, "") if line_end < 0 else (text[:line_end], text[line_end:])
    column = at - text.rfind("\n", 0, at) - 1
    return f"{shown}\n{' ' * column}^{rest}"
