"""Credentials as `docker login` leaves them: in the file, and in helpers, which are programs."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clary.engines.docker import logins
from clary.engines.docker.logins import DockerLogins, HelperFailed, Login

Helper = Callable[[str, str], None]


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Helper:
    """Makes a credential helper of a shell script."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def make(name: str, script: str) -> None:
        program = tmp_path / f"docker-credential-{name}"
        program.write_text(f"#!/bin/sh\nread server\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    return make


def configured(folder: Path, **config: Any) -> DockerLogins:
    (folder / "config.json").write_text(json.dumps(config))
    return DockerLogins(folder)


def header(login: Login | None, registry: str) -> dict[str, str]:
    assert login is not None
    given: dict[str, str] = json.loads(base64.urlsafe_b64decode(login.header(registry)))
    return given


AUTH = base64.b64encode(b"ada:pass:word").decode()


@pytest.mark.parametrize("key", ["reg.local:5000", "https://reg.local:5000", "http://reg.local:5000/v1/"])
async def test_the_file_is_read_whatever_the_form_of_its_key(tmp_path: Path, key: str) -> None:
    here = configured(tmp_path, auths={"other.local": {"auth": "eDp5"}, key: {"auth": AUTH}})
    assert header(await here.find("reg.local:5000"), "reg.local:5000") == {
        "serveraddress": "reg.local:5000",
        "username": "ada",
        "password": "pass:word",
    }


async def test_docker_hub_has_a_key_of_its_own(tmp_path: Path) -> None:
    here = configured(tmp_path, auths={"https://index.docker.io/v1/": {"auth": AUTH}})
    assert header(await here.find("docker.io"), "docker.io")["serveraddress"] == "https://index.docker.io/v1/"


async def test_an_identity_token_goes_in_place_of_a_password(tmp_path: Path) -> None:
    here = configured(tmp_path, auths={"reg.local": {"auth": "", "identitytoken": "t"}})
    assert header(await here.find("reg.local"), "reg.local") == {"serveraddress": "reg.local", "identitytoken": "t"}


@pytest.mark.parametrize("config", [{}, {"auths": {}}, {"auths": {"reg.local": {}}}, {"auths": None}])
async def test_nothing_there_is_no_login(tmp_path: Path, config: dict[str, Any]) -> None:
    assert await configured(tmp_path, **config).find("reg.local") is None
    assert await DockerLogins(tmp_path / "none").find("reg.local") is None


async def test_a_helper_of_the_registry_goes_before_the_common_one(tmp_path: Path, helper: Helper) -> None:
    helper("own", """echo '{"ServerURL": "'$server'", "Username": "'$1'", "Secret": "'$server'"}'""")
    helper("common", """echo '{"Username": "<token>", "Secret": "t"}'""")
    here = configured(tmp_path, credHelpers={"reg.local": "own"}, credsStore="common", auths={"reg.local": {}})
    own = await here.find("reg.local")
    assert own is not None
    assert (own.source, own.username, own.password) == ("docker-credential-own", "get", "reg.local")
    assert header(await here.find("other.local"), "other.local")["identitytoken"] == "t"


async def test_a_helper_that_knows_nothing_is_no_login(tmp_path: Path, helper: Helper) -> None:
    helper("empty", "echo credentials not found in native keychain; exit 1")
    assert await configured(tmp_path, credsStore="empty").find("reg.local") is None


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, "cannot be run: No such file"),
        ("echo no keyring; exit 1", "failed: no keyring"),
        ('echo \'{"Secret": "hush"}\'', "gave no Username and Secret"),
        ("echo hush", "gave no Username and Secret"),
        ("exec sleep 60", "did not answer in 0.2 s"),
    ],
)
async def test_a_helper_that_fails_says_how_and_never_what_it_gave(
    tmp_path: Path, helper: Helper, monkeypatch: pytest.MonkeyPatch, script: str | None, words: str
) -> None:
    monkeypatch.setattr(logins, "_HELPER_PATIENCE", 0.2)
    if script is not None:
        if "sleep" not in script:
            monkeypatch.setattr(logins, "_HELPER_PATIENCE", 20.0)
        helper("bad", script)
    with pytest.raises(HelperFailed, match=words) as raised:
        await configured(tmp_path, credsStore="bad").find("reg.local")
    assert "hush" not in str(raised.value)
    assert raised.value.__cause__ is None or "hush" not in str(raised.value.__cause__)


async def test_a_file_that_is_broken_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(HelperFailed, match=r"config.json cannot be read"):
        await DockerLogins(tmp_path).find("reg.local")
    with pytest.raises(HelperFailed, match="not base64"):
        await configured(tmp_path, auths={"reg.local": {"auth": "%"}}).find("reg.local")


def test_a_login_does_not_show_itself() -> None:
    text = repr(Login("the function", "ada", "hush", "quiet"))
    assert text == "Login(source='the function')"
