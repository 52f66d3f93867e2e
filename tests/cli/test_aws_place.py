"""Where a command goes, and as whom."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clary.cli.aws import place, shapes
from clary.cli.aws.command import main
from clary.cli.aws.failures import ConfigurationError, UsageError
from clary.cli.aws.profile import Profile
from clary.credentials import Credentials

KEYS = {"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s"}


def options(**given: Any) -> Any:
    return SimpleNamespace(**{"endpoint_url": None, "region": None, "profile": None, "no_sign_request": False, **given})


def described(profile: Profile, **given: Any) -> place.Place:
    return place.find(shapes.operation("sagemaker", "describe-model"), options(**given), profile)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "config").write_text(
        "[default]\nregion = eu-west-1\nendpoint_url = http://config\n"
        "[profile other]\nregion = eu-west-2\n[profile assumed]\nrole_arn = arn\nsource_profile = other\n"
    )
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = FILE\naws_secret_access_key = s\n"
        "[other]\naws_access_key_id = OTHER\naws_secret_access_key = s\n"
        "[temporary]\naws_access_key_id = T\naws_secret_access_key = s\naws_session_token = t\n"
    )
    return {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }


def test_the_keys_of_the_environment_win_unless_a_profile_is_chosen(files: dict[str, str]) -> None:
    assert Profile(None, files).credentials == Credentials("FILE", "s")
    assert Profile(None, files | KEYS).credentials == Credentials("ENV", "s")
    assert Profile(None, files | KEYS | {"AWS_PROFILE": "other"}).credentials == Credentials("ENV", "s")
    assert Profile("other", files | KEYS).credentials == Credentials("OTHER", "s")


def test_the_region_of_the_environment_wins(files: dict[str, str]) -> None:
    assert Profile(None, files).region == "eu-west-1"
    assert Profile("other", files).region == "eu-west-2"
    assert Profile(None, files | {"AWS_DEFAULT_REGION": "a"}).region == "a"
    assert Profile(None, files | {"AWS_DEFAULT_REGION": "a", "AWS_REGION": "b"}).region == "b"


@pytest.mark.parametrize(
    ("name", "plain"), [(None, True), ("other", True), ("assumed", False), ("temporary", False), ("absent", False)]
)
def test_a_profile_is_plain_when_keys_and_a_region_are_all_it_has(
    name: str | None, plain: bool, files: dict[str, str]
) -> None:
    assert Profile(name, files).is_plain is plain


def test_a_file_that_cannot_be_read_is_botocores_to_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config").write_text("no section\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ["describe-model", "--model-name", "m", "--endpoint-url", "http://127.0.0.1:9", "--region", "us-east-1"]
    assert main("sagemaker", words) == 253
    assert "Unable to parse config file" in capsys.readouterr().err


def test_the_nearest_endpoint_wins(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    profile = Profile(None, files)
    assert described(profile).endpoint == "http://config"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all")
    assert described(profile).endpoint == "http://all"
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER", "http://one")
    assert described(profile).endpoint == "http://one"
    found = described(profile, endpoint_url="http://given", region="us-west-1")
    assert found == place.Place("http://given", "us-west-1", Credentials("FILE", "s"))


def test_configured_endpoints_can_be_ignored_and_then_a_clary_must_run(
    files: dict[str, str], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    monkeypatch.setenv("CLARY_DATA", str(data))
    with pytest.raises(ConfigurationError, match=f"no Clary is running on {data}"):
        described(Profile(None, files))


def test_an_unsigned_request_has_no_keys(files: dict[str, str]) -> None:
    found = described(Profile(None, files), no_sign_request=True)
    assert (found.credentials, found.signed) == (None, False)


def test_an_endpoint_needs_a_scheme(files: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="scheme is missing"):
        described(Profile(None, files), endpoint_url="localhost:8080")
