"""STS, as far as clients ask it who they are."""

from __future__ import annotations

from typing import Any

from clary.core.resources import Partition
from clary.wire.dispatch import Caller


async def get_caller_identity(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Give the caller's account and the one user that it has."""
    partition = Partition(caller.account_id, caller.region)
    return {
        "UserId": caller.access_key_id,
        "Account": caller.account_id,
        "Arn": f"arn:{partition.name}:iam::{caller.account_id}:user/clary",
    }
