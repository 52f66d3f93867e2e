"""The key pair of this Clary: made once, kept in the data folder in the format of AWS's own credentials file. And how
other keys are made.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import secrets
import string
from dataclasses import dataclass, field
from pathlib import Path

from clary.errors import SettingsError

_SESSION_KEY = "session-key"
_ID_ALPHABET = string.ascii_uppercase + "234567"
_SECRET_ALPHABET = string.ascii_letters + string.digits + "+/"


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key and its secret."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


def load_or_create(path: Path, given: Credentials | None) -> Credentials:
    """Give the key pair: the given one, else the stored one, else a new one. What is given is stored too.

    The file is readable by its owner alone. Raises SettingsError where it cannot be understood.
    """
    if given is not None:
        _write(path, given)
        return given
    stored = read(path)
    if stored is not None:
        return stored
    made = new_key()
    _write(path, made)
    return made


def new_key() -> Credentials:
    """Make a key pair."""
    return Credentials(new_id("AKIA"), "".join(secrets.choice(_SECRET_ALPHABET) for _ in range(40)))


def new_id(prefix: str) -> str:
    """Make an identifier as IAM's are: four letters that say of what, and sixteen that nobody guesses."""
    return prefix + "".join(secrets.choice(_ID_ALPHABET) for _ in range(16))


def session_key(data: Path) -> bytes:
    """Give the key that session tokens are made and verified with; it is made once, in a file for its owner alone.

    Whoever removes the file ends every session. Several processes may ask at once.
    """
    path = data / _SESSION_KEY
    if not path.exists():
        data.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(temporary)  # of two that make one, the first wins
        temporary.unlink()
    return path.read_bytes()


def read(path: Path) -> Credentials | None:
    """Give the stored key pair, None where there is none yet."""
    file = configparser.ConfigParser(interpolation=None)
    try:
        if not file.read(path):
            return None
        section = file["default"]
        return Credentials(section["aws_access_key_id"], section["aws_secret_access_key"])
    except (configparser.Error, KeyError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not a credentials file ({error}); remove it to have a new key pair") from error


def _write(path: Path, pair: Credentials) -> None:
    text = f"[default]\naws_access_key_id = {pair.access_key_id}\naws_secret_access_key = {pair.secret_access_key}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    temporary.rename(path)
