"""Who may assume a role, whom a role trusts, and what a session is left with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from clary.core.identities import Directory, Principal, Role, User, may_assume, trusts_hosting
from clary.core.policy import Inquiry, Verdict
from clary.core.resources import Partition
from clary.core.sessions import Session, Sessions
from clary.errors import AccessDeniedException

PARTITION = Partition("123456789012", "us-east-1")
ACCOUNT = PARTITION.account_id
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"
ASSUME = Inquiry("sts:AssumeRole", ROLE)


def policy(effect: str, action: str, resource: str = "*") -> dict[str, Any]:
    return {"Statement": {"Effect": effect, "Action": action, "Resource": resource}}


def trust(principal: object, **more: Any) -> dict[str, Any]:
    return {"Statement": {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal, **more}}


def user(*policies: dict[str, Any]) -> Principal:
    directory = Directory(PARTITION, "OWNER", [User("u", "AIDAU", "AKIAU", "s", policies)])
    found = directory.principal("AKIAU", None)
    assert found is not None
    return found


def session(role: Role, limit: dict[str, Any] | None = None, *, roles: tuple[Role, ...] | None = None) -> Principal:
    directory = Directory(PARTITION, "OWNER", roles=(role,) if roles is None else roles)
    found = directory.principal("ASIA1", Session("ASIA1", role.id, role.name, "s", 1e12, limit))
    assert found is not None
    return found


def test_the_default_key_may_do_everything_and_an_unknown_one_is_nobody() -> None:
    directory = Directory(PARTITION, "OWNER")
    owner = directory.principal("OWNER", None)
    assert owner is not None and owner.arn == f"arn:aws:iam::{ACCOUNT}:user/clary"
    owner.require(Inquiry("sagemaker:DeleteModel", "*"))
    assert directory.principal("AKIAU", None) is None


@pytest.mark.parametrize(
    ("policies", "why"),
    [
        ((), "because no identity-based policy allows the s3:GetObject action"),
        ((policy("Allow", "*"), policy("Deny", "s3:*")), "with an explicit deny in an identity-based policy"),
    ],
)
def test_refusals_have_awss_words(policies: tuple[dict[str, Any], ...], why: str) -> None:
    with pytest.raises(AccessDeniedException) as refused:
        user(*policies).require(Inquiry("s3:GetObject", "arn:aws:s3:::b/k"))
    assert refused.value.message == (
        f"User: arn:aws:iam::{ACCOUNT}:user/u is not authorized to perform: s3:GetObject on resource: "
        f"arn:aws:s3:::b/k {why}"
    )


def test_a_policy_may_ask_who_it_is_that_calls() -> None:
    document = policy("Allow", "*")
    document["Statement"]["Condition"] = {"StringEquals": {"aws:username": "u"}}
    assert user(document).verdict(ASSUME)[0] is Verdict.ALLOWED


def test_a_session_may_do_what_the_role_and_the_session_policy_both_allow() -> None:
    role = Role("r", "AROAR", [policy("Allow", "s3:*")])
    whole = session(role)
    assert (whole.arn, whole.id) == (f"arn:aws:sts::{ACCOUNT}:assumed-role/r/s", "AROAR:s")
    whole.require(Inquiry("s3:PutObject", "arn:aws:s3:::b/k"))
    limited = session(role, policy("Allow", "s3:Get*"))
    limited.require(Inquiry("s3:GetObject", "arn:aws:s3:::b/k"))
    with pytest.raises(AccessDeniedException, match="because no session policy allows the s3:PutObject action"):
        limited.require(Inquiry("s3:PutObject", "arn:aws:s3:::b/k"))
    with pytest.raises(AccessDeniedException, match="identity-based"):
        session(role, policy("Allow", "*")).require(Inquiry("sagemaker:ListModels", "*"))


def test_a_session_of_a_role_that_is_gone_may_do_nothing_even_if_another_has_its_name() -> None:
    role = Role("r", "AROAR", [policy("Allow", "*")])
    for roles in ((), (replace(role, id="AROAOTHER"),)):
        assert session(role, roles=roles).verdict(ASSUME)[0] is Verdict.SILENT


@pytest.mark.parametrize(
    ("trusted", "policies", "allowed"),
    [
        (None, (), False),
        (None, (policy("Allow", "sts:AssumeRole", ROLE),), True),
        (trust({"AWS": ACCOUNT}), (), False),
        (trust({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}), (policy("Allow", "sts:*"),), True),
        (trust({"AWS": [f"arn:aws:iam::{ACCOUNT}:user/u"]}), (), True),
        (trust({"AWS": f"arn:aws:iam::{ACCOUNT}:user/u"}), (policy("Deny", "sts:*"),), False),
        (trust({"AWS": f"arn:aws:iam::{ACCOUNT}:user/v"}), (policy("Allow", "*"),), False),
        (trust({"Service": "sagemaker.amazonaws.com"}), (policy("Allow", "*"),), False),
        (trust({"AWS": "*"}, Condition={"StringEquals": {"sts:ExternalId": "x"}}), (policy("Allow", "*"),), False),
    ],
)
def test_who_may_assume_a_role(trusted: Any, policies: tuple[dict[str, Any], ...], allowed: bool) -> None:
    assert may_assume(Role("r", "AROAR", trust=trusted), user(*policies), ACCOUNT, ASSUME) is allowed


@pytest.mark.parametrize(
    ("trusted", "expected"),
    [
        (None, True),
        (trust({"Service": "sagemaker.amazonaws.com"}), True),
        (trust({"Service": ["ec2.amazonaws.com", "sagemaker.amazonaws.com"]}), True),
        (trust({"Service": "ec2.amazonaws.com"}), False),
        (trust({"AWS": ACCOUNT}), False),
        (trust({"Service": "sagemaker.amazonaws.com"}, Condition={"StringEquals": {"aws:SourceAccount": "1"}}), False),
        (
            trust({"Service": "sagemaker.amazonaws.com"}, Condition={"StringEquals": {"aws:SourceAccount": ACCOUNT}}),
            True,
        ),
    ],
)
def test_whether_sagemaker_may_assume_a_role(trusted: Any, expected: bool) -> None:
    assert trusts_hosting(Role("r", "AROAR", trust=trusted), ACCOUNT) is expected


FOR = {"Service": "sagemaker.amazonaws.com"}
MODEL = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:model/m"


@pytest.mark.parametrize(
    ("trusted", "expected"),
    [
        (trust(FOR, Condition={"ArnLike": {"aws:SourceArn": f"arn:aws:sagemaker:*:{ACCOUNT}:*"}}), True),
        (trust(FOR, Condition={"ArnLike": {"aws:SourceArn": f"arn:aws:sagemaker:*:{ACCOUNT}:endpoint/*"}}), False),
        (trust(FOR, Condition={"ArnLike": {"aws:SourceArn": "arn:aws:sagemaker:*:210987654321:*"}}), False),
        (trust(FOR, Condition={"StringEquals": {"s3:ExistingObjectTag/a": "b"}}), False),
    ],
)
def test_a_role_may_say_for_what_sagemaker_assumes_it(trusted: Any, expected: bool) -> None:
    assert trusts_hosting(Role("r", "AROAR", trust=trusted), ACCOUNT, MODEL) is expected


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([trust(FOR, Condition={"ArnEquals": {"aws:SourceArn": MODEL}})["Statement"]], True),
        (
            [
                trust(FOR)["Statement"],
                trust(FOR, Effect="Deny", Condition={"ArnNotEquals": {"aws:SourceArn": MODEL}})["Statement"],
            ],
            True,
        ),
        ([trust(FOR)["Statement"], trust(FOR, Effect="Deny")["Statement"]], False),
    ],
)
def test_for_what_it_was_assumed_is_not_asked_again(statements: list[Any], expected: bool) -> None:
    assert trusts_hosting(Role("r", "AROAR", trust={"Statement": statements}), ACCOUNT) is expected


def test_the_path_of_a_role_is_in_its_arn_and_not_in_that_of_a_session() -> None:
    role = Role("r", "AROAR", [policy("Allow", "*")], path="/service-role/")
    directory = Directory(PARTITION, "OWNER", roles=[role])
    arn = f"arn:aws:iam::{ACCOUNT}:role/service-role/r"
    assert directory.role(arn) is role
    assert directory.role(ROLE) is None
    acting = session(role)
    assert acting.arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/r/s"
    assert acting.context["aws:principalarn"] == (arn,)


def test_a_token_carries_the_session_and_nobody_else_can_make_or_change_one() -> None:
    sessions = Sessions(b"key")
    granted = Session("ASIA1", "AROAR", "r", "s", 1_700_000_000.0, policy("Allow", "*"))
    token, secret = sessions.grant(granted)
    assert sessions.read(token) == (granted, secret)
    assert len(secret) == 40
    assert sessions.grant(replace(granted, expires_at=1_700_000_001.0))[1] != secret
    assert Sessions(b"other").read(token) is None
    for at in range(0, len(token), 7):
        changed = "B" if token[at] == "A" else "A"
        assert sessions.read(token[:at] + changed + token[at + 1 :]) is None
    for nonsense in ("", "x", "!!!!", token[:-4], "\xff"):
        assert sessions.read(nonsense) is None
