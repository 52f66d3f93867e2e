"""Which service a command talks to: as whom, where and for which region.

--endpoint-url wins, then what the environment and the profile say, as for any AWS client. Without either it is the
Clary that runs on the data folder, under its own key pair; never AWS itself.
"""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import dataclass

from clary.cli import connection
from clary.cli.aws.failures import ConfigurationError, UsageError
from clary.cli.aws.profile import Profile
from clary.cli.aws.shapes import Operation
from clary.credentials import Credentials
from clary.errors import ClaryError


@dataclass(frozen=True)
class Place:
    """Where requests go. What is None is left for botocore to find."""

    endpoint: str | None
    region: str | None
    credentials: Credentials | None
    signed: bool = True
    ca_bundle: str | None = None
    """File with certificates to trust, where they are not those that this system knows."""
    found: bool = False
    """It was found by its data folder: it is on this machine, and no proxy leads there."""


def find(operation: Operation, options: Namespace, profile: Profile) -> Place:
    """Find the service. Raises UsageError for a URL that is none and ConfigurationError where no Clary runs."""
    signed = not options.no_sign_request
    endpoint = options.endpoint_url
    if endpoint is not None and "://" not in endpoint:
        raise UsageError(
            f'Bad value for --endpoint-url "{endpoint}": scheme is missing.  Must be of the form '
            "http://<hostname>/ or https://<hostname>/"
        )
    endpoint = endpoint or _configured(operation, profile)
    if endpoint or "services" in profile.config:
        region = options.region or profile.region
        return Place(endpoint, region, profile.credentials if signed else None, signed)
    running = _running()
    keys = profile.credentials if options.profile else running.credentials
    region = options.region or running.region
    return Place(running.url, region, keys if signed else None, signed, running.ca_bundle or None, found=True)


def _running() -> connection.Connection:
    try:
        data = connection.data_folder(None)
        running = connection.find(data)
    except ClaryError as error:
        raise ConfigurationError(str(error)) from error
    if running is None:
        start = f"start it with `{connection.program()} up{connection.data_flag(data)}`"
        raise ConfigurationError(
            f"no Clary is running on {data}; {start}, or name another endpoint with --endpoint-url"
        )
    return running


def _configured(operation: Operation, profile: Profile) -> str | None:
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    service = operation.metadata["serviceId"].replace(" ", "_").upper()
    given = os.environ.get(f"AWS_ENDPOINT_URL_{service}") or os.environ.get("AWS_ENDPOINT_URL")
    return given or profile.config.get("endpoint_url")
