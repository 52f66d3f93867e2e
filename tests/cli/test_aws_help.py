"""The help pages and completion."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from clary.cli.aws import help as pages
from clary.cli.aws import shapes
from clary.cli.aws.completion import complete
from clary.cli.aws.options import GLOBALS, options_of
from clary.cli.aws.prose import render


@pytest.fixture(autouse=True)
def kept_models(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.mark.parametrize("name", ["create-model", "create-endpoint-config", "create-transform-job", "list-models"])
def test_a_page_has_every_option_with_its_type_and_documentation(name: str) -> None:
    page = pages.operation_page(shapes.operation("sagemaker", name, documented=True))
    for option in options_of(shapes.operation("sagemaker", name)):
        if not option.hidden and not option.negates:
            head = re.search(
                rf"^    {option.flag}( \| --no-\S+)? \({option.shape.type}\)( \[required\])?\n +\S", page, re.M
            )
            assert head, option.flag
            assert bool(head[2]) == option.required
    for option in GLOBALS:
        assert f"--{option.name}" in page
    assert max(map(len, re.sub(r"(?s)(Shorthand|JSON) syntax:.*?\n\n.*?\n\n", "", page).splitlines())) <= 120
    assert not re.search(r"</?(p|li|ul|code|a|note)\b", page)


def test_a_page_says_how_values_are_written() -> None:
    page = pages.operation_page(shapes.operation("sagemaker", "add-tags", documented=True))
    assert "Shorthand syntax:\n\n            Key=string,Value=string ...\n" in page
    assert (
        '[\n              {\n                "Key": "string",\n                "Value": "string"\n              }\n'
        in page
    )
    assert (
        "    clary sagemaker add-tags\n      --resource-arn <value>\n      --tags <value>\n      [--cli-input-json"
        in page
    )


def test_a_booleans_two_options_stand_together() -> None:
    page = pages.operation_page(shapes.operation("sagemaker", "create-model", documented=True))
    assert "[--enable-network-isolation | --no-enable-network-isolation]" in page


def test_the_service_page_parts_what_clary_has_from_what_it_does_not() -> None:
    ours, others = pages.service_page("sagemaker").split("OPERATIONS THAT CLARY DOES NOT HAVE")
    assert "create-model" in ours.split()
    assert "create-notebook-instance" not in ours
    assert "create-notebook-instance\n" in others


def test_every_waiter_has_a_page() -> None:
    for waiter in shapes.waiters("sagemaker").values():
        assert "Leaves with 255 after" in pages.waiter_page("sagemaker", waiter)


@pytest.mark.parametrize(
    "words",
    [
        ["sagemaker", "help"],
        ["sagemaker", "create-model", "help"],
        ["sagemaker", "wait", "help"],
        ["sagemaker", "wait", "endpoint-in-service", "help"],
        ["sagemaker-runtime", "invoke-endpoint", "help"],
    ],
)
def test_help_is_a_word_at_every_level(words: list[str], run: Callable[..., Result]) -> None:
    result = run(*words)
    assert result.exit_code == 0
    assert result.output.startswith("NAME\n")


def test_html_becomes_paragraphs_and_lists() -> None:
    html = "<p>A <code>b</code>\n  c.</p> <ul> <li> <p>one</p> </li> <li>two</li></ul><note> <p>n &lt; 1</p></note>"
    assert render(html, 80, 2) == "  A b c.\n\n  * one\n\n  * two\n\n  Note:\n\n    n < 1"


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        ([], "create-model-c", ["create-model-card", "create-model-card-export-job"]),
        ([], "wai", ["wait"]),
        (["wait"], "endpoint", ["endpoint-deleted", "endpoint-in-service"]),
        (["wait", "endpoint-deleted"], "--endpoint", ["--endpoint-name", "--endpoint-url"]),
        (["create-model"], "--e", ["--execution-role-arn", "--enable-network-isolation", "--endpoint-url"]),
        (["create-model", "--model-name", "m"], "--model", []),
        (["list-models", "--sort-order"], "", ["Ascending", "Descending"]),
        (["create-model", "--output"], "t", ["text", "table"]),
        (["create-model", "--generate-cli-skeleton"], "", ["input", "output", "yaml-input"]),
        (["--region", "eu-west-1"], "add-", ["add-association", "add-tags"]),
        (["no-such"], "", []),
    ],
)
def test_completion_offers_what_may_stand_there(words: list[str], incomplete: str, expected: list[str]) -> None:
    assert complete("sagemaker", words, incomplete) == expected


def test_completion_goes_through_clicks(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import os
    import subprocess
    import sys

    environment = {
        **os.environ,
        "_CLARY_COMPLETE": "bash_complete",
        "COMP_WORDS": "clary sagemaker add-t",
        "COMP_CWORD": "2",
    }
    script = "from clary.cli.main import main; main(prog_name='clary')"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert answer.stdout == "plain,add-tags\n"
