"""The table `[registries]` of the settings file: where a registry's images really are, and how to log in there."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from clary.engines.docker import references
from clary.engines.docker.logins import DockerLogins, Login
from clary.engines.docker.references import Reference
from clary.errors import LaunchFailure, SettingsError

_MEMBERS = ("rewrite", "mirror", "username", "password_file", "password_variable")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One key: a registry, or the part of one below a path. `*` in it stands for any part of a host's name."""

    key: str
    rewrite: str | None = None
    mirrors: tuple[str, ...] = ()
    username: str | None = None
    password: Callable[[], str] | None = None

    @property
    def host(self) -> str:
        return self.key.partition("/")[0]

    @property
    def prefix(self) -> str:
        return self.key.partition("/")[2]

    def below(self, reference: Reference) -> str | None:
        """Give the rest of the reference's path, beginning with a slash or empty; None where the key does not fit."""
        pattern = ".*".join(map(re.escape, self.host.split("*")))
        if not re.fullmatch(pattern, reference.registry, re.IGNORECASE):
            return None
        if not self.prefix:
            return f"/{reference.path}"
        rest = reference.path.removeprefix(self.prefix)
        return rest if rest != reference.path and rest[:1] in ("", "/") else None


class Registries:
    """The map. For a name counts the one key that says most about it: a host without `*`, then the longest path.

    Raises SettingsError for a table that cannot be meant.
    """

    def __init__(self, table: Mapping[str, Any], docker: DockerLogins | None = None) -> None:
        self._docker = docker or DockerLogins()
        entries = [_entry(key, value) for key, value in table.items()]
        self._entries = sorted(entries, key=lambda each: ("*" in each.host, -len(each.prefix), -len(each.host)))

    def places(self, reference: Reference) -> tuple[Reference, ...]:
        """Give where to ask for an image, in this order: mirrors, then where it really is."""
        entry, rest = self._find(reference)
        if entry is None:
            return (reference,)
        mirrors = tuple(_moved(reference, mirror, rest) for mirror in entry.mirrors)
        return (*mirrors, _moved(reference, entry.rewrite, rest) if entry.rewrite else reference)

    async def login(self, place: Reference) -> Login | None:
        """Find the credentials for a place: its own key's, else what Docker has; None: ask without.

        Raises LaunchFailure where a password is not where the table says, and logins.HelperFailed.
        """
        entry, _ = self._find(place)
        if entry is not None and entry.username is not None and entry.password is not None:
            return Login(f"[registries.{entry.key!r}]", entry.username, entry.password())
        return await self._docker.find(place.registry)

    def hosts(self) -> list[str]:
        """Give the registries that the table leads to."""
        places = [place for entry in self._entries for place in (*entry.mirrors, entry.rewrite) if place]
        return sorted({references.parse(f"{place}/any").registry for place in places})

    def _find(self, reference: Reference) -> tuple[_Entry, str] | tuple[None, str]:
        for entry in self._entries:
            if (rest := entry.below(reference)) is not None:
                return entry, rest
        return None, ""


def _moved(reference: Reference, base: str, rest: str) -> Reference:
    if not rest and "/" not in base:
        rest = f"/{reference.path}"  # the key is a whole repository, and a host alone is none
    place = references.parse(base + rest)
    return Reference(place.registry, place.path, reference.tag, reference.digest)


def _entry(key: str, value: Any) -> _Entry:
    where = f'[registries."{key}"]'
    if not re.fullmatch(r"[A-Za-z0-9.*:\[\]-]+(?:/[a-z0-9._/-]*[a-z0-9])?", key):
        raise SettingsError(f"{where}: a key is a registry's host, with or without a port and a path")
    table = {"rewrite": value} if isinstance(value, str) else value
    if not isinstance(table, Mapping):
        raise SettingsError(f"{where}: must be a place such as '127.0.0.1:5000/mirror', or a table")
    if "password" in table:
        raise SettingsError(f"{where}: name a password_file or a password_variable; settings hold no passwords")
    if unknown := sorted(set(table) - set(_MEMBERS)):
        raise SettingsError(f"{where}: {unknown[0]} is not known; there are {', '.join(_MEMBERS)}")
    mirror, rewrite = table.get("mirror", []), table.get("rewrite")
    mirrors = tuple(mirror) if isinstance(mirror, list) else (mirror,)
    for place in (*mirrors, *([] if rewrite is None else [rewrite])):
        _check_place(where, place)
    _check_login(where, table)
    return _Entry(key, rewrite, mirrors, table.get("username"), _password(where, table))


def _check_place(where: str, place: object) -> None:
    wrong = f"{where}: {place!r} is not a registry's host, with or without a path"
    if not isinstance(place, str):
        raise SettingsError(wrong)
    try:
        # A host alone is a place too: what is below the key goes to the same path there.
        references.parse(f"{place}/any")
    except LaunchFailure as error:
        raise SettingsError(wrong) from error


def _check_login(where: str, table: Mapping[str, Any]) -> None:
    passwords = [name for name in ("password_file", "password_variable") if name in table]
    if len(passwords) != ("username" in table):
        raise SettingsError(f"{where}: username goes with one of password_file and password_variable")
    if not all(isinstance(table.get(name, ""), str) for name in ("username", *passwords)):
        raise SettingsError(f"{where}: username, password_file and password_variable are texts")
    if "username" in table and "rewrite" in table:
        host = str(table["rewrite"]).partition("/")[0]
        raise SettingsError(
            f'{where}: nobody logs in there, as it is rewritten; write username in [registries."{host}"]'
        )


def _password(where: str, table: Mapping[str, Any]) -> Callable[[], str] | None:
    """Give what reads the password at each pull, so that a new one counts at once."""
    if "password_file" in table:
        return partial(_from_file, where, Path(table["password_file"]).expanduser())
    if "password_variable" in table:
        return partial(_from_variable, where, table["password_variable"])
    return None


def _from_file(where: str, path: Path) -> str:
    try:
        return path.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = f"The password_file {path} of {where} cannot be read ({type(error).__name__})."
        raise LaunchFailure("image", f"{why} Make it readable for the user that Clary runs as.") from error


def _from_variable(where: str, name: str) -> str:
    if name not in os.environ:
        raise LaunchFailure("image", f"The password_variable {name} of {where} is not set where Clary runs.")
    return os.environ[name]
