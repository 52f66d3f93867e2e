"""STS, as far as clients ask it who they are."""

from __future__ import annotations

from typing import Any

from clary.core.resources import Partition
from clary.wire.dispatch import Caller


async def get_caller_identity(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Tell the caller who it is; no policy can forbid that. A caller that nobody has looked up is the default key's."""
    partition = Partition(caller.account_id, caller.region)
    return {
        "UserId": caller.user_id or caller.access_key_id,
        "Account": caller.account_id,
        "Arn": caller.arn or f"arn:{partition.name}:iam::{caller.account_id}:user/clary",
    }


async def user_context(caller: Caller) -> dict[str, Any]:
    """Give the caller as CreatedBy and LastModifiedBy name one."""
    who = await get_caller_identity(caller, {})
    return {"IamIdentity": {"Arn": who["Arn"], "PrincipalId": who["UserId"]}}
