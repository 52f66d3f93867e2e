"""The Condition element of policies: operators, and the keys that there are.

Source: the IAM user guide, "IAM JSON policy elements: Condition operators". All keys of a block must hold; of a key's
values one must. A key that the request has not fails an operator, satisfies a negated one and satisfies `...IfExists`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from operator import eq, ge, gt, le, lt

_KEYS = frozenset(
    {
        # Of every request.
        *("aws:currenttime", "aws:epochtime", "aws:requestedregion", "aws:securetransport", "aws:sourceip"),
        *("aws:useragent", "aws:viaawsservice", "aws:tagkeys"),
        # Of the caller.
        *("aws:multifactorauthpresent", "aws:principalaccount", "aws:principalarn", "aws:principaltype"),
        *("aws:userid", "aws:username"),
        # Of what no request here has: no organisation, no VPC endpoint, no service in between.
        *("aws:calledvia", "aws:principalorgid", "aws:sourcevpc", "aws:sourcevpce", "aws:vpcsourceip"),
        # Of models, configurations and endpoints.
        *("sagemaker:acceleratortypes", "sagemaker:instancetypes", "sagemaker:modelarn", "sagemaker:networkisolation"),
        *("sagemaker:serverlessmaxconcurrency", "sagemaker:serverlessmemorysize", "sagemaker:volumekmskey"),
        "sagemaker:outputkmskey",
        *("sagemaker:targetcontainerhostname", "sagemaker:targetmodel"),
        *("sagemaker:vpcsecuritygroupids", "sagemaker:vpcsubnets"),
        # Of metrics.
        "cloudwatch:namespace",
        # Of the registry.
        *("sagemaker:customermetadatapropertiestoremove", "sagemaker:modelapprovalstatus"),
        *("sagemaker:modellifecycle:stage", "sagemaker:modellifecycle:stagestatus"),
        *("aws:sourceaccount", "aws:sourcearn", "iam:passedtoservice", "s3:delimiter", "s3:prefix", "sts:externalid"),
    }
)
"""Those of which Clary knows the value, or that there is none."""
_KEY_PREFIXES = (
    *("aws:principaltag/", "aws:requesttag/", "aws:resourcetag/", "sagemaker:resourcetag/"),
    "sagemaker:customermetadataproperties/",
)


def known_key(key: str) -> bool:
    """Tell whether a key, in lower case, is one that can be decided."""
    return key in _KEYS or key.startswith(_KEY_PREFIXES)


def circumstances(now: float, source_ip: str, user_agent: str, *, secure: bool) -> dict[str, tuple[str, ...]]:
    """Give the condition keys of every request. `now` in seconds since the epoch; what is empty is not there.

    `secure`: the request came over TLS that ends here; whoever ends TLS in front of Clary is seen as the source.
    """
    moment = str(int(now))
    found = {"aws:currenttime": moment, "aws:epochtime": moment, "aws:securetransport": "true" if secure else "false"}
    found |= {"aws:sourceip": source_ip, "aws:useragent": user_agent}
    return {key: (value,) for key, value in found.items() if value}


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


def covers(pattern: str, beginning: str) -> bool:
    """Tell whether a pattern matches everything that is longer than a text and begins with it."""
    return pattern.endswith("*") and glob(pattern, f"{beginning}\0")  # `\0`: something that only wildcards match


def overlaps(pattern: str, beginning: str) -> bool:
    """Tell whether a pattern matches anything that begins with a text: whether it can take the text at all."""

    def reached(at: int) -> Iterator[int]:
        yield at
        while pattern[at : at + 1] == "*":
            at += 1
            yield at

    places = set(reached(0))
    for character in beginning:
        taking = (at for at in places if at < len(pattern) and pattern[at] in ("*", "?", character))
        places = {place for at in taking for place in reached(at if pattern[at] == "*" else at + 1)}
    return bool(places)


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


def _is_within(value: str, pattern: str) -> bool:
    try:
        return ip_address(value) in _network(pattern)
    except ValueError:
        return False


@lru_cache(256)
def _network(text: str) -> IPv4Network | IPv6Network:
    """Read an address or a range of them in CIDR notation, whose host bits may be set."""
    return ip_network(text, strict=False)


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
    "IpAddress": (_is_within, False),
    "NotIpAddress": (_is_within, True),
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
        elif name.endswith("IpAddress"):
            _network(value)
    except ValueError:
        return False
    return True


def _split(operator: str) -> tuple[str, str, bool]:
    over, colon, name = operator.rpartition(":")
    return (over if colon else ""), name.removesuffix("IfExists"), name.endswith("IfExists")
