"""Users and roles are made and deleted by the owner alone, and the gateways know of each change."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clary.api.app import operations
from clary.api.authorization import Guard
from clary.api.identities import Identities
from clary.errors import AccessDeniedException, AwsError, ValidationException
from tests.api.authorization.conftest import MODEL, OWNER, PARTITION, ROLE, Guarded, assume, policy
from tests.api.conftest import ARN, CALLER


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"Do": "CreateKey", "Name": "a/b"}, "ValidationException"),
        ({"Do": "CreateKey"}, "ValidationException"),
        ({"Do": "CreateKey", "Name": "clary"}, "EntityAlreadyExists"),
        ({"Do": "CreateKey", "Name": "n", "Policies": "x"}, "ValidationException"),
        ({"Do": "CreateRole", "Name": "n", "Policies": [{}]}, "MalformedPolicyDocument"),
        ({"Do": "CreateRole", "Name": "n", "Path": "service-role"}, "ValidationException"),
        ({"Do": "CreateRole", "Name": "n", "Path": 1}, "ValidationException"),
        ({"Do": "CreateRole", "Name": "n", "Trust": {"Statement": []}}, "MalformedPolicyDocument"),
        ({"Do": "DeleteRole", "Name": "n"}, "NoSuchEntity"),
        ({"Do": "Sing"}, "ValidationException"),
    ],
)
async def test_bad_requests_to_manage_are_refused_and_change_nothing(
    guarded: Guarded, request_: dict[str, Any], code: str
) -> None:
    with pytest.raises(AwsError) as refused:
        await guarded.identities.manage(OWNER, request_)
    assert refused.value.code == code
    assert await guarded.identities.manage(OWNER, {"Do": "ListKeys"}) == {"Keys": []}
    assert await guarded.identities.manage(OWNER, {"Do": "ListRoles"}) == {"Roles": []}


async def test_only_the_default_key_manages_and_lists_show_no_secret(guarded: Guarded, tmp_path: Path) -> None:
    await guarded.user(policy("*"))
    with pytest.raises(AccessDeniedException, match="manage keys and roles"):
        await guarded.identities.manage(guarded.callers["u"], {"Do": "ListKeys"})
    secret = json.loads((tmp_path / "run" / "keys.json").read_text())["users"][0]["secret_access_key"]
    assert secret not in json.dumps(await guarded.identities.manage(OWNER, {"Do": "ListKeys"}))
    assert (tmp_path / "run" / "keys.json").stat().st_mode & 0o777 == 0o600
    await guarded.identities.manage(OWNER, {"Do": "DeleteKey", "Name": "u"})
    with pytest.raises(AwsError, match="security token"):
        await guarded("u", "ListModels")


async def test_users_and_roles_may_have_tags(guarded: Guarded) -> None:
    mine = policy(["sagemaker:*", "sts:*"], Condition={"StringEquals": {"aws:PrincipalTag/Team": "search"}})
    await guarded.user(mine)
    assert "sagemaker:ListModels" in await guarded.denial("u", "ListModels")
    request = {"Do": "CreateKey", "Name": "v", "Policies": [mine], "Tags": {"team": "search"}}
    made = await guarded.identities.manage(OWNER, request)
    assert made["Tags"] == {"team": "search"}
    guarded.callers["v"] = replace(CALLER, access_key_id=made["AccessKeyId"])
    await guarded("v", "ListModels")
    await guarded.role(mine, Tags={"TEAM": "search"})
    await assume(guarded, "v")
    await guarded("session", "ListModels")
    # They are kept: another control plane reads the same.
    again = Identities(guarded.store, PARTITION, "OWNER", guarded.sessions)
    await again.load()
    assert [role.tags for role in again.directory.roles.values()] == [{"TEAM": "search"}]
    for tags in ({"a": 1}, {"a": "1", "A": "2"}, ["a"]):
        with pytest.raises(ValidationException):
            await guarded.identities.manage(OWNER, {**request, "Name": "w", "Tags": tags})


@pytest.mark.parametrize(
    ("create", "member", "kind"),
    [
        ("CreateModelPackageGroup", "ModelPackageGroupName", "model-package-group"),
        ("CreateModel", "ModelName", "model"),
    ],
)
async def test_names_that_differ_in_case_are_two_names(guarded: Guarded, create: str, member: str, kind: str) -> None:
    more = {} if kind == "model-package-group" else {"PrimaryContainer": {"Image": "image"}}
    await guarded("owner", create, **{member: "Prod"}, **more, Tags=[{"Key": "team", "Value": "a"}])
    await guarded.user(policy("*", f"{ARN}:{kind}/Prod"))
    assert f"on resource: {ARN}:{kind}/prod because" in await guarded.denial("u", create, **{member: "prod"}, **more)
    await guarded.user(policy("*", Condition={"StringEquals": {"aws:ResourceTag/team": "a"}}), name="v")
    await guarded.denial("v", create, **{member: "prod"}, **more)
    await guarded("owner", create, **{member: "prod"}, **more)
    await guarded.denial("u", f"Delete{create[6:]}", **{member: "prod"})
    await guarded("u", f"Delete{create[6:]}", **{member: "Prod"})


async def test_the_end_of_the_last_role_opens_nothing(guarded: Guarded, tmp_path: Path) -> None:
    await guarded.role(policy("s3:*"))
    await guarded.identities.manage(OWNER, {"Do": "DeleteRole", "Name": "r"})
    # what comes after it, as after a restart
    guarded.identities = Identities(guarded.store, PARTITION, "OWNER", guarded.sessions, tmp_path / "run" / "keys.json")
    await guarded.identities.load()
    handlers = operations(guarded.store, PARTITION, lambda name: None)
    guarded.handlers = Guard(guarded.identities, guarded.store, PARTITION).before(handlers)
    assert not guarded.identities.may_read(ROLE, "s3://b/m.tar.gz", False)
    with pytest.raises(ValidationException, match="The execution role ARN"):
        await guarded("owner", "CreateModel", **MODEL, ExecutionRoleArn=ROLE)


async def test_a_deletion_that_the_gateways_cannot_be_told_of_did_not_happen(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    await guarded.user(policy("*"))

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        for request in ({"Do": "DeleteKey", "Name": "u"}, {"Do": "CreateKey", "Name": "v"}):
            with pytest.raises(AwsError, match="No space left on device") as refused:
                await guarded.identities.manage(OWNER, request)
            assert (refused.value.code, refused.value.status) == ("ServiceUnavailable", 503)
    assert [user["Name"] for user in (await guarded.identities.manage(OWNER, {"Do": "ListKeys"}))["Keys"]] == ["u"]
    await guarded("u", "ListModels")


async def test_what_the_store_does_not_take_is_taken_back_from_the_gateways(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await guarded.user(policy("*"))

    async def fails(name: str) -> bool:
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr(guarded.store, "remove_user", fails)
    with pytest.raises(RuntimeError):
        await guarded.identities.manage(OWNER, {"Do": "DeleteKey", "Name": "u"})
    assert [each["name"] for each in json.loads((tmp_path / "run" / "keys.json").read_text())["users"]] == ["u"]
    await guarded("u", "ListModels")
