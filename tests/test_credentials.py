"""The key pair: made once, kept private, replaced only when one is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from clary.credentials import Credentials, load_or_create, read
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
