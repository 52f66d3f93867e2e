"""The Condition element of policies: operators, and the keys that there are.

Source: the IAM user guide, "IAM JSON policy elements: Condition operators". All keys of a block must hold; of a key's
values one must. A key that the request has not fails an operator, satisfies a negated one and satisfies `...IfExists`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import eq, ge, gt, le, lt

KEYS = frozenset(
    (
        *("aws:currenttime", "aws:epochtime", "aws:principalaccount", "aws:principalarn", "aws:principaltype"),
        *(
            "aws:requestedregion",
            "aws:sourceaccount",
            "aws:tagkeys",
            "aws:userid",
            "aws:username",
            "iam:passedtoservice",
        ),
        *("s3:delimiter", "s3:prefix", "sagemaker:instancetypes", "sagemaker:modelarn", "sagemaker:networkisolation"),
        *("sagemaker:serverlessmaxconcurrency", "sagemaker:serverlessmemorysize", "sagemaker:targetcontainerhostname"),
        *("sagemaker:targetmodel", "sagemaker:volumekmskey", "sagemaker:vpcsecuritygroupids", "sagemaker:vpcsubnets"),
        "sts:externalid",
    )
)
"""Those whose values Clary gives."""
KEY_PREFIXES = ("aws:requesttag/", "aws:resourcetag/", "sagemaker:resourcetag/")

Test = Callable[[str, str], bool]
"""Holds the request's value against the policy's."""


def glob(pattern: str, text: str) -> bool:
    """Match with `*` (any characters) and `?` (one), in time proportional to the product of the lengths at most."""
    if "*" not in pattern and "?" not in pattern:
        return pattern == text
    at = place = kept = 0
    star = -1
    while place < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, kept = at, place
            at += 1
        elif at < len(pattern) and (pattern[at] == "?" or pattern[at] == text[place]):
            at += 1
            place += 1
        elif star >= 0:  # let the last star take one character more
            kept += 1
            at, place = star + 1, kept
        else:
            return False
    return not pattern[at:].strip("*")


def _arn(value: str, pattern: str) -> bool:
    """Match part by part: a star does not reach over the colons of an ARN."""
    values, patterns = value.split(":", 5), pattern.split(":", 5)
    return len(values) == len(patterns) and all(map(glob, patterns, values))


def _ignoring_case(value: str, pattern: str) -> bool:
    return value.lower() == pattern.lower()


def _like(value: str, pattern: str) -> bool:
    return glob(pattern, value)


def _numbers(compare: Callable[[float, float], bool]) -> Test:
    def test(value: str, pattern: str) -> bool:
        try:
            return compare(float(value), float(pattern))
        except ValueError:
            return False

    return test


def _dates(compare: Callable[[float, float], bool]) -> Test:
    def test(value: str, pattern: str) -> bool:
        try:
            return compare(_seconds(value), _seconds(pattern))
        except ValueError:
            return False

    return test


def _seconds(text: str) -> float:
    """Read seconds since the epoch or an ISO 8601 time, which is UTC where it does not say."""
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


# Name -> test, and whether the operator holds where the test does not.
_OPERATORS: Mapping[str, tuple[Test, bool]] = {
    "StringEquals": (eq, False),
    "StringNotEquals": (eq, True),
    "StringEqualsIgnoreCase": (_ignoring_case, False),
    "StringNotEqualsIgnoreCase": (_ignoring_case, True),
    "StringLike": (_like, False),
    "StringNotLike": (_like, True),
    "ArnEquals": (_arn, False),
    "ArnLike": (_arn, False),
    "ArnNotEquals": (_arn, True),
    "ArnNotLike": (_arn, True),
    "Bool": (_ignoring_case, False),
    "NumericEquals": (_numbers(eq), False),
    "NumericNotEquals": (_numbers(eq), True),
    "NumericLessThan": (_numbers(lt), False),
    "NumericLessThanEquals": (_numbers(le), False),
    "NumericGreaterThan": (_numbers(gt), False),
    "NumericGreaterThanEquals": (_numbers(ge), False),
    "DateEquals": (_dates(eq), False),
    "DateNotEquals": (_dates(eq), True),
    "DateLessThan": (_dates(lt), False),
    "DateLessThanEquals": (_dates(le), False),
    "DateGreaterThan": (_dates(gt), False),
    "DateGreaterThanEquals": (_dates(ge), False),
}
_SETS = ("ForAllValues", "ForAnyValue")


@dataclass(frozen=True, slots=True)
class Condition:
    """One key of one operator's block."""

    operator: str
    """Without what stands before and after it."""
    key: str
    values: tuple[str, ...]
    over: str = ""
    """`ForAllValues`, `ForAnyValue` or nothing."""
    if_exists: bool = False

    @classmethod
    def of(cls, operator: str, key: str, values: tuple[str, ...]) -> Condition:
        """Take an operator as it is written: `ForAnyValue:StringLikeIfExists`."""
        over, name, if_exists = _split(operator)
        return cls(name, key, values, over, if_exists)

    def holds(self, context: Mapping[str, Sequence[str]]) -> bool:
        """Tell whether the request satisfies it."""
        found = context.get(self.key, ())
        if self.operator == "Null":
            return (not found) is (self.values[:1] == ("true",))
        test, negated = _OPERATORS[self.operator]
        if not found:
            return self.if_exists or self.over == "ForAllValues" or (negated and not self.over)
        results = [any(test(value, pattern) for pattern in self.values) is not negated for value in found]
        # Without a set operator a negated one must hold for every value: one that is excluded is one too many.
        return all(results) if self.over == "ForAllValues" or (negated and not self.over) else any(results)


def known_operator(operator: str) -> bool:
    """Tell whether an operator, with what may stand before and after it, is one that can be decided."""
    over, name, if_exists = _split(operator)
    if name == "Null":
        return not over and not if_exists
    return name in _OPERATORS and over in ("", *_SETS)


def can_decide(operator: str, value: str) -> bool:
    """Tell whether a policy's value is one that the operator understands; any other would never match."""
    _, name, _ = _split(operator)
    if name in ("Bool", "Null"):
        return value in ("true", "false")
    try:
        if name.startswith("Numeric"):
            float(value)
        elif name.startswith("Date"):
            _seconds(value)
    except ValueError:
        return False
    return True


def _split(operator: str) -> tuple[str, str, bool]:
    over, colon, name = operator.rpartition(":")
    return (over if colon else ""), name.removesuffix("IfExists"), name.endswith("IfExists")
