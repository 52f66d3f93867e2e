"""IAM policies: read a document, refuse one that could not be enforced, decide.

Source: the IAM user guide, "Policy evaluation logic" and "IAM JSON policy elements". An explicit Deny wins, then an
Allow is needed. What Clary could not enforce (an operator that it does not know, a policy variable, in a Deny a
condition key that it does not know) is refused when the policy is attached: a condition that never holds would turn a
Deny into nothing. An Allow with an unknown key is taken, and allows nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from clary.core.conditions import Condition, can_decide, covers, glob, known_key, known_operator, overlaps
from clary.errors import AwsError

Document = Mapping[str, object]
"""A policy as JSON."""
Context = Mapping[str, Sequence[str]]
"""Values by condition key, the keys in lower case."""

LARGEST = 10240
"""Characters of a document, without white space: the quota of a role's inline policies."""

_VERSIONS = ("2008-10-17", "2012-10-17")
_ACTION = re.compile(r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+")
_ELEMENTS = frozenset(
    ("Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition", "Principal", "NotPrincipal")
)


class Verdict(Enum):
    """What a set of policies says."""

    ALLOWED = "allowed"
    SILENT = "silent"
    """No statement allows it: denied by default."""
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class Inquiry:
    """May somebody do this? `resource` is an ARN, or `*` for what has none."""

    action: str
    resource: str
    context: Context = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    """Beginnings of condition keys whose values cannot be had here: a Deny on one holds, an Allow does not."""
    all_below: bool = False
    """The resource ends with `*` and stands for all that begin like it: a Deny holds that is about any of them, an
    Allow that is about all."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. Actions are in lower case."""

    effect: Literal["Allow", "Deny"]
    actions: tuple[str, ...]
    not_actions: bool
    resources: tuple[str, ...]
    not_resources: bool
    conditions: tuple[Condition, ...]
    principals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of trust policies: `AWS`, `Service` and the patterns of each."""

    def applies(self, inquiry: Inquiry) -> bool:
        """Tell whether action, resource and conditions are those of this statement."""
        action = inquiry.action.lower()
        if any(glob(pattern, action) for pattern in self.actions) is self.not_actions:
            return False
        if not self._names(inquiry):
            return False
        for condition in self.conditions:
            if condition.key.startswith(inquiry.unknown or ("\0",)) or not known_key(condition.key):
                if self.effect == "Allow":
                    return False
            elif not condition.holds(inquiry.context):
                return False
        return True

    def _names(self, inquiry: Inquiry) -> bool:
        """Tell whether the statement is about the resource."""
        test: Callable[[str, str], bool] = glob
        resource = inquiry.resource
        if inquiry.all_below:
            # NotResource is about what its patterns leave over: with them all and any change places.
            test = covers if (self.effect == "Allow") is not self.not_resources else overlaps
            resource = resource.removesuffix("*")
        return any(test(pattern, resource) for pattern in self.resources) is not self.not_resources


@dataclass(frozen=True, slots=True)
class Policy:
    """A document that was read."""

    statements: tuple[Statement, ...]


def evaluate(policies: Iterable[Policy], inquiry: Inquiry) -> Verdict:
    """Decide by all statements together: Deny, then Allow, then the silence that denies too."""
    verdict = Verdict.SILENT
    for policy in policies:
        for statement in policy.statements:
            if statement.applies(inquiry):
                if statement.effect == "Deny":
                    return Verdict.DENIED
                verdict = Verdict.ALLOWED
    return verdict


def parse(document: object, *, trust: bool = False) -> Policy:
    """Read an identity's policy, or with `trust` the document that says who may assume a role.

    Raises AwsError MalformedPolicyDocument (400) in IAM's words where these are known.
    """
    if not isinstance(document, Mapping):
        raise malformed("Syntax errors in policy.")
    if len(json.dumps(document, separators=(",", ":"))) > LARGEST:
        raise malformed(f"The policy has more than {LARGEST} characters.")
    if unknown := sorted(set(map(str, document)) - {"Version", "Id", "Statement"}):
        raise malformed(f"Syntax errors in policy. Unknown element: {unknown[0]}.")
    if document.get("Version", _VERSIONS[0]) not in _VERSIONS:
        raise malformed("The policy must contain a valid version string.")
    given = document.get("Statement")
    listed = [given] if isinstance(given, Mapping) else given
    if not isinstance(listed, list) or not listed:
        raise malformed("Syntax errors in policy.")
    sids = [str(each["Sid"]) for each in listed if isinstance(each, Mapping) and "Sid" in each]
    if len(set(sids)) < len(sids):
        raise malformed("Statement IDs (SID) in a single policy must be unique.")
    return Policy(tuple(_statement(each, trust=trust) for each in listed))


def malformed(message: str) -> AwsError:
    """Make the refusal of a document."""
    return AwsError(message, code="MalformedPolicyDocument", status=400)


def _statement(given: object, *, trust: bool) -> Statement:
    if not isinstance(given, Mapping) or set(given) - _ELEMENTS:
        raise malformed("Syntax errors in policy.")
    effect = given.get("Effect")
    if effect != "Allow" and effect != "Deny":
        raise malformed("Missing required field Effect." if effect is None else f"Invalid effect: {effect}.")
    actions, not_actions = _either(given, "Action", "Policy statement must contain actions.")
    for action in actions:
        if not _ACTION.fullmatch(action):
            raise malformed("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
    if trust:
        if {"Resource", "NotResource"} & set(given):
            raise malformed("Has prohibited field Resource.")
        resources: tuple[str, ...] = ("*",)
        not_resources = False
    else:
        if {"Principal", "NotPrincipal"} & set(given):
            raise malformed("Policy document should not specify a principal.")
        resources, not_resources = _either(given, "Resource", "Policy statement must contain resources.")
    for resource in resources:
        if resource != "*" and not resource.startswith("arn:"):
            raise malformed(f'Resource {resource} must be in ARN format or "*".')
        if "${" in resource:
            raise malformed(f"Policy variables are not supported here: {resource}.")
    conditions = tuple(_conditions(given.get("Condition", {}), in_deny=effect == "Deny"))
    principals = _principals(given) if trust else {}
    lowered = tuple(action.lower() for action in actions)
    return Statement(effect, lowered, not_actions, resources, not_resources, conditions, principals)


def _either(given: Mapping[str, object], name: str, missing: str) -> tuple[tuple[str, ...], bool]:
    """Read `Action` or `NotAction`: its values, and whether it was the negated one."""
    if (name in given) == (f"Not{name}" in given):
        raise malformed(missing)
    negated = name not in given
    values = _texts(given[f"Not{name}" if negated else name])
    if not values:
        raise malformed(missing)
    return values, negated


def _texts(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(each, (str, bool, int, float)) for each in values):
        raise malformed("Syntax errors in policy.")
    return tuple(str(each).lower() if isinstance(each, bool) else str(each) for each in values)


def _conditions(given: object, *, in_deny: bool) -> Iterable[Condition]:
    if not isinstance(given, Mapping):
        raise malformed("Syntax errors in policy.")
    for operator, block in given.items():
        if not isinstance(block, Mapping) or not isinstance(operator, str):
            raise malformed("Syntax errors in policy.")
        if not known_operator(operator):
            raise malformed(f"Invalid Condition type : {operator}.")
        for key, value in block.items():
            name = str(key).lower()
            if in_deny and not known_key(name):
                raise malformed(f"Clary does not know the condition key {key} and could not enforce the Deny.")
            values = _texts(value)
            if any("${" in each for each in values):
                raise malformed(f"Policy variables are not supported here: {key}.")
            if operator.rpartition(":")[2].removesuffix("IfExists") in ("Bool", "Null"):
                values = tuple(each.lower() for each in values)
            if undecidable := [each for each in values if not can_decide(operator, each)]:
                raise malformed(f"{undecidable[0]} is no value for {operator}.")
            yield Condition.of(operator, name, values)


def _principals(given: Mapping[str, object]) -> Mapping[str, tuple[str, ...]]:
    principal = given.get("Principal")
    if "NotPrincipal" in given or principal is None:
        raise malformed("Missing required field Principal.")
    if principal == "*":
        return {"AWS": ("*",)}
    if not isinstance(principal, Mapping) or not principal or set(principal) - {"AWS", "Service", "Federated"}:
        raise malformed("Invalid principal in policy.")
    return {str(kind): _texts(values) for kind, values in principal.items()}
