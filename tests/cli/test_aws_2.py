"""`clary sagemaker` beside what version 2 of the aws CLI was seen to do, where version 1 cannot be asked."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.cli.aws_2_cases import cases
from tests.cli.aws_cases import Case
from tests.cli.aws_runs import furnished, run_all, without_choices

DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"
RECORD = Path(__file__).with_name("aws_2.json")
TABLE = cases()

_WHERE = "version 2 says only that the YAML is bad"
_DAY = "no member of a request is a day"

DIFFERENCES: dict[str, tuple[set[str], str]] = {
    "YAML: bad": ({"message"}, _WHERE),
    "YAML: a key twice": ({"message"}, _WHERE),
    "YAML: a day": ({"message"}, _DAY),
}
"""By the name of a case: what is not compared there, and why. The same list is in docs/cli.md."""


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = furnished(tmp_path_factory.mktemp("version_2"))
    found = {name: asdict(outcome) for name, outcome in run_all("clary", TABLE, folder).items()}
    text = json.dumps(found, default=lambda body: body.decode("latin-1"), ensure_ascii=False)
    named: dict[str, dict[str, Any]] = json.loads(text.replace(str(folder), "{folder}"))
    return named


@pytest.fixture(scope="module")
def theirs() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(RECORD.read_text())["outcomes"]
    return found


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_it_does_what_version_2_does(case: Case, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    left = {"requests", "code", "stdout", "message", "outfile"} - DIFFERENCES.get(case.name, (set(), ""))[0]
    done, expected = (compared(side[case.name], case) for side in (ours, theirs))
    assert {part: done[part] for part in left} == {part: expected[part] for part in left}


def compared(outcome: dict[str, Any], case: Case) -> dict[str, Any]:
    """Give an outcome without what is a matter of taste."""
    text = outcome["stdout"]
    if "yaml-input" in case.arguments:
        # Which quotes a value has, and how far from it the comment is.
        text = re.sub(" +#", " #", re.sub("[\"']", "", text))
    return {**outcome, "stdout": text, "message": without_choices(outcome["message"])}


def test_the_record_is_of_this_table(theirs: dict[str, Any]) -> None:
    assert theirs.keys() == {case.name for case in TABLE}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_listed_difference_is_there_and_documented(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    parts, reason = DIFFERENCES[name]
    assert all(ours[name][part] != theirs[name][part] for part in parts)
    assert f"| {reason} |" in DOCUMENT.read_text()
