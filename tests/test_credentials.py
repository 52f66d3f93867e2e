"""The key pair: made once, kept private, replaced only when one is given."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clary.credentials import Credentials, load_or_create, new_id, new_key, read, session_key
from clary.errors import SettingsError


def test_a_pair_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "credentials"
    made = load_or_create(path, None)
    assert made.access_key_id.startswith("AKIA") and len(made.access_key_id) == 20
    assert len(made.secret_access_key) == 40
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_create(path, None) == made == read(path)


def test_a_given_pair_is_used_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    load_or_create(path, None)
    given = Credentials("AKIAMINE", "50% secret")
    assert load_or_create(path, given) == given == read(path)


def test_a_file_that_is_something_else_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text("[other]\n")
    with pytest.raises(SettingsError, match="remove it to have a new key pair"):
        load_or_create(path, None)
    assert path.read_text() == "[other]\n"


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    assert "hush" not in repr(Credentials("AKIA", "hush"))


def test_the_session_key_is_made_once_and_private(tmp_path: Path) -> None:
    key = session_key(tmp_path / "data")
    assert len(key) == 32
    assert session_key(tmp_path / "data") == key
    assert session_key(tmp_path / "other") != key
    assert (tmp_path / "data" / "session-key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["session-key"]


def test_ids_and_keys_look_like_iams() -> None:
    pair = new_key()
    assert re.fullmatch(r"AKIA[A-Z2-7]{16}", pair.access_key_id)
    assert re.fullmatch(r"[A-Za-z0-9+/]{40}", pair.secret_access_key)
    assert new_id("AROA") != new_id("AROA")
