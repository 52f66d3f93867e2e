"""Users and roles: kept in the store, looked up in memory, published to the gateways as a file.

The control plane is the only writer of that file, which gateways read whenever it changes; its secrets make it as
private as the store (mode 0600, in a folder of mode 0700).
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clary.core.identities import NAME, Directory, Principal, Role, User
from clary.core.policy import Document, Inquiry, parse
from clary.core.ports import IdentityStore
from clary.core.resources import Partition
from clary.core.sessions import Session, Sessions
from clary.credentials import new_id, new_key
from clary.errors import AccessDeniedException, AwsError, ValidationException
from clary.wire.dispatch import Caller


class Identities:
    """Everybody there is. `owner` is the default access key id, `file` what gateways read."""

    def __init__(
        self, store: IdentityStore, partition: Partition, owner: str, sessions: Sessions, file: Path | None = None
    ) -> None:
        self.partition = partition
        self.sessions = sessions
        self.directory = Directory(partition, owner)
        self._store = store
        self._owner = owner
        self._file = file
        self._changing = asyncio.Lock()

    async def load(self) -> None:
        """Take users and roles from the store and publish them."""
        users, roles = await self._store.users(), await self._store.roles()
        self.directory = Directory(self.partition, self._owner, users, roles)
        if self._file is not None:
            _publish(self._file, users, roles)

    def principal(self, caller: Caller) -> Principal:
        """Give who is calling. Without signatures (`--auth off`) everybody is the default key.

        Raises AwsError UnrecognizedClientException (400) for a key that was taken away meanwhile.
        """
        session = self._session(caller.session_token)
        principal = self.directory.principal(caller.access_key_id or self._owner, session)
        if principal is None:
            message = "The security token included in the request is invalid."
            raise AwsError(message, code="UnrecognizedClientException", status=400)
        return principal

    def _session(self, token: str) -> Session | None:
        found = self.sessions.read(token) if token else None
        return found[0] if found else None

    def may_read(self, role_arn: str, url: str, is_prefix: bool) -> bool:
        """Tell whether a role may read an object, or all whose keys begin like this; yes where no such role is."""
        role = self.directory.role(role_arn)
        if role is None or not url.startswith("s3://"):  # where else data may come from, settings say
            return True
        inquiries = [Inquiry("s3:GetObject", self.object_arn(url, is_prefix))]
        if is_prefix:
            bucket, _, key = url.removeprefix("s3://").partition("/")
            arn = f"arn:{self.partition.name}:s3:::{bucket}"
            inquiries.append(Inquiry("s3:ListBucket", arn, {"s3:prefix": (key,)}))
        return all(self.directory.role_allows(role, inquiry) for inquiry in inquiries)

    def object_arn(self, url: str, is_prefix: bool) -> str:
        """Give what a policy calls the model data at a URL.

        Raises AccessDeniedException for spellings of which policies know nothing: they would slip past every Deny.
        """
        if not url.startswith("s3://"):
            message = f"Where policies apply, model data must be given as s3://bucket/key, not {url}"
            raise AccessDeniedException(message, status=400)  # as JSON 1.1 services answer
        return f"arn:{self.partition.name}:s3:::{url.removeprefix('s3://')}{'*' if is_prefix else ''}"

    async def manage(self, caller: Caller, request: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out what `clary keys` and `clary roles` ask for: `{"Do": "CreateKey", "Name": ..., "Policies": [...]}`.

        Raises AccessDeniedException for every caller but the default key, ValidationException, MalformedPolicyDocument.
        """
        principal = self.principal(caller)
        if principal.policies is not None:
            raise AccessDeniedException(f"User: {principal.arn} is not authorized to manage keys and roles")
        match request.get("Do"), request.get("Name", ""):
            case "ListKeys", _:
                return {"Keys": [_public(user) for user in await self._store.users()]}
            case "ListRoles", _:
                return {"Roles": [self._public_role(role) for role in await self._store.roles()]}
            case ("CreateKey" | "CreateRole") as what, str(name) if NAME.fullmatch(name):
                policies = request.get("Policies", [])
                if not isinstance(policies, list):
                    raise ValidationException("Policies is a list of documents.")
                for document in policies:
                    parse(document)
                async with self._changing:
                    return await self._create(what, name, policies, request.get("Trust"))
            case ("DeleteKey" | "DeleteRole") as what, str(name):
                async with self._changing:
                    return await self._delete(what, name)
            case (("CreateKey" | "CreateRole"), _):
                raise ValidationException("A name has 1 to 64 letters, digits and characters of +=,.@_-")
        raise ValidationException("Unknown request.")

    async def _create(
        self, what: str, name: str, policies: Sequence[Document], trust: Document | None
    ) -> dict[str, Any]:
        now = time.time()
        if what == "CreateKey":
            pair = new_key()
            user = User(name, new_id("AIDA"), pair.access_key_id, pair.secret_access_key, policies, now)
            # `clary` is what the default key is called.
            if name == "clary" or not await self._store.add_user(user):
                raise AwsError(f"User with name {name} already exists.", code="EntityAlreadyExists", status=409)
            await self.load()
            return {**_public(user), "SecretAccessKey": pair.secret_access_key}
        if trust is not None:
            parse(trust, trust=True)
        role = Role(name, new_id("AROA"), policies, trust, now)
        if not await self._store.add_role(role):
            raise AwsError(f"Role with name {name} already exists.", code="EntityAlreadyExists", status=409)
        await self.load()
        return self._public_role(role)

    async def _delete(self, what: str, name: str) -> dict[str, Any]:
        remove = self._store.remove_user if what == "DeleteKey" else self._store.remove_role
        if not await remove(name):
            kind = "user" if what == "DeleteKey" else "role"
            raise AwsError(f"The {kind} with name {name} cannot be found.", code="NoSuchEntity", status=404)
        await self.load()
        return {}

    def _public_role(self, role: Role) -> dict[str, Any]:
        return {
            "Name": role.name,
            "Arn": self.directory.role_arn(role.name),
            "Policies": list(role.policies),
            "Trust": role.trust,
            "CreateDate": role.created_at,
        }


def _public(user: User) -> dict[str, Any]:
    return {
        "Name": user.name,
        "AccessKeyId": user.access_key_id,
        "Policies": list(user.policies),
        "CreateDate": user.created_at,
    }


def _publish(file: Path, users: Sequence[User], roles: Sequence[Role]) -> None:
    document = {"users": [asdict(user) for user in users], "roles": [asdict(role) for role in roles]}
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = file.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as written:
        json.dump(document, written)
    fresh.replace(file)
