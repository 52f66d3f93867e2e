"""Shorthand, beyond the cases that are compared with the aws CLI."""

from __future__ import annotations

import json
import random
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.cli.aws.shapes import Shape
from clary.cli.aws.shorthand import Parser, ShorthandError
from clary.cli.aws.values import fit

KEYS = st.text(string.ascii_letters + string.digits + "-_.#/:", min_size=1, max_size=6)
WORDS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00"), max_size=12)
VALUES: st.SearchStrategy[Any] = st.recursive(
    WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


def write(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}={write(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(write(item) for item in value) + "]"
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def ends_ambiguously(value: Any) -> bool:
    """The syntax cannot tell an escaped backslash before a quote from an escaped quote: neither can the aws CLI."""
    if isinstance(value, dict):
        return any(map(ends_ambiguously, value.values()))
    if isinstance(value, list):
        return any(map(ends_ambiguously, value))
    return "\\" in value


@given(st.dictionaries(KEYS, VALUES.filter(lambda value: not ends_ambiguously(value)), min_size=1, max_size=4))
def test_what_is_written_in_brackets_and_quotes_is_read_back(value: dict[str, Any]) -> None:
    assert Parser(write(value)[1:-1], str).parse() == value


@given(st.text(max_size=30))
def test_any_text_is_a_value_or_an_error_that_shows_where(text: str) -> None:
    try:
        assert isinstance(Parser(text, str).parse(), dict)
    except ShorthandError as error:
        assert "for input:\n" in str(error)
        assert "^" in str(error)


def test_random_texts_are_parsed_as_aws_parses_them() -> None:
    draw = random.Random(20241122)
    pieces = [*"ab =,{}[]'\"\\@\n", "Key=", ",Value=", "x y", "\\,", "=[", "={", "@=", "\\'", "']", "'}"]
    texts = ["".join(draw.choices(pieces, k=draw.randint(1, 12))) for _ in range(20_000)]
    worker = Path(__file__).with_name("aws_worker.py")
    theirs = subprocess.run(
        [sys.executable, str(worker), "shorthand"], input=json.dumps(texts), capture_output=True, check=True, text=True
    )
    for text, expected in zip(texts, json.loads(theirs.stdout), strict=True):
        try:
            found: Any = Parser(text, str).parse()
        except ShorthandError as error:
            found = str(error)
        assert found == expected, text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Environment={A=1", "Expected: ',', received: 'EOF' for input:\nEnvironment={A=1\n                ^"),
        ("A=b,\nC==,\nD=e", "Expected: ',', received: '=' for input:\nA=b,\nC==,\n  ^\nD=e"),
        ("Key=a,Key=b", 'Second instance of key "Key" encountered for input:\nKey=a,Key=b\n      ^'),
    ],
)
def test_an_error_points_into_the_text(text: str, expected: str) -> None:
    with pytest.raises(ShorthandError) as failure:
        Parser(text, str).parse()
    assert str(failure.value).startswith(expected)


def test_only_what_is_marked_is_loaded() -> None:
    def load(word: str) -> str:
        return f"<{word}>"

    assert Parser("A@=x,B=x,C={D@=y,E=y},F@=[p,'q']", load).parse() == {
        "A": "<x>",
        "B": "x",
        "C": {"D": "<y>", "E": "y"},
        "F": ["<p>", "<q>"],
    }


SHAPES: dict[str, Any] = {
    "Whole": {
        "type": "structure",
        "members": {"Count": {"shape": "Count"}, "Counts": {"shape": "Counts"}, "On": {"shape": "On"}},
    },
    "Count": {"type": "integer"},
    "Counts": {"type": "list", "member": {"shape": "Count"}},
    "On": {"type": "boolean"},
}


@pytest.mark.parametrize(
    ("value", "fitted"),
    [
        ({"Count": "3", "On": "TRUE"}, {"Count": 3, "On": True}),
        ({"Counts": "3"}, {"Counts": [3]}),
        ({"Counts": ["1", "2"], "Other": "x"}, {"Counts": [1, 2], "Other": "x"}),
        ({"On": "perhaps"}, {"On": "perhaps"}),
    ],
)
def test_values_take_the_types_of_the_model(value: dict[str, Any], fitted: dict[str, Any]) -> None:
    assert fit(value, Shape({"shape": "Whole"}, SHAPES)) == fitted
