"""Users and roles: kept in the store, looked up in memory, published to the gateways as a file.

The control plane is the only writer of that file, which gateways read whenever it changes; its secrets make it as
private as the store (mode 0600, in a folder of mode 0700).
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from clary.core.conditions import circumstances
from clary.core.identities import NAME, PATH, Directory, Principal, Role, User, trusts_hosting
from clary.core.policy import Document, Inquiry, parse
from clary.core.ports import IdentityStore
from clary.core.resources import Partition
from clary.core.sessions import Session, Sessions
from clary.credentials import new_id, new_key
from clary.errors import AccessDeniedException, AwsError, ValidationException
from clary.wire.dispatch import Caller

_VERBS = {"s3:GetObject": "read", "s3:ListBucket": "list", "s3:PutObject": "write"}


class Identities:
    """Everybody there is. `owner` is the default access key id, `file` what gateways read."""

    def __init__(
        self, store: IdentityStore, partition: Partition, owner: str, sessions: Sessions, file: Path | None = None
    ) -> None:
        self.partition = partition
        self.sessions = sessions
        self.directory = Directory(partition, owner)
        self.roles_are_configured = False
        """Whether there has been a role: then what names one must name one that is there, for good."""
        self._store = store
        self._owner = owner
        self._file = file
        self._changing = asyncio.Lock()

    async def load(self) -> None:
        """Take users and roles from the store and publish them."""
        self.roles_are_configured = await self._store.has_had_roles()
        self._publish(await self._store.users(), await self._store.roles())

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
        """Tell whether a role may read an object, or all that are below a prefix, at `s3://bucket/key`."""
        asked = [Inquiry("s3:GetObject", self._arn(url, is_prefix), all_below=is_prefix)]
        return self._allows(role_arn, url, [*asked, *([self._listing(url)] if is_prefix else [])])

    def refusal(self, role_arn: str, action: str, url: str) -> str | None:
        """Say why a role may not do this with what is at a URL; None where it may. `action` is one of `_VERBS`."""
        listing = action == "s3:ListBucket"
        inquiry = self._listing(url) if listing else Inquiry(action, self._arn(url, False))
        if self._allows(role_arn, url, [inquiry]):
            return None
        return f"The role {role_arn} may not {_VERBS[action]} {url}"

    def _allows(self, role_arn: str, url: str, inquiries: Sequence[Inquiry]) -> bool:
        """Ask a role's policies. Yes without a role, and while there has never been one."""
        role = self.directory.role(role_arn)
        if role is None:
            return not role_arn or not self.roles_are_configured
        if not trusts_hosting(role, self.partition.account_id):
            return False
        # SageMaker reads, over TLS and from an address of its own, which no policy can know.
        around = circumstances(time.time(), "", "", secure=True)
        asked = (replace(each, context={**around, **each.context}) for each in inquiries)
        # Where else than from S3 data may come, settings say.
        return url.startswith("file:") or all(self.directory.role_allows(role, each) for each in asked)

    def acting(self, role_arn: str) -> Mapping[str, str] | None:
        """Give id and name of a role that SageMaker acts as; None while there has never been a role.

        One that is gone, or does not trust SageMaker, has an id that nobody has, and so may do nothing.
        """
        if not self.roles_are_configured:
            return None
        role = self.directory.role(role_arn)
        if role is None or not trusts_hosting(role, self.partition.account_id):
            return {"id": "", "name": role_arn.rpartition("/")[2]}
        return {"id": role.id, "name": role.name}

    def _listing(self, url: str) -> Inquiry:
        bucket, _, key = url.removeprefix("s3://").partition("/")
        return Inquiry("s3:ListBucket", f"arn:{self.partition.name}:s3:::{bucket}", {"s3:prefix": (key,)})

    def _arn(self, url: str, is_prefix: bool) -> str:
        return f"arn:{self.partition.name}:s3:::{url.removeprefix('s3://')}{'*' if is_prefix else ''}"

    def object_arn(self, url: str, is_prefix: bool) -> str:
        """Give what a policy calls the model data at a URL.

        Raises AccessDeniedException for spellings of which policies know nothing: they would slip past every Deny.
        """
        if not url.startswith("s3://"):
            message = f"Where policies apply, model data must be given as s3://bucket/key, not {url}"
            raise AccessDeniedException(message, status=400)  # as JSON 1.1 services answer
        return self._arn(url, is_prefix)

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
                policies, tags = request.get("Policies", []), _tags(request.get("Tags", {}))
                if not isinstance(policies, list):
                    raise ValidationException("Policies is a list of documents.")
                for document in policies:
                    parse(document)
                async with self._changing:
                    if what == "CreateKey":
                        return await self._create_user(name, policies, tags)
                    trust = request.get("Trust")
                    role = Role(name, new_id("AROA"), policies, trust, time.time(), tags, _path(request))
                    return await self._create_role(role)
            case ("DeleteKey" | "DeleteRole") as what, str(name):
                async with self._changing:
                    return await self._delete(what, name)
            case (("CreateKey" | "CreateRole"), _):
                raise ValidationException("A name has 1 to 64 letters, digits and characters of +=,.@_-")
        raise ValidationException("Unknown request.")

    # Gateways are told first, then the store: an answer means that both have it. What the store then does not take is
    # told back, and a crash in between is mended by the next start, which publishes what the store has.

    async def _create_user(self, name: str, policies: Sequence[Document], tags: Mapping[str, str]) -> dict[str, Any]:
        users, roles = await self._store.users(), await self._store.roles()
        # `clary` is what the default key is called.
        if name == "clary" or any(user.name == name for user in users):
            raise AwsError(f"User with name {name} already exists.", code="EntityAlreadyExists", status=409)
        pair = new_key()
        key = pair.access_key_id, pair.secret_access_key
        user = User(name, new_id("AIDA"), *key, policies=policies, created_at=time.time(), tags=tags)
        await self._change([*users, user], roles, partial(self._store.add_user, user))
        return {**_public(user), "SecretAccessKey": pair.secret_access_key}

    async def _create_role(self, role: Role) -> dict[str, Any]:
        if role.trust is not None:
            parse(role.trust, trust=True)
        users, roles = await self._store.users(), await self._store.roles()
        if any(each.name == role.name for each in roles):
            raise AwsError(f"Role with name {role.name} already exists.", code="EntityAlreadyExists", status=409)
        await self._change(users, [*roles, role], partial(self._store.add_role, role))
        self.roles_are_configured = True
        return self._public_role(role)

    async def _delete(self, what: str, name: str) -> dict[str, Any]:
        users, roles = await self._store.users(), await self._store.roles()
        is_key = what == "DeleteKey"
        kind, there = ("user", users) if is_key else ("role", roles)
        if all(each.name != name for each in there):
            raise AwsError(f"The {kind} with name {name} cannot be found.", code="NoSuchEntity", status=404)
        remove = self._store.remove_user if is_key else self._store.remove_role
        await self._change(
            [user for user in users if not (is_key and user.name == name)],
            [role for role in roles if is_key or role.name != name],
            partial(remove, name),
        )
        return {}

    async def _change(self, users: Sequence[User], roles: Sequence[Role], keep: Callable[[], Awaitable[bool]]) -> None:
        before = await self._store.users(), await self._store.roles()
        try:
            self._publish(users, roles)
        except OSError as error:
            message = f"The gateways cannot be told ({error.strerror}): nothing was changed."
            raise AwsError(message, code="ServiceUnavailable", status=503) from error
        try:
            await keep()
        except BaseException:
            self._publish(*before)
            raise

    def _publish(self, users: Sequence[User], roles: Sequence[Role]) -> None:
        if self._file is not None:
            _write(self._file, users, roles)
        self.directory = Directory(self.partition, self._owner, users, roles)

    def _public_role(self, role: Role) -> dict[str, Any]:
        return {
            "Name": role.name,
            "Arn": self.directory.role_arn(role.name, role.path),
            "Policies": list(role.policies),
            "Trust": role.trust,
            "Tags": dict(role.tags),
            "CreateDate": role.created_at,
        }


def _public(user: User) -> dict[str, Any]:
    return {
        "Name": user.name,
        "AccessKeyId": user.access_key_id,
        "Policies": list(user.policies),
        "Tags": dict(user.tags),
        "CreateDate": user.created_at,
    }


def _tags(given: object) -> dict[str, str]:
    """Check the tags of a user or a role. Their keys, unlike those of other tags, disregard case in IAM."""
    if not isinstance(given, dict) or not all(isinstance(value, str) and key for key, value in given.items()):
        raise ValidationException("Tags is a map of keys to values.")
    if len({key.lower() for key in given}) < len(given):
        raise ValidationException("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
    return given


def _path(request: Mapping[str, Any]) -> str:
    path = request.get("Path", "/")
    if not isinstance(path, str) or not PATH.fullmatch(path):
        raise ValidationException("The path of a role begins and ends with a slash, and has at most 512 characters.")
    return path


def _write(file: Path, users: Sequence[User], roles: Sequence[Role]) -> None:
    document = {"users": [asdict(user) for user in users], "roles": [asdict(role) for role in roles]}
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = file.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as written:
        json.dump(document, written)
    fresh.replace(file)
