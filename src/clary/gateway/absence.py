"""A control plane that is away: how long it is waited for, and what is said then."""

from __future__ import annotations

from clary.errors import AwsError

PATIENCE = 10.0
"""Seconds to wait for a control plane that is being restarted."""


def unavailable(what: str) -> AwsError:
    """Give the error for a control plane that `what`."""
    return AwsError(f"The control plane {what}.", code="ServiceUnavailable", status=503)
