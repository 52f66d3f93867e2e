"""Documentation that can fail: what the pages say of settings, commands and files is held against the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from textwrap import fill

import click
import pytest

from clary import settings
from clary.api.cloudwatch.exposition import name_of
from clary.api.cloudwatch.expressions import FUNCTIONS
from clary.cli.aws.command import Service
from clary.cli.main import main
from clary.core.metrics import METRICS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md", ROOT / "CHANGELOG.md"]


def settings_table() -> str:
    rows = ["| flag | variable | default | what it is |", "| --- | --- | --- | --- |"]
    for name, setting in settings.TABLE.items():
        help_text = setting.metadata["help"].replace("|", "\\|")
        if name in settings.TABLES:
            rows.append(f"| `[{name}]` | in the file only | | {help_text} |")
            continue
        default = "" if setting.default in ("", ()) else f"`{setting.default}`"
        rows.append(f"| `{settings.flag(name)}` | `{settings.variable(name)}` | {default} | {help_text} |")
    return "\n".join(rows)


def test_the_settings_page_is_the_settings_table() -> None:
    page = (ROOT / "docs/settings.md").read_text()
    assert settings_table() in page, f"docs/settings.md must contain:\n\n{settings_table()}"


def metrics_table() -> str:
    rows = [
        "| namespace | metric | dimensions | unit | what it is | Prometheus |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for metric in METRICS:
        dimensions = ", ".join(metric.dimensions)
        rows.append(
            f"| `{metric.namespace}` | {metric.name} | {dimensions} | {metric.unit} | {metric.meaning} | "
            f"`{name_of(metric)}` |"
        )
    return "\n".join(rows)


def functions_list() -> str:
    return fill(", ".join(f"`{name}`" for name in sorted(FUNCTIONS)) + ".", 120)


def test_the_metrics_page_is_the_table_of_metrics() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    assert metrics_table() in page, f"docs/metrics.md must contain:\n\n{metrics_table()}"
    assert functions_list() in page, f"docs/metrics.md must contain:\n\n{functions_list()}"


def test_the_readme_opens_with_exactly_two_commands_and_make_has_them() -> None:
    first = README.partition("```console\n")[2].partition("```")[0]
    commands = [line[2:].partition("#")[0].strip() for line in first.splitlines()]
    assert commands == ["make demo", "make test"]
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    assert "make test" in (ROOT / ".ci/run").read_text()


def named_commands() -> set[tuple[str, ...]]:
    """Give what the pages call `clary <command>`."""
    text = "\n".join(page.read_text() for page in PAGES)
    return {
        tuple(found.split()) for found in re.findall(r"(?:^\$ |[`(\"])clary ((?:[a-z]+)(?: --?[a-z-]+)*)", text, re.M)
    }


@pytest.mark.parametrize("words", sorted(named_commands()))
def test_commands_that_the_pages_name_exist(words: tuple[str, ...]) -> None:
    command = main.get_command(click.Context(main), words[0])
    assert command is not None, f"clary {words[0]}"
    if isinstance(command, Service):  # its options are made from the service model when it is called
        return
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words[1:] if word.startswith("-")} <= options | {"--help"}


def test_every_command_is_documented() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for name in main.list_commands(click.Context(main)):
        assert f"clary {name}" in text, f"no page names `clary {name}`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:bench|docs|src|tests)/[\w./-]+\.\w+)`", text):
        assert (ROOT / path).exists(), path


def test_help_helps() -> None:
    done = subprocess.run([sys.executable, "-m", "clary.cli.main", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    for name in main.list_commands(click.Context(main)):
        assert name in done.stdout


def test_engines_are_found_by_entry_point() -> None:
    from importlib.metadata import entry_points

    assert "process" in {point.name for point in entry_points(group="clary.engines")}


def test_no_page_has_a_placeholder() -> None:
    for page in PAGES:
        assert not re.search(r"^[A-Z]{4,}$", page.read_text(), re.MULTILINE), page
