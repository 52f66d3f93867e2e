"""How the commands reach Clary: through the public API, as any AWS client does.

The Clary meant is the one that runs on a data folder; `AWS_ENDPOINT_URL` names another one, for those commands that
need no more than the API.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from clary import credentials, settings
from clary.credentials import Credentials
from clary.errors import ClaryError

ANSWERS_WITHIN = 1.0

data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Data folder of the Clary that is meant [default ~/.clary; CLARY_DATA].",
)


class NotRunning(ClaryError):
    """There is no Clary to talk to."""


@dataclass(frozen=True)
class Connection:
    """One Clary, as seen from a client."""

    url: str
    region: str
    credentials: Credentials | None = None
    """None: those that botocore finds, as for any AWS client."""
    data: Path | None = None
    """None where only the URL is known."""
    ca_bundle: str = ""
    """File with a certificate to trust besides those that this system knows; empty: none."""
    engine: str = ""
    """What runs its models; empty where only the URL is known."""
    registries: tuple[str, ...] | None = None
    """The hosts that its settings name for images, whichever file they came from; None where that is not known."""

    def client(self, service: str) -> Any:
        """Make a botocore client for a service of this Clary."""
        from botocore.config import Config

        # A Clary that was found in a folder is on this machine: a proxy of the environment cannot reach it.
        proxies: dict[str, Any] = {"proxies": {}} if self.data else {}
        keys = self.credentials
        return self._session.create_client(
            service,
            region_name=self.region,
            endpoint_url=self.url,
            verify=self.ca_bundle or None,
            aws_access_key_id=keys.access_key_id if keys else None,
            aws_secret_access_key=keys.secret_access_key if keys else None,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 3}, **proxies),
        )

    @cached_property
    def _session(self) -> Any:
        import botocore.session

        return botocore.session.get_session()


def data_folder(given: Path | None) -> Path:
    """Give the data folder that is meant: `--data`, else `CLARY_DATA`, else the default."""
    return settings.load({"data": given}).data


def program() -> str:
    """Give what to type for `clary`: as it was called, where the PATH does not lead to the same one (a venv's)."""
    called, known = Path(sys.argv[0]), shutil.which("clary")
    if called.name != "clary" or (known and called.exists() and called.samefile(known)):
        return "clary"
    return shlex.quote(str(called))


def data_flag(data: Path) -> str:
    """Give ` --data DIR` for a command line; nothing for the default folder."""
    default = Path(str(settings.TABLE["data"].default)).expanduser()
    return "" if data == default else f" --data {shlex.quote(str(data))}"


def find(data: Path) -> Connection | None:
    """Give the Clary that runs on the data folder; None where none runs or where it does not answer.

    Raises NotRunning where it is another user's.
    """
    try:
        record = json.loads((data / "run" / "clary.json").read_text())
        url, region, bundle = str(record["url"]), str(record["region"]), str(record.get("ca_bundle", ""))
        registries = tuple(map(str, record["registries"])) if "registries" in record else None
        os.kill(int(record["pid"]), 0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not answers(url):
        return None
    keys = credentials.read(data / "credentials")
    if keys is None:
        raise NotRunning(f"a Clary runs on {data}, but you cannot read its key pair; run this as the same user")
    return Connection(url, region, keys, data, bundle, str(record.get("engine", "")), registries)


def running(data: Path) -> Connection:
    """Give the Clary that runs on the data folder. Raises NotRunning with what to do."""
    found = find(data)
    if found is None:
        start = f"{program()} up{data_flag(data)}"
        raise NotRunning(f"no Clary is running on {data}; start it with `{start}`, or name its folder with --data")
    return found


def connect(data: Path | None) -> Connection:
    """Give the Clary that is meant: `--data`, else `AWS_ENDPOINT_URL`, else the default data folder."""
    url = os.environ.get("AWS_ENDPOINT_URL", "")
    if data is not None or not url:
        return running(data_folder(data))
    if not answers(url):
        raise NotRunning(f"nothing answers at AWS_ENDPOINT_URL={url}; start Clary with `clary up`, or unset it")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    local = find(data_folder(None))
    return local if local and local.url == url.rstrip("/") else Connection(url, region)


def answers(url: str) -> bool:
    """Tell whether something accepts connections there."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), ANSWERS_WITHIN).close()
    except (OSError, UnicodeError):
        return False
    return True
