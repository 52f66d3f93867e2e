"""up: settings from flags, the banner, the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import Result

from clary.cli.up import banner
from clary.settings import TABLE, TABLES, Settings, flag, inherited, load, to_environment, variable

Run = Callable[..., Result]


@dataclass(frozen=True)
class Running:
    url: str
    engine: str
    data: Path
    region: str = "us-east-1"
    account_id: str = "000000000000"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that the server was started with."""
    seen: list[Settings] = []

    def up(settings: Settings, ready: Callable[[Running], None]) -> int:
        seen.append(settings)
        ready(Running("http://127.0.0.1:8080", settings.engine, settings.data))
        return 3

    server = ModuleType("clary.server.supervisor")
    server.up = up  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "clary.server.supervisor", server)
    return seen


def test_every_setting_is_a_flag_with_its_default_and_variable(run: Run) -> None:
    text = " ".join(run("up", "--help").stdout.split())
    for name, setting in TABLE.items():
        if name in TABLES:  # in the file only
            assert flag(name) not in text
            continue
        assert f" {flag(name)} " in text
        assert f"{variable(name)}]" in text
        assert setting.default in ("", ()) or f"[default {setting.default}; " in text


def test_flags_become_settings_and_the_exit_code_is_the_server_s(
    run: Run, served: list[Settings], tmp_path: Path
) -> None:
    result = run("up", "--port", 0, "--data", tmp_path, "--model-timeout", 1.5, "--file-roots", "/a:/b")
    assert result.exit_code == 3
    (settings,) = served
    assert (settings.port, settings.data, settings.model_timeout) == (0, tmp_path, 1.5)
    assert settings.file_roots == (Path("/a"), Path("/b"))
    assert f'eval "$(clary env --data {tmp_path})"' in result.stdout


def test_a_file_gives_what_no_flag_gives(run: Run, served: list[Settings], tmp_path: Path) -> None:
    file = tmp_path / "clary.toml"
    file.write_text('region = "eu-west-1"\nport = 1\n')
    run("up", "--config", file, "--port", 2)
    assert (served[0].region, served[0].port) == ("eu-west-1", 2)


def test_a_yes_or_no_is_a_bare_flag_a_word_in_the_environment_and_a_boolean_in_the_file(
    run: Run, served: list[Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "clary.toml"
    file.write_text("defer-checks = true\n")
    run("up", "--data", tmp_path)
    run("up", "--data", tmp_path, "--defer-checks")
    run("up", "--data", tmp_path, "--config", file)
    monkeypatch.setenv("CLARY_DEFER_CHECKS", "no")
    run("up", "--data", tmp_path, "--config", file)
    assert [settings.defer_checks for settings in served] == [False, True, True, False]
    monkeypatch.setenv("CLARY_DEFER_CHECKS", "perhaps")
    assert "--defer-checks" in run("up", "--data", tmp_path).output


@pytest.mark.parametrize("value", [True, False])
def test_children_get_the_same_yes_or_no(value: bool) -> None:
    there = load(environment={"CLARY_DEFER_CHECKS": str(value)})
    assert inherited(to_environment(there)).defer_checks is value


def test_the_banner_says_where_it_is_and_what_to_type_next() -> None:
    text = banner(Running("http://127.0.0.1:9", "process", Path("~/.clary").expanduser()))  # type: ignore[arg-type]
    assert "http://127.0.0.1:9" in text and "process" in text and "000000000000 in us-east-1" in text
    assert 'eval "$(clary env)"\n    aws sagemaker list-endpoints\n    clary demo\n' in text
