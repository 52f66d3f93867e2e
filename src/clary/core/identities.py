"""Who there is, and what each may do: users with access keys, roles, and the sessions in which roles are assumed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from clary.core.policy import Document, Inquiry, Policy, Statement, Verdict, evaluate, parse
from clary.core.resources import Partition
from clary.core.sessions import Session
from clary.errors import AccessDeniedException, AwsError

HOSTING = "sagemaker.amazonaws.com"
"""The service principal that assumes execution roles."""
NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{1,64}")
"""Of users and of roles, as in IAM."""
PATH = re.compile(r"/(?:[!-~]{1,510}/)?")
"""Of roles, as in IAM."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody with an access key."""

    name: str
    id: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    policies: Sequence[Document] = ()
    created_at: float = 0.0
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Role:
    """Something to act as. `trust` None: SageMaker may, and whoever of the account has `sts:AssumeRole` on it.

    `path` stands before the name in the ARN, and nowhere else.
    """

    name: str
    id: str
    policies: Sequence[Document] = ()
    trust: Document | None = None
    created_at: float = 0.0
    tags: Mapping[str, str] = field(default_factory=dict)
    path: str = "/"


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of one request."""

    arn: str
    id: str
    policies: tuple[Policy, ...] | None
    """None: may do everything (the default key)."""
    session_policy: Policy | None = None
    context: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The condition keys that tell of the caller."""

    def verdict(self, inquiry: Inquiry) -> tuple[Verdict, str]:
        """Decide, and name the kind of policy that decided."""
        if self.policies is None:
            return Verdict.ALLOWED, "identity-based"
        asked = replace(inquiry, context={**inquiry.context, **self.context})
        verdict = evaluate(self.policies, asked)
        if verdict is Verdict.ALLOWED and self.session_policy is not None:
            return evaluate((self.session_policy,), asked), "session"
        return verdict, "identity-based"

    def require(self, inquiry: Inquiry, *, code: str = AccessDeniedException.code, status: int = 403) -> None:
        """Raise AccessDeniedException, in AWS's words, unless it is allowed."""
        verdict, kind = self.verdict(inquiry)
        if verdict is not Verdict.ALLOWED:
            raise denied(self.arn, inquiry, verdict, kind, code=code, status=status)


def denied(
    arn: str, inquiry: Inquiry, verdict: Verdict, kind: str, *, code: str = "AccessDenied", status: int = 403
) -> AccessDeniedException:
    """Make the refusal of what a policy denies, or does not allow."""
    why = (
        f"with an explicit deny in {'an' if kind[0] == 'i' else 'a'} {kind} policy"
        if verdict is Verdict.DENIED
        else f"because no {kind} policy allows the {inquiry.action} action"
    )
    message = f"User: {arn} is not authorized to perform: {inquiry.action} on resource: {inquiry.resource} {why}"
    return AccessDeniedException(message, code=code, status=status)


class Directory:
    """Everybody there is at one moment. A policy that can no longer be read takes all permissions with it."""

    def __init__(
        self, partition: Partition, owner: str, users: Iterable[User] = (), roles: Iterable[Role] = ()
    ) -> None:
        """`owner` is the access key id that may do everything."""
        self._partition = partition
        self._owner = owner
        self.users = {user.access_key_id: user for user in users}
        self.roles = {role.id: role for role in roles}
        self._policies = {
            id: _read(each.policies)
            for id, each in ({u.access_key_id: u for u in self.users.values()} | self.roles).items()
        }

    def principal(self, access_key_id: str, session: Session | None) -> Principal | None:
        """Give who this is; None for a key that is not there (any more). The gateway has verified the signature."""
        if access_key_id == self._owner:
            return self._principal("iam", "user/clary", access_key_id, None, {"aws:username": ("clary",)})
        if session is not None:
            return self._assumed(session)
        if (user := self.users.get(access_key_id)) is None:
            return None
        known = {"aws:username": (user.name,), **_tag_keys(user.tags)}
        return self._principal("iam", f"user/{user.name}", user.id, self._policies[access_key_id], known)

    def role_arn(self, name: str, path: str = "/") -> str:
        """Give the ARN of a role."""
        return f"arn:{self._partition.name}:iam::{self._partition.account_id}:role{path}{name}"

    def role(self, arn: str) -> Role | None:
        """Find a role by its ARN."""
        return next((role for role in self.roles.values() if self.role_arn(role.name, role.path) == arn), None)

    def role_allows(self, role: Role, inquiry: Inquiry) -> bool:
        """Tell whether the role's own policies allow something that SageMaker does in its name."""
        who = self._principal("sts", f"assumed-role/{role.name}/SageMaker", f"{role.id}:SageMaker", (), {})
        known = self._role_keys(self.role_arn(role.name, role.path), role.tags)
        asked = replace(inquiry, context={**inquiry.context, **who.context, **known})
        return evaluate(self._policies[role.id], asked) is Verdict.ALLOWED

    def _assumed(self, session: Session) -> Principal:
        # A role that was deleted has no permissions left; one of the same name made since has another id.
        policies = self._policies.get(session.role_id, ())
        limit = parse(session.policy) if session.policy is not None else None
        name, id = f"assumed-role/{session.role_name}/{session.name}", f"{session.role_id}:{session.name}"
        role = self.roles.get(session.role_id)
        arn = self.role_arn(role.name, role.path) if role else self.role_arn(session.role_name)
        known = self._role_keys(arn, role.tags if role else {})
        principal = self._principal("sts", name, id, policies, known)
        return Principal(principal.arn, principal.id, policies, limit, principal.context)

    def _role_keys(self, arn: str, tags: Mapping[str, str]) -> dict[str, Sequence[str]]:
        # No session here was begun with a second factor; a user's key is used without saying anything of one.
        known: dict[str, Sequence[str]] = {"aws:principalarn": (arn,)}
        return {**known, "aws:multifactorauthpresent": ("false",), **_tag_keys(tags)}

    def _principal(
        self, service: str, path: str, id: str, policies: tuple[Policy, ...] | None, more: Mapping[str, Sequence[str]]
    ) -> Principal:
        account = self._partition.account_id
        arn = f"arn:{self._partition.name}:{service}::{account}:{path}"
        context = {
            "aws:userid": (id,),
            "aws:principalarn": (arn,),
            "aws:principalaccount": (account,),
            "aws:principaltype": ("User" if service == "iam" else "AssumedRole",),
            "aws:requestedregion": (self._partition.region,),
            "aws:viaawsservice": ("false",),
        }
        return Principal(arn, id, policies, context={**context, **more})


def may_assume(role: Role, principal: Principal, account_id: str, inquiry: Inquiry) -> bool:
    """Tell whether a caller may assume a role: the trust names the caller, or the account and a policy allows it."""
    verdict, _ = principal.verdict(inquiry)
    if verdict is Verdict.DENIED:
        return False
    by_policy = verdict is Verdict.ALLOWED
    if role.trust is None:
        return by_policy
    partition = principal.arn.split(":")[1]
    accounts = {"*", account_id, f"arn:{partition}:iam::{account_id}:root"}
    names = {principal.arn, *principal.context.get("aws:principalarn", ())}
    trusted = False
    asked = replace(inquiry, context={**inquiry.context, **principal.context})
    for statement in parse(role.trust, trust=True).statements:
        given = set(statement.principals.get("AWS", ()))
        if given & (accounts | names) and statement.applies(asked):
            if statement.effect == "Deny":
                return False
            trusted = trusted or by_policy or bool(given & names)
    return trusted


def trusts_hosting(role: Role, account_id: str, source_arn: str | None = None) -> bool:
    """Tell whether SageMaker may assume the role, on behalf of the account.

    `source_arn` is what it is assumed for. None: that is not known here, and was decided when it was created; what
    statements say of it is passed over.
    """
    if role.trust is None:
        return True
    statements = parse(role.trust, trust=True).statements
    context = {"aws:sourceaccount": (account_id,)}
    if source_arn is None:
        statements = tuple(_for_any_source(statements))
    else:
        context["aws:sourcearn"] = (source_arn,)
    inquiry = Inquiry("sts:AssumeRole", "*", context)
    effects = {
        statement.effect
        for statement in statements
        if {HOSTING, "*"} & {*statement.principals.get("Service", ()), *statement.principals.get("AWS", ())}
        and statement.applies(inquiry)
    }
    return effects == {"Allow"}


def _for_any_source(statements: Iterable[Statement]) -> Iterator[Statement]:
    for statement in statements:
        others = tuple(each for each in statement.conditions if each.key != "aws:sourcearn")
        if statement.effect == "Allow" or len(others) == len(statement.conditions):
            yield replace(statement, conditions=others)


def _tag_keys(tags: Mapping[str, str]) -> dict[str, Sequence[str]]:
    return {f"aws:principaltag/{key.lower()}": (value,) for key, value in tags.items()}


def _read(documents: Sequence[Document]) -> tuple[Policy, ...]:
    try:
        return tuple(parse(document) for document in documents)
    except AwsError:
        return ()
