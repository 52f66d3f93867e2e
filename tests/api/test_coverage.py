"""The coverage page agrees with the code, with its table and with the installed botocore."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

import pytest

from clary.api import coverage
from clary.api.sts import SUPPORTED

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"


@pytest.fixture
def document() -> dict[str, Any]:
    return tomllib.loads(coverage.TABLE.read_text())


def test_every_member_has_a_verdict_and_every_verdict_a_member() -> None:
    problems = coverage.problems(coverage.load())
    assert not problems, "\n".join(["src/clary/api/coverage.toml does not fit:", *problems])


def test_the_page_is_what_the_code_says() -> None:
    written, made = PAGE.read_text().splitlines(), coverage.page(coverage.load()).splitlines()
    difference = difflib.unified_diff(written, made, "docs/coverage.md", "python -m clary.api.coverage", "", "", 0, "")
    assert written == made, "\n".join(difference)


def test_assume_role_refuses_what_the_page_says() -> None:
    found = coverage.rows(coverage.load(), "sts", "AssumeRole")
    assert {row.path for row in found if row.state == coverage.EFFECTIVE} == SUPPORTED
    assert {row.state for row in found} == {coverage.EFFECTIVE, coverage.REFUSED}


def test_verdicts_are_three(document: dict[str, Any]) -> None:
    texts = {text.partition(": ")[0] for members in document["members"].values() for text in members.values()}
    assert texts == {coverage.EFFECTIVE, coverage.STORED, coverage.REFUSED}


def test_no_operation_is_in_two_families(document: dict[str, Any]) -> None:
    scope = [each[1:] for each in coverage.in_scope(coverage.Table(document))]
    assert len(scope) == len(set(scope))


def test_a_member_that_the_table_does_not_know_is_named(document: dict[str, Any]) -> None:
    del document["members"]["ContainerDefinition"]["Image"]
    problems = coverage.problems(coverage.Table(document))
    assert problems == [
        "CreateModel: PrimaryContainer.Image: no verdict in coverage.toml",
        "CreateModel: Containers[].Image: no verdict in coverage.toml",
    ]


def test_a_new_member_of_a_structure_without_effect_shows_on_the_page(document: dict[str, Any]) -> None:
    # VpcConfig as a whole is refused, and so is all of it: the page lists it, and would differ.
    table = coverage.Table(document)
    found = {row.path: row.state for row in coverage.rows(table, "sagemaker", "CreateModel")}
    assert found["VpcConfig.Subnets[]"] == coverage.REFUSED


def test_a_verdict_on_nothing_is_named(document: dict[str, Any]) -> None:
    document["members"]["CreateModel"]["Gone"] = "effective"
    assert coverage.problems(coverage.Table(document)) == ["[members.CreateModel] Gone: there is no such member"]


def test_an_operation_outside_every_family_is_named(document: dict[str, Any]) -> None:
    document["scope"]["Models"]["sagemaker"].remove("DeleteModel")
    problems = coverage.problems(coverage.Table(document))
    assert problems[0] == "sagemaker DeleteModel: is there, but in no family of [scope]"


def test_a_structure_is_as_effective_as_its_best_part(document: dict[str, Any]) -> None:
    found = {row.path: row.state for row in coverage.rows(coverage.Table(document), "sagemaker", "CreateModel")}
    assert found["PrimaryContainer.ModelDataSource"] == coverage.EFFECTIVE
    assert found["PrimaryContainer.ModelDataSource.S3DataSource.ModelAccessConfig"] == coverage.STORED
    assert found["PrimaryContainer.MultiModelConfig.ModelCacheSetting"] == coverage.EFFECTIVE
