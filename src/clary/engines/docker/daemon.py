"""The door to Docker: finding it, and its errors in our words."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import aiohttp
from aiodocker import Docker, DockerError

from clary.errors import LaunchFailure, SettingsError, Transient

_SOCKET = "unix://"
_NOWHERE = "no Docker engine was found: DOCKER_HOST is not set, and there is no socket at the usual places"
_REFUSALS: Mapping[str, str] = {
    "could not select device driver": (
        ". The instance type has GPUs, which this Docker cannot give to a container: install NVIDIA's container "
        "toolkit and restart Docker, or take another instance type"
    ),
    "unable to find user": "",
    "unable to find group": "",
    "environment variable value can't contain null": "",
    "executable file not found": "",
    "OCI permission denied": "",
}
"""Refusals that Docker (the first four) and Podman (the others) give the status of their own failures, 500; and what to
add to them."""
_LONGEST = aiohttp.ClientTimeout(total=60)
"""For one answer of Docker's. What takes longer by nature (stopping, following) says so."""


async def address() -> str:
    """Give the URL to which DOCKER_HOST, Docker's context or the usual sockets, Podman's last, lead. It asks nobody.

    Raises Transient where there is none.
    """
    try:
        found = Docker(timeout=_LONGEST)
    except (AssertionError, ValueError, DockerError) as error:
        podman = next((place for place in _podmans() if place.is_socket()), None)
        if podman is None:
            raise Transient(str(error) or _NOWHERE, retry_after=2.0) from error
        return f"{_SOCKET}{podman}"
    connector = found.connector
    await found.close()
    return f"{_SOCKET}{connector.path}" if isinstance(connector, aiohttp.UnixConnector) else str(found.docker_host)


async def connect() -> Docker:
    """Give a client of the engine at `address`. It asks nothing yet.

    Raises Transient where there is none, SettingsError where it is on another machine.
    """
    place = await address()
    if not place.startswith(_SOCKET):
        # Its containers could not mount the models, which are files of this machine.
        raise SettingsError(f"--engine docker: {place} is not a unix socket on this machine")
    # Each container's log is followed on a connection of its own: the default limit of a hundred would end in silence.
    # The host in the URL is one for show, as aiodocker has it for its own sockets.
    connector = aiohttp.UnixConnector(place.removeprefix(_SOCKET), limit=0)
    return Docker("unix://localhost", connector=connector, timeout=_LONGEST)


def _podmans() -> list[Path]:
    """Give where Podman listens: for root, and for a user."""
    own = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return [Path(runtime) / "podman" / "podman.sock" for runtime in ("/run", own)]


async def close(docker: Docker) -> None:
    """Close a client of `connect`, with its connections."""
    await docker.close()
    await docker.connector.close()


async def version() -> str | None:
    """Give the version of the Docker engine that answers here; None where none does. For `--engine auto`."""
    try:
        docker = await connect()
    except (Transient, SettingsError):
        return None
    try:
        with translated("asking for the version"):
            return str((await docker.version())["Version"])
    except (Transient, LaunchFailure):
        return None
    finally:
        await close(docker)


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn Docker's errors into LaunchFailure(create) where it refuses, and Transient where it cannot or is away.

    That something is missing (404) is transient: it was there, an image or a network, when it was looked for. So is
    that something is in the way (409): a container of the same name that is just being made or removed.
    """
    try:
        yield
    except DockerError as error:
        known = next((added for words, added in _REFUSALS.items() if words in error.message), None)
        if known is not None or (400 <= error.status < 500 and error.status not in (404, 409)):
            raise LaunchFailure("create", error.message + (known or "")) from error
        raise Transient(f"{doing}: {error.message}", retry_after=2.0) from error
    except (aiohttp.ClientError, OSError) as error:
        raise Transient(
            f"{doing}: Docker does not answer ({type(error).__name__}: {error})", retry_after=2.0
        ) from error


@contextlib.contextmanager
def gone_is_fine() -> Iterator[None]:
    """Let pass that there is no such container, or that it is being removed already (409)."""
    try:
        yield
    except DockerError as error:
        if error.status not in (404, 409):
            raise
