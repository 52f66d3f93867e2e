"""The table `[registries]`: which key counts, where it leads, whose login it gives, and what cannot be meant."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from clary.engines.docker.logins import DockerLogins
from clary.engines.docker.references import parse
from clary.engines.docker.registries import Registries
from clary.errors import LaunchFailure, SettingsError

ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com"


def places(table: dict[str, Any], image: str) -> list[str]:
    return [str(place) for place in Registries(table).places(parse(image))]


@pytest.mark.parametrize(
    ("table", "image", "where"),
    [
        ({}, "a.b/c:1", ["a.b/c:1"]),
        ({ECR: "127.0.0.1:5000/mirror"}, f"{ECR}/team/m:1", ["127.0.0.1:5000/mirror/team/m:1"]),
        ({"*.dkr.ecr.*.amazonaws.com": "127.0.0.1:5000"}, f"{ECR}/m:1", ["127.0.0.1:5000/m:1"]),
        (
            {"*.dkr.ecr.*.amazonaws.com": "127.0.0.1:5000"},
            "a.dkr.ecr.b.example.com/m:1",
            ["a.dkr.ecr.b.example.com/m:1"],
        ),
        ({"docker.io": {"rewrite": "q.io"}}, "nginx", ["q.io/library/nginx:latest"]),
        ({"docker.io/library": "q.io/official"}, "nginx:2", ["q.io/official/nginx:2"]),
        ({"a.b/c": "q.io/x"}, "a.b/cd:1", ["a.b/cd:1"]),
        ({"a.b/c": "q.io/x"}, "a.b/c:1", ["q.io/x:1"]),
        ({"a.b/c": "q.io"}, "a.b/c:1", ["q.io/c:1"]),
        ({"a.b": {"mirror": "m.io"}}, "a.b/c:1", ["m.io/c:1", "a.b/c:1"]),
        ({"a.b": {"mirror": ["m.io/x", "n.io"]}}, "a.b/c:1", ["m.io/x/c:1", "n.io/c:1", "a.b/c:1"]),
        ({"a.b": {"mirror": "m.io", "rewrite": "r.io"}}, "a.b/c:1", ["m.io/c:1", "r.io/c:1"]),
        ({"*": "q.io"}, "localhost:5000/c:1", ["q.io/c:1"]),
        ({"A.b": "q.io"}, "a.B/c:1", ["q.io/c:1"]),
    ],
    ids=str,
)
def test_where_an_image_is(table: dict[str, Any], image: str, where: list[str]) -> None:
    assert places(table, image) == where


def test_a_digest_goes_along() -> None:
    digest = f"sha256:{'b' * 64}"
    assert places({"a.b": "q.io"}, f"a.b/c@{digest}") == [f"q.io/c@{digest}"]


def test_the_key_that_says_most_counts_alone() -> None:
    table = {"*": "any.io", "*.b": "wild.io", "a.b": "host.io", "a.b/team": "team.io", "*.b/team/deep": "deep.io"}
    assert places(table, "a.b/team/deep/m:1") == ["team.io/deep/m:1"]
    assert places(table, "a.b/other:1") == ["host.io/other:1"]
    assert places(table, "c.b/team/deep/m:1") == ["deep.io/m:1"]
    assert places(table, "c.b/m:1") == ["wild.io/m:1"]
    assert places(table, "d.e/m:1") == ["any.io/m:1"]


def test_the_hosts_that_it_leads_to() -> None:
    table = {"a.b": {"mirror": "m.io/x", "rewrite": "r.io:5000/y"}, "c.d": "team/x", "e.f": {"mirror": "m.io"}}
    assert Registries(table).hosts() == ["docker.io", "m.io", "r.io:5000"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"a.b": 1}, "must be a place such as"),
        ({"a b": "q.io"}, "a key is a registry's host"),
        ({"a.b": {"rewrites": "q.io"}}, "rewrites is not known"),
        ({"a.b": "UPPER/x"}, "'UPPER/x' is not a registry's host"),
        ({"a.b": {"mirror": 3}}, "3 is not a registry's host"),
        ({"a.b": ""}, "'' is not a registry's host"),
        ({"a.b": {"username": "u", "password": "p"}}, "settings hold no passwords"),
        ({"a.b": {"username": "u"}}, "goes with one of password_file and password_variable"),
        ({"a.b": {"password_file": "/x"}}, "username goes with"),
        ({"a.b": {"username": "u", "password_file": "/x", "password_variable": "Y"}}, "username goes with"),
        ({"a.b": {"username": "u", "password_file": 3}}, "are texts"),
        (
            {"a.b": {"username": "u", "password_file": "/x", "rewrite": "q.io/x"}},
            r'write username in \[registries."q.io"',
        ),
    ],
    ids=str,
)
def test_a_table_that_cannot_be_meant_is_refused_at_the_start(table: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as raised:
        Registries(table)
    assert next(iter(table)) in str(raised.value)


# -- logins -----------------------------------------------------------------------------------------------------------


async def test_a_password_is_read_when_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    table = {
        "a.b": {"username": "u", "password_file": str(file)},
        "c.d": {"username": "v", "password_variable": "REGISTRY_PASSWORD"},
    }
    registries = Registries(table, DockerLogins(tmp_path))
    with pytest.raises(LaunchFailure, match="cannot be read"):
        await registries.login(parse("a.b/x"))
    with pytest.raises(LaunchFailure, match=r"REGISTRY_PASSWORD of .* is not set"):
        await registries.login(parse("c.d/x"))
    for password in ("one", "two"):
        file.write_text(f"{password}\n")
        monkeypatch.setenv("REGISTRY_PASSWORD", password)
        for image in ("a.b/x", "c.d/x"):
            login = await registries.login(parse(image))
            assert login is not None
            assert login.password == password


async def test_a_place_that_is_led_to_has_the_login_of_its_own_key(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p")
    table = {"a.b": "q.io/mirror", "q.io": {"username": "u", "password_file": str(tmp_path / "password")}}
    registries = Registries(table, DockerLogins(tmp_path))
    (place,) = registries.places(parse("a.b/x:1"))
    login = await registries.login(place)
    assert login is not None
    assert (login.username, login.source) == ("u", "[registries.'q.io']")


async def test_without_one_docker_is_asked(tmp_path: Path) -> None:
    auth = base64.b64encode(b"u:p").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"a.b": {"auth": auth}}}))
    registries = Registries({"*": {"mirror": "m.io"}}, DockerLogins(tmp_path))
    login = await registries.login(parse("a.b/x"))
    assert login is not None
    assert (login.username, login.password) == ("u", "p")
    assert await registries.login(parse("m.io/x")) is None
