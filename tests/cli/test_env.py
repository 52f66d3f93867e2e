"""env: what `eval` gets, and what it gets when nothing runs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from click.testing import Result

from tests.cli.conftest import FakeClary

Run = Callable[..., Result]


def test_a_shell_that_evaluates_it_has_the_variables(clary: FakeClary, run: Run) -> None:
    exports = run("env", "--data", clary.data, "--shell", "sh").stdout
    names = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    script = "set -eu; AWS_SESSION_TOKEN=old; " + 'eval "$1"; ' + "".join(f'echo "${name}"; ' for name in names)
    script += 'echo "${AWS_SESSION_TOKEN-gone}"'
    seen = subprocess.run(["sh", "-c", script, "sh", exports], capture_output=True, text=True, check=True).stdout
    assert seen.splitlines() == [clary.url, "eu-west-1", "eu-west-1", "AKIATEST", "a/b'c%d", "gone"]


def test_fish_has_its_own_syntax_and_quotes(clary: FakeClary, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run("env", "--data", clary.data, "--shell", "fish").stdout.splitlines()
    assert f"set -gx AWS_ENDPOINT_URL '{clary.url}'" in lines
    assert r"set -gx AWS_SECRET_ACCESS_KEY 'a/b\'c%d'" in lines
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert run("env", "--data", clary.data).stdout.splitlines() == lines


def test_the_folder_may_come_from_the_environment(clary: FakeClary, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLARY_DATA", str(clary.data))
    assert clary.url in run("env").stdout


def test_nothing_running_is_an_error_that_says_what_to_do(run: Run, data: object) -> None:
    result = run("env", "--data", data)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"`clary up --data {data}`" in result.stderr


def test_what_a_killed_clary_left_behind_is_not_taken_for_running(clary: FakeClary, run: Run) -> None:
    record = clary.data / "run" / "clary.json"
    record.write_text(record.read_text().replace(str(clary.url), "http://127.0.0.1:1"))
    assert run("env", "--data", clary.data).exit_code == 1
    record.write_text("{half a rec")
    assert run("env", "--data", clary.data).exit_code == 1
