"""`clary sagemaker` beside the real `aws sagemaker`: the same command lines, the same requests, answers and codes.

The aws CLI here is version 1. Its exit codes are held against version 2's, which Clary has, by CODES; and CODES against
those that version 2 was seen to leave with.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from clary.cli.aws import shapes
from clary.cli.aws.options import options_of
from tests.cli.aws_cases import Case, cases
from tests.cli.aws_runs import MODELS, WORKER, Outcome, furnished, run_all, without_choices

RECORD = Path(__file__).with_name("aws_2.json")
DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"

CODES = (
    # (version 1's code, what its message says, version 2's code)
    (2, r"", 252),
    (255, r"^An error occurred \(", 254),
    (255, r"^(Parameter validation failed|Error parsing parameter|Unknown options|Bad value for --)", 252),
    (255, r"^Error during pagination: Cannot specify --no-paginate", 252),
    (255, r"^(You must specify a region|Unable to locate credentials)", 253),
    (255, r"", 255),
)
"""Version 1 leaves with 2 for what its argument parser refuses and with 255 for all else."""

_STUB = "version 1 stumbles over its own sample: the names that stand for values are shorter than the model allows"
_NUMBER = "an option's value that cannot be read is a usage error, and the message says of which option"
_AGAIN = "the direct way's attempt comes before botocore's"
_WORDS = "version 1 reports its own usage as an error of the program; here it is one of the command line"
_FRACTION = "the installed botocore sends times as precisely as they are given"
_ARN_OUTPUTS = (
    *("create-model", "create-endpoint-config", "create-endpoint", "update-endpoint", "describe-model"),
    *("describe-endpoint", "update-endpoint-weights-and-capacities"),
)
_LISTS = ("list-models", "list-endpoints", "list-endpoint-configs")

DIFFERENCES: dict[str, tuple[set[str], str]] = {
    **{f"{name}: output skeleton": ({"stdout", "code", "message"}, _STUB) for name in (*_ARN_OUTPUTS, *_LISTS)},
    **{f"{name}: output skeleton, nothing given": ({"stdout", "code", "message"}, _STUB) for name in _LISTS},
    "shorthand bad: no such file": ({"code", "message"}, _NUMBER),
    "variants: no number": ({"code", "message"}, _NUMBER),
    "variants: no fraction": ({"code", "message"}, _NUMBER),
    "no time-out": ({"code", "message"}, _NUMBER),
    "table in colour": ({"stdout"}, "colorama, of version 1, resets the colour after each write, needed or not"),
    "URL without a scheme": ({"code", "message"}, "version 1 takes the host for the scheme and fails later"),
    "refused: server": ({"requests"}, _AGAIN),
    "refused: throttled": ({"requests"}, _AGAIN),
    "an answer that is a list": ({"requests"}, _AGAIN),
    "wait: on nothing": ({"code", "message"}, _WORDS),
    "pages: epoch with a fraction": ({"requests"}, _FRACTION),
}
"""By the name of a case: what is not compared there, and why. The same list is in docs/cli.md."""

LATER = {"shorthand good: file", "shorthand good: file in a hash", "shorthand good: at sign and no file"}
"""What the version 2 of the record did not have yet."""


def as_version_2(of_version_1: Outcome) -> Outcome:
    """Give what version 2 would do: it has codes of its own, and words one error otherwise."""
    code = of_version_1.code
    for given, pattern, meant in CODES:
        if code == given and re.search(pattern, of_version_1.message):
            code = meant
            break
    return replace(of_version_1, code=code, message=of_version_1.message.removeprefix("Error during pagination: "))


def compared(found: Outcome, case: Case) -> dict[str, Any]:
    """Give what is compared of an outcome."""
    parts: dict[str, Any] = {
        "requests": found.requests,
        "code": found.code,
        "stdout": found.stdout,
        "message": without_choices(found.message),
        "outfile": found.outfile,
    }
    if "--generate-cli-skeleton" in case.arguments and found.stdout:
        parts["stdout"] = _without_enums(json.loads(found.stdout))
    for part in DIFFERENCES.get(case.name, (set(), ""))[0]:
        del parts[part]
    return parts


def _without_enums(value: Any) -> Any:
    """Version 1 draws enum members at random; any word stands for any other."""
    if isinstance(value, dict):
        return {name: _without_enums(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_enums(item) for item in value]
    return "" if isinstance(value, str) else value


TABLE = cases()


@dataclass(frozen=True)
class Sides:
    """The outcomes of the table; `botocore` is Clary without its direct way, for what that may have done."""

    aws: dict[str, Outcome]
    clary: dict[str, Outcome]
    botocore: dict[str, Outcome]


SENDING = [case for case in TABLE if case.name.endswith((": minimal", ": refused")) or "describe-" in case.name]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Sides:
    folder = furnished(tmp_path_factory.mktemp("parity"))
    tables = {"aws": TABLE, "clary": TABLE, "botocore": SENDING}
    with ThreadPoolExecutor(len(tables)) as pool:
        return Sides(*pool.map(lambda side: run_all(side, tables[side], folder), tables))


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_it_does_what_aws_does(case: Case, outcomes: Sides) -> None:
    assert compared(outcomes.clary[case.name], case) == compared(as_version_2(outcomes.aws[case.name]), case)


def test_the_codes_are_those_that_version_2_was_seen_to_leave_with(outcomes: Sides) -> None:
    seen: dict[str, int] = json.loads(RECORD.read_text())["codes"]
    deliberate = {name for name, (parts, _) in DIFFERENCES.items() if "code" in parts}
    names = sorted(seen.keys() - deliberate - LATER)
    assert {name: outcomes.clary[name].code for name in names} == {name: seen[name] for name in names}


@pytest.mark.parametrize("case", SENDING, ids=lambda case: case.name)
def test_both_ways_to_call_do_the_same(case: Case, outcomes: Sides) -> None:
    assert outcomes.clary[case.name] == outcomes.botocore[case.name]


def test_every_difference_is_documented_with_its_reason() -> None:
    page = DOCUMENT.read_text()
    for name, (_, reason) in DIFFERENCES.items():
        assert f"| {reason} |" in page, name


def test_the_table_is_large_and_every_difference_is_one_of_its_cases() -> None:
    names = [case.name for case in TABLE]
    assert len(names) == len(set(names)) >= 150
    assert set(DIFFERENCES) <= set(names)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_listed_difference_is_there(name: str, outcomes: Sides) -> None:
    ours, theirs = outcomes.clary[name], as_version_2(outcomes.aws[name])
    for part in DIFFERENCES[name][0]:
        assert getattr(ours, part) != getattr(theirs, part), f"{part} does not differ any more: {name}"


@pytest.mark.parametrize("service", ["sagemaker", "sagemaker-runtime"])
def test_every_option_has_the_name_the_type_and_the_requiredness_that_aws_gives_it(
    service: str, tmp_path: Path
) -> None:
    answer = subprocess.run(
        [sys.executable, str(WORKER), "options", service],
        capture_output=True,
        check=True,
        text=True,
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "AWS_DATA_PATH": MODELS},
    )
    aws = json.loads(answer.stdout)
    for name, theirs in aws.items():
        operation = shapes.operation(service, name)
        ours = {
            option.name: [option.shape.type, option.required, option.hidden]
            for option in options_of(operation)
            if option.name != "cli-input-yaml"
        }
        assert ours == {option: facts for option, facts in theirs.items() if option != "outfile"}, name
        assert ("outfile" in theirs) == (operation.payload is not None), name
    assert set(shapes.index(service)) - set(aws) == (
        {"invoke-endpoint-with-response-stream"} & set(shapes.index(service))
    )
