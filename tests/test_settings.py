"""One table, three sources: precedence, conversion, and errors that name the setting and what would be right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clary.errors import SettingsError
from clary.settings import TABLE, inherited, load, to_environment


def test_defaults_alone_are_valid(tmp_path: Path) -> None:
    settings = load(environment={"CLARY_DATA": str(tmp_path)})
    assert (settings.host, settings.port, settings.account_id) == ("127.0.0.1", 8080, "000000000000")


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('port = 1\nregion = "eu-west-1"\naccount-id = "111111111111"\n')
    environment = {"CLARY_DATA": str(tmp_path), "CLARY_PORT": "2", "CLARY_REGION": "eu-west-2"}
    settings = load({"port": "3", "host": None}, environment)
    assert (settings.port, settings.region, settings.account_id) == (3, "eu-west-2", "111111111111")


def test_a_file_that_is_named_is_read_instead(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("port = 7")
    assert load(environment={"CLARY_CONFIG": str(tmp_path / "mine.toml")}).port == 7
    with pytest.raises(SettingsError, match="does not exist"):
        load(environment={"CLARY_CONFIG": str(tmp_path / "none.toml")})


@pytest.mark.parametrize(
    ("flags", "environment", "words"),
    [
        ({"port": "http"}, {}, "--port .command line.: 'http' is not valid"),
        ({"port": "70000"}, {}, "--port: must be 0 to 65535"),
        ({"account_id": "12"}, {}, "--account-id: must be twelve digits"),
        ({"auth": "none"}, {}, "--auth: must be sigv4 or off"),
        ({"auth": "off", "host": "0.0.0.0"}, {}, "--auth: must be sigv4 when --host is not a loopback address"),
        ({"access_key_id": "AKIA"}, {}, "--access-key-id: must be given together with --secret-access-key"),
        ({"s3_endpoint": "nowhere"}, {}, "--s3-endpoint"),
        ({"lambda_endpoint": "lambda"}, {}, "--lambda-endpoint"),
        ({}, {"CLARY_PROT": "1"}, "CLARY_PROT is not a setting"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, flags: dict[str, str], environment: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load(flags, {"CLARY_DATA": str(tmp_path), **environment})


@pytest.mark.parametrize(
    ("text", "words"), [("prot = 1", "prot is not a setting"), ("port = ", "cannot be read"), ("port = true", "--port")]
)
def test_a_wrong_file_is_an_error_at_start(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(SettingsError, match=words):
        load(environment={"CLARY_DATA": str(tmp_path)})


def test_a_table_is_given_in_the_file_alone(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[registries]\n"a.b" = "c.d/e"\n')
    settings = load(environment={"CLARY_DATA": str(tmp_path)})
    assert settings.registries == {"a.b": "c.d/e"}
    assert inherited(to_environment(settings)) == settings
    with pytest.raises(SettingsError, match="CLARY_REGISTRIES is not a setting"):
        load(environment={"CLARY_DATA": str(tmp_path), "CLARY_REGISTRIES": "{}"})
    (tmp_path / "config.toml").write_text("registries = 'a.b'")
    with pytest.raises(SettingsError, match=r"\[registries\] .*: must be a table"):
        load(environment={"CLARY_DATA": str(tmp_path)})
    assert load(environment={"CLARY_DATA": "/nonexistent"}).registries == {}


def test_children_get_the_same_settings_through_their_environment(tmp_path: Path) -> None:
    flags = {"port": "5", "file_roots": f"{tmp_path}:/srv", "data": str(tmp_path), "model_timeout": "1.5"}
    settings = load(flags, {})
    assert inherited(to_environment(settings)) == settings


def test_children_read_no_file_and_know_empty_from_missing(tmp_path: Path) -> None:
    settings = load({"data": str(tmp_path), "s3_endpoint": "", "file_roots": ""}, {})
    (tmp_path / "config.toml").write_text('s3-endpoint = "http://elsewhere"\nport = 1\nnonsense = 1\n')
    assert inherited(to_environment(settings)) == settings


def test_a_folder_with_a_colon_in_its_name_stays_one_for_children(tmp_path: Path) -> None:
    settings = replace(load({"data": str(tmp_path)}, {}), file_roots=(tmp_path / "a:b",))
    assert inherited(to_environment(settings)) == settings


def test_a_role_without_a_supervisor_is_refused() -> None:
    with pytest.raises(SettingsError, match="only `clary up` starts this"):
        inherited({})


@pytest.mark.parametrize("name", ["secret_access_key", "s3_secret_access_key"])
def test_the_flags_of_secrets_warn_of_ps(name: str) -> None:
    assert "`ps` shows flags" in TABLE[name].metadata["help"]


def test_every_setting_says_what_it_is() -> None:
    for name, setting in TABLE.items():
        assert setting.metadata["help"].endswith("."), name


def test_networks_are_names(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[networks]\nsubnet-1 = "inner"\n')
    settings = load(environment={"CLARY_DATA": str(tmp_path)})
    assert settings.networks == {"subnet-1": "inner"}
    assert inherited(to_environment(settings)).networks == {"subnet-1": "inner"}
    (tmp_path / "config.toml").write_text("[networks]\nsubnet-1 = 1\n")
    with pytest.raises(SettingsError, match=r"\[networks\]: subnet-1 must be the name of a Docker network, not 1"):
        load(environment={"CLARY_DATA": str(tmp_path)})
