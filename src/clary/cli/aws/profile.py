"""What the AWS config and credentials files and the environment say, read without importing botocore.

Only for what the command itself needs and for the direct way: where a profile says more than PLAIN, or anything is out
of the ordinary, botocore finds credentials, region and endpoint.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from clary.credentials import Credentials

PLAIN = {
    "region",
    "output",
    "cli_timestamp_format",
    "cli_binary_format",
    "cli_pager",
    "cli_follow_urlparam",
    "aws_access_key_id",
    "aws_secret_access_key",
    "endpoint_url",
}


@dataclass(frozen=True)
class Profile:
    """One profile, with the environment laid over it. `chosen` is --profile's argument."""

    chosen: str | None
    environment: Mapping[str, str]

    @property
    def name(self) -> str:
        return (
            self.chosen
            or self.environment.get("AWS_PROFILE")
            or self.environment.get("AWS_DEFAULT_PROFILE")
            or "default"
        )

    @cached_property
    def config(self) -> dict[str, str]:
        section = self.name if self.name == "default" else f"profile {self.name}"
        return _section(self._file("AWS_CONFIG_FILE", "~/.aws/config"), section)

    @cached_property
    def secrets(self) -> dict[str, str]:
        return _section(self._file("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), self.name)

    @property
    def is_plain(self) -> bool:
        """Tell whether it is there, with nothing but keys, a region, an endpoint and this command's preferences."""
        said = self.config.keys() | self.secrets.keys()
        return not said - PLAIN and (bool(said) or self.name == "default")

    @property
    def region(self) -> str | None:
        given = self.environment.get("AWS_REGION") or self.environment.get("AWS_DEFAULT_REGION")
        return given or self.config.get("region")

    @property
    def credentials(self) -> Credentials | None:
        """Give the keys of the environment, unless a profile was chosen, else those of the files."""
        places: list[tuple[str | None, str | None]] = [
            (place.get("aws_access_key_id"), place.get("aws_secret_access_key"))
            for place in (self.secrets, self.config)
        ]
        if not self.chosen:
            keys = self.environment.get("AWS_ACCESS_KEY_ID"), self.environment.get("AWS_SECRET_ACCESS_KEY")
            places.insert(0, keys)
        return next((Credentials(key, secret) for key, secret in places if key and secret), None)

    @property
    def validates(self) -> bool:
        """Tell whether a request is checked before it is sent."""
        return self.config.get("parameter_validation", "true").lower() != "false"

    @property
    def output(self) -> str:
        return self.environment.get("AWS_DEFAULT_OUTPUT") or self.config.get("output", "json")

    @property
    def timestamp_format(self) -> str:
        """`iso8601`, or `wire` for the number that was sent."""
        return self.config.get("cli_timestamp_format", "iso8601")

    @property
    def binary_format(self) -> str:
        """`base64` or `raw-in-base64-out`."""
        return self.config.get("cli_binary_format", "base64")

    def _file(self, variable: str, default: str) -> Path:
        return Path(self.environment.get(variable) or default).expanduser()


def current(chosen: str | None) -> Profile:
    """Give the profile that the environment and --profile choose."""
    return Profile(chosen, os.environ)


def _section(path: Path, name: str) -> dict[str, str]:
    file = configparser.RawConfigParser(default_section="")
    try:
        file.read(path)
    except (configparser.Error, UnicodeDecodeError):
        # botocore reads the file again, on the long way, and words the error.
        return {"unreadable": str(path)}
    return dict(file[name]) if file.has_section(name) else {}
