"""What a registry is told about who asks, and Docker's own notes of it: config.json and the credential helpers."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clary.engines.docker.references import HUB

_HUB_KEY = "https://index.docker.io/v1/"
"""What Docker files Docker Hub's credentials under."""
_TOKEN_USER = "<token>"  # noqa: S105 - the helpers' protocol: what follows is an identity token, no password
_HELPER_PATIENCE = 30.0
_LONGEST_COMPLAINT = 200


class HelperFailed(Exception):
    """Docker's configuration leads to no credentials; the message says at which step."""


@dataclass(frozen=True, slots=True)
class Login:
    """Credentials for one registry. Its text never shows them."""

    source: str
    """Who gave it, for people: `Docker's config.json`."""
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def header(self, registry: str) -> str:
        """Give the value of X-Registry-Auth."""
        given = {"serveraddress": _key(registry)}
        if self.identity_token:
            given["identitytoken"] = self.identity_token
        else:
            given |= {"username": self.username, "password": self.password}
        return base64.urlsafe_b64encode(json.dumps(given).encode()).decode()


class DockerLogins:
    """Reads what `docker login` wrote, anew at each question: it may be renewed at any time."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file = (folder or Path(os.environ.get("DOCKER_CONFIG") or "~/.docker").expanduser()) / "config.json"

    async def find(self, registry: str) -> Login | None:
        """Give Docker's credentials for a registry: of its own helper, of the common one, or of the file.

        Raises HelperFailed where they cannot be had although they are configured.
        """
        config = self._read()
        key = _key(registry)
        helper = _table(config, "credHelpers").get(registry) or config.get("credsStore")
        if helper:
            return await _ask(str(helper), key)
        for server, entry in _table(config, "auths").items():
            if (server == key or _host(server) == registry) and isinstance(entry, Mapping):
                return self._login(entry)
        return None

    def _read(self) -> Mapping[str, Any]:
        try:
            config = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise HelperFailed(f"{self._file} cannot be read: {type(error).__name__}") from error
        return config if isinstance(config, Mapping) else {}

    def _login(self, entry: Mapping[str, Any]) -> Login | None:
        source = f"Docker's {self._file.name}"
        if entry.get("identitytoken"):
            return Login(source, identity_token=str(entry["identitytoken"]))
        username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
        if entry.get("auth"):
            try:
                username, _, password = base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError) as error:
                raise HelperFailed(f"{self._file} has an auth that is not base64") from error
        return Login(source, username, password) if username else None


def _key(registry: str) -> str:
    return _HUB_KEY if registry == HUB else registry


def _table(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = config.get(name)
    return table if isinstance(table, Mapping) else {}


def _host(server: str) -> str:
    return server.removeprefix("https://").removeprefix("http://").partition("/")[0]


async def _ask(helper: str, key: str) -> Login | None:
    """Ask a credential helper; None where it knows nothing. Its protocol: the server in, JSON out."""
    program = f"docker-credential-{helper}"
    try:
        process = await asyncio.create_subprocess_exec(
            program, "get",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        raise HelperFailed(f"the credential helper {program} cannot be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(_HELPER_PATIENCE):
            answer, _ = await process.communicate(key.encode())
    except TimeoutError:
        raise HelperFailed(f"the credential helper {program} did not answer in {_HELPER_PATIENCE:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        complaint = answer.decode(errors="replace").strip()
        if "credentials not found" in complaint:
            return None
        raise HelperFailed(f"the credential helper {program} failed: {complaint[:_LONGEST_COMPLAINT]}")
    try:
        given = json.loads(answer)
        username, secret = str(given["Username"]), str(given["Secret"])
    except (ValueError, KeyError, TypeError):
        # Without the cause: its text holds the answer, and the answer the secret.
        raise HelperFailed(f"the credential helper {program} gave no Username and Secret") from None
    if username == _TOKEN_USER:
        return Login(program, identity_token=secret)
    return Login(program, username, secret)
