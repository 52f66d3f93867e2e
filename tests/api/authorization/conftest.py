"""Handlers of the hosting API behind the guard, and users who ask them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clary.api.app import operations
from clary.api.authorization import Guard
from clary.api.identities import Identities
from clary.api.sts import Sts
from clary.core.resources import Partition
from clary.core.sessions import Sessions
from clary.errors import AccessDeniedException
from clary.store.store import Store
from tests.api.conftest import ACCOUNT, CALLER
from tests.stores import new_store

PARTITION = Partition(ACCOUNT, "us-east-1")
OWNER = replace(CALLER, access_key_id="OWNER")
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"
NOW = 1_700_000_000.0
MODEL = {"ModelName": "m", "PrimaryContainer": {"Image": "image"}}


def policy(action: str | list[str], resource: str | list[str] = "*", **more: Any) -> dict[str, Any]:
    return {"Statement": {"Effect": "Allow", "Action": action, "Resource": resource, **more}}


class Guarded:
    """Handlers behind the guard, and users by name."""

    def __init__(self, store: Store, file: Path) -> None:
        self.store = store
        self.sessions = Sessions(b"key")
        self.identities = Identities(store, PARTITION, "OWNER", self.sessions, file)
        handlers = operations(store, PARTITION, lambda name: None)
        handlers |= Sts(self.identities, lambda: NOW).operations()
        self.handlers = Guard(self.identities, store, PARTITION).before(handlers)
        self.callers = {"owner": OWNER}

    async def user(self, *policies: dict[str, Any], name: str = "u") -> None:
        made = await self.identities.manage(OWNER, {"Do": "CreateKey", "Name": name, "Policies": list(policies)})
        self.callers[name] = replace(CALLER, access_key_id=made["AccessKeyId"])

    async def role(self, *policies: dict[str, Any], **more: Any) -> None:
        await self.identities.manage(OWNER, {"Do": "CreateRole", "Name": "r", "Policies": list(policies), **more})

    async def __call__(self, who: str, operation: str, **members: Any) -> dict[str, Any]:
        service = "sts" if operation in ("AssumeRole", "GetCallerIdentity") else "sagemaker"
        return await self.handlers[service, operation](self.callers[who], members) or {}

    async def denial(self, who: str, operation: str, **members: Any) -> str:
        with pytest.raises(AccessDeniedException) as denied:
            await self(who, operation, **members)
        assert denied.value.status == 400
        return denied.value.message.removeprefix(
            f"User: arn:aws:iam::{ACCOUNT}:user/{who} is not authorized to perform: "
        )


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    store = await new_store(tmp_path)
    yield Guarded(store, tmp_path / "run" / "keys.json")
    await store.close()


async def assume(guarded: Guarded, who: str, **more: Any) -> dict[str, Any]:
    granted = await guarded(who, "AssumeRole", RoleArn=ROLE, RoleSessionName="night", **more)
    keys = granted["Credentials"]
    caller = replace(CALLER, access_key_id=keys["AccessKeyId"], session_token=keys["SessionToken"])
    guarded.callers["session"] = caller
    return granted


PACKAGE = {"ModelPackageGroupName": "g", "InferenceSpecification": {"Containers": [{"Image": "image"}]}}
