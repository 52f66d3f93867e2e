"""What several roles are built from: places, addresses, and the engine's entry point."""

from __future__ import annotations

import contextlib
import resource
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from clary.core.sessions import CREDENTIALS_HOST
from clary.errors import SettingsError
from clary.settings import Settings

if TYPE_CHECKING:
    from clary.engines.catalogue import Catalogue
    from clary.objects import Objects

AUTO = "auto"
"""Stands for an engine that is yet to be chosen."""


def control_socket(settings: Settings) -> Path:
    return settings.run / "control.sock"


def keys_file(settings: Settings) -> Path:
    """Give the file through which gateways learn who there is."""
    return settings.run / "keys.json"


def containers_port(settings: Settings) -> Path:
    """Give the file that keeps the port at which containers ask for credentials, and for all that these are good for.

    It is kept because they were told it when they were started: they are adopted, and `--port` may be another by then.
    """
    return settings.run / "containers.port"


def container_door(settings: Settings) -> tuple[str, int] | None:
    """Give the host and the port for containers; None where they get no credentials."""
    file = containers_port(settings)
    if settings.auth == "off" or not file.exists():  # without signatures there is nothing that credentials are for
        return None
    return containers_host(settings), int(file.read_text())


def containers_host(settings: Settings) -> str:
    """Give the address of this machine that containers reach: their loopback is their own."""
    return CREDENTIALS_HOST if settings.engine == "docker" else "127.0.0.1"


def url(settings: Settings) -> str:
    """Give the address by which this machine reaches the front door."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    return f"{'https' if settings.tls_cert else 'http'}://{host}:{settings.port}"


def engine_point(name: str) -> EntryPoint:
    """Find an engine. Raises SettingsError for an unknown name."""
    known = {point.name: point for point in entry_points(group="clary.engines")}
    if name not in known:
        raise SettingsError(f"--engine: must be one of {', '.join(sorted([AUTO, *known]))}, not {name!r}")
    return known[name]


def objects(settings: Settings) -> Objects:
    """Open what S3 URLs and file URLs point to."""
    from clary.objects import Objects
    from clary.server.bundled_s3 import BundledS3

    if settings.s3_endpoint:
        source = (settings.s3_endpoint, settings.s3_access_key_id, settings.s3_secret_access_key)
        return Objects(*source, settings.region, settings.file_roots)
    # The bundled one: what is read once and whole comes from its disk, everything else through the front door like
    # everybody's. Our own address is this machine: nobody stands between, whatever name the certificate is for.
    source = (url(settings), settings.access_key_id, settings.secret_access_key)
    found = Objects(*source, settings.region, settings.file_roots, own=True)
    found.on_disk = BundledS3(settings.objects)
    return found


def catalogue(settings: Settings) -> Catalogue:
    """Read the image catalogue. Raises SettingsError for a file that cannot be used."""
    from clary.engines.catalogue import Catalogue

    return Catalogue(Path(settings.catalogue) if settings.catalogue else None)


def allow_descriptors() -> None:
    """Raise the limit of open descriptors to what the system lets this process have.

    An invocation takes two, and the customary 1024 are there for programs that use `select`, which this one does not.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # systems may say "unlimited" and not mean it
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
