"""Policies: a table of decisions, what is refused, and what holds for every policy."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.core.conditions import glob
from clary.core.policy import Inquiry, Verdict, evaluate, parse
from clary.errors import AwsError

ENDPOINT = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/fish"
INVOKE = "sagemaker:InvokeEndpoint"


def statement(effect: str = "Allow", **elements: Any) -> dict[str, Any]:
    base = {"Effect": effect}
    if "NotAction" not in elements:
        base["Action"] = "*"
    if "NotResource" not in elements:
        base["Resource"] = "*"
    return {**base, **elements}


def decide(*statements: dict[str, Any], action: str = INVOKE, resource: str = ENDPOINT, **context: Any) -> Verdict:
    keys = {key: value if isinstance(value, tuple) else (value,) for key, value in context.pop("keys", {}).items()}
    policy = parse({"Version": "2012-10-17", "Statement": list(statements)})
    return evaluate([policy], Inquiry(action, resource, keys, **context))


@pytest.mark.parametrize(
    ("statements", "verdict"),
    [
        ([statement(Action=INVOKE)], "ALLOWED"),
        ([statement(Action="SageMaker:invokeendpoint")], "ALLOWED"),
        ([statement(Action="sagemaker:Invoke*")], "ALLOWED"),
        ([statement(Action="sagemaker:InvokeEndpoin?")], "ALLOWED"),
        ([statement(Action="sagemaker:InvokeEndpoint?")], "SILENT"),
        ([statement(Action=["s3:*", INVOKE])], "ALLOWED"),
        ([statement(Action="s3:*")], "SILENT"),
        ([statement(NotAction="s3:*")], "ALLOWED"),
        ([statement(NotAction="sagemaker:*")], "SILENT"),
        ([statement(Resource="arn:aws:sagemaker:*:123456789012:endpoint/*")], "ALLOWED"),
        ([statement(Resource="arn:aws:sagemaker:*:*:endpoint/f?sh")], "ALLOWED"),
        ([statement(Resource=ENDPOINT.upper().replace("ARN", "arn", 1))], "SILENT"),
        ([statement(NotResource=ENDPOINT)], "SILENT"),
        ([statement(NotResource="arn:aws:s3:::*")], "ALLOWED"),
        ([statement(), statement("Deny", Action=INVOKE)], "DENIED"),
        ([statement("Deny", Action="sagemaker:Delete*"), statement()], "ALLOWED"),
        ([statement("Deny", NotResource=ENDPOINT), statement()], "ALLOWED"),
    ],
)
def test_actions_and_resources_decide(statements: list[dict[str, Any]], verdict: str) -> None:
    assert decide(*statements) is Verdict[verdict]


def test_no_policy_allows_nothing() -> None:
    assert evaluate([], Inquiry(INVOKE, ENDPOINT)) is Verdict.SILENT


MODEL = "sagemaker:TargetModel"


@pytest.mark.parametrize(
    ("condition", "keys", "holds"),
    [
        ({"StringEquals": {MODEL: "a"}}, {MODEL: "a"}, True),
        ({"StringEquals": {"SAGEMAKER:targetmodel": ["b", "a"]}}, {MODEL: "a"}, True),
        ({"StringEquals": {MODEL: "a"}}, {MODEL: "A"}, False),
        ({"StringEqualsIgnoreCase": {MODEL: "a"}}, {MODEL: "A"}, True),
        ({"StringEquals": {MODEL: "a"}}, {}, False),
        ({"StringEqualsIfExists": {MODEL: "a"}}, {}, True),
        ({"StringEqualsIfExists": {MODEL: "a"}}, {MODEL: "b"}, False),
        ({"StringNotEquals": {MODEL: "a"}}, {}, True),
        ({"StringNotEquals": {MODEL: ["a", "b"]}}, {MODEL: "b"}, False),
        ({"StringLike": {MODEL: "team-a/*"}}, {MODEL: "team-a/m.tar.gz"}, True),
        ({"StringNotLike": {MODEL: "team-a/*"}}, {MODEL: "team-b/m.tar.gz"}, True),
        ({"Null": {MODEL: "true"}}, {}, True),
        ({"Null": {MODEL: True}}, {MODEL: "a"}, False),
        ({"Null": {MODEL: "false"}}, {MODEL: "a"}, True),
        ({"Bool": {"sagemaker:NetworkIsolation": True}}, {"sagemaker:NetworkIsolation": "true"}, True),
        (
            {"NumericLessThanEquals": {"sagemaker:ServerlessMemorySize": 2048}},
            {"sagemaker:ServerlessMemorySize": "2048"},
            True,
        ),
        (
            {"NumericLessThan": {"sagemaker:ServerlessMemorySize": "2048"}},
            {"sagemaker:ServerlessMemorySize": "2048"},
            False,
        ),
        (
            {"NumericGreaterThan": {"sagemaker:ServerlessMemorySize": "9"}},
            {"sagemaker:ServerlessMemorySize": "10"},
            True,
        ),
        ({"NumericEquals": {"sagemaker:ServerlessMemorySize": "9"}}, {"sagemaker:ServerlessMemorySize": "x"}, False),
        ({"DateLessThan": {"aws:CurrentTime": "2030-01-01T00:00:00Z"}}, {"aws:CurrentTime": "1800000000"}, True),
        ({"DateGreaterThan": {"aws:CurrentTime": "2030-01-01"}}, {"aws:CurrentTime": "1800000000"}, False),
        (
            {"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/x*"}},
            {"aws:PrincipalArn": "arn:aws:iam::1:role/xy"},
            True,
        ),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:*:role/x*"}}, {"aws:PrincipalArn": "arn:aws:iam::1:role/xy"}, False),
        (
            {"ArnNotEquals": {"aws:PrincipalArn": "arn:aws:iam::1:role/x"}},
            {"aws:PrincipalArn": "arn:aws:iam::1:role/y"},
            True,
        ),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {"aws:TagKeys": ("a", "b")}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}, {"aws:TagKeys": ("a", "b")}, False),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}, {}, True),
        ({"ForAnyValue:StringLike": {"aws:TagKeys": "a*"}}, {"aws:TagKeys": ("b", "ab")}, True),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": "a"}}, {}, False),
        ({"ForAnyValue:StringNotEquals": {"aws:TagKeys": "a"}}, {"aws:TagKeys": ("a", "b")}, True),
        ({"StringNotEquals": {"sagemaker:InstanceTypes": "x"}}, {"sagemaker:InstanceTypes": ("a", "x")}, False),
        ({"StringEquals": {"aws:RequestTag/Team": "s"}}, {"aws:RequestTag/team": "s"}, True),
        ({"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "::1"]}}, {"aws:SourceIp": "10.1.2.3"}, True),
        ({"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "::1"]}}, {"aws:SourceIp": "::1"}, True),
        ({"IpAddress": {"aws:SourceIp": "10.1.2.3/8"}}, {"aws:SourceIp": "11.0.0.1"}, False),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {}, False),
        ({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"aws:SourceIp": "10.1.2.3"}, False),
        ({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {}, True),
        ({"Bool": {"aws:SecureTransport": "false"}}, {"aws:SecureTransport": "false"}, True),
        ({"BoolIfExists": {"aws:MultiFactorAuthPresent": "true"}}, {}, True),
        ({"StringNotEquals": {"aws:SourceVpce": "vpce-1"}}, {}, True),
        ({"StringEqualsIfExists": {"aws:PrincipalTag/Team": "s"}}, {}, True),
        ({"StringEquals": {"aws:PrincipalTag/Team": "s"}}, {"aws:principaltag/team": "s"}, True),
        ({"StringEquals": {MODEL: "a", "aws:username": "u"}}, {MODEL: "a"}, False),
        (
            {"StringEquals": {MODEL: "a"}, "StringLike": {"aws:username": "u*"}},
            {MODEL: "a", "aws:username": "u1"},
            True,
        ),
    ],
)
def test_conditions(condition: dict[str, Any], keys: dict[str, Any], holds: bool) -> None:
    lowered = {key.lower(): value for key, value in keys.items()}
    assert decide(statement(Condition=condition), keys=lowered) is (Verdict.ALLOWED if holds else Verdict.SILENT)


def test_what_cannot_be_known_denies_either_way() -> None:
    tagged = {"StringEquals": {"aws:ResourceTag/team": "search"}}
    unknown = ("aws:resourcetag/",)
    assert decide(statement(Condition=tagged), unknown=unknown) is Verdict.SILENT
    assert decide(statement(), statement("Deny", Condition=tagged), unknown=unknown) is Verdict.DENIED


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "Syntax errors in policy."),
        ({}, "Syntax errors in policy."),
        ({"Statement": []}, "Syntax errors in policy."),
        ({"Statement": ["x"]}, "Syntax errors in policy."),
        ({"Statement": [statement()], "Statment": 1}, "Syntax errors in policy. Unknown element: Statment."),
        ({"Version": "2012-10-18", "Statement": [statement()]}, "The policy must contain a valid version string."),
        ({"Statement": {"Action": "*", "Resource": "*"}}, "Missing required field Effect."),
        ({"Statement": statement("allow")}, "Invalid effect: allow."),
        ({"Statement": {"Effect": "Allow", "Resource": "*"}}, "Policy statement must contain actions."),
        ({"Statement": statement(NotAction="s3:*", Action="s3:*")}, "Policy statement must contain actions."),
        ({"Statement": {"Effect": "Allow", "Action": "*"}}, "Policy statement must contain resources."),
        (
            {"Statement": statement(Action="InvokeEndpoint")},
            "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
        ),
        ({"Statement": statement(Resource="fish")}, 'Resource fish must be in ARN format or "*".'),
        ({"Statement": statement(Principal="*")}, "Policy document should not specify a principal."),
        ({"Statement": statement(Actoin="*")}, "Syntax errors in policy."),
        ({"Statement": statement(Action={"a": 1})}, "Syntax errors in policy."),
        ({"Statement": statement(Condition={"StringMatches": {}})}, "Invalid Condition type : StringMatches."),
        ({"Statement": statement(Condition={"NullIfExists": {}})}, "Invalid Condition type : NullIfExists."),
        ({"Statement": statement(Condition={"Some:StringLike": {}})}, "Invalid Condition type : Some:StringLike."),
        (
            {"Statement": statement("Deny", Condition={"BinaryEquals": {"aws:SourceIp": "10.0.0.0/8"}})},
            "Invalid Condition type : BinaryEquals.",
        ),
        (
            {"Statement": statement("Deny", Condition={"StringEquals": {"s3:ExistingObjectTag/a": "v"}})},
            "Clary does not know the condition key s3:ExistingObjectTag/a and could not enforce the Deny.",
        ),
        (
            {"Statement": statement(Resource="arn:aws:s3:::${aws:username}")},
            "Policy variables are not supported here: arn:aws:s3:::${aws:username}.",
        ),
        (
            {"Statement": [statement(Sid="a"), statement(Sid="a")]},
            "Statement IDs (SID) in a single policy must be unique.",
        ),
        ({"Statement": statement(Resource="arn:" + "x" * 10240)}, "The policy has more than 10240 characters."),
    ],
)
def test_documents_that_could_not_be_enforced_are_refused(document: object, message: str) -> None:
    with pytest.raises(AwsError) as refused:
        parse(document)
    assert (refused.value.code, refused.value.status, refused.value.message) == (
        "MalformedPolicyDocument",
        400,
        message,
    )


def test_a_trust_policy_names_principals_and_no_resources() -> None:
    document = {"Statement": {"Effect": "Allow", "Principal": {"Service": "s"}, "Action": "sts:AssumeRole"}}
    assert parse(document, trust=True).statements[0].principals == {"Service": ("s",)}
    with pytest.raises(AwsError, match=r"Has prohibited field Resource\."):
        parse({"Statement": statement(Principal="*")}, trust=True)
    with pytest.raises(AwsError, match=r"Invalid principal in policy\."):
        parse({"Statement": {**document["Statement"], "Principal": {}}}, trust=True)


texts = st.text("ab:/*?", max_size=12)


@given(texts, st.text("ab:/", max_size=12))
def test_patterns_match_as_the_standard_librarys_do(pattern: str, text: str) -> None:
    assert glob(pattern, text) is fnmatch.fnmatchcase(text, pattern)


def test_a_pattern_of_many_stars_is_decided_at_once() -> None:
    assert not glob("*a" * 200 + "b", "a" * 2000)


effects = st.sampled_from(["Allow", "Deny"])
patterns = st.sampled_from(["*", "s3:*", "sagemaker:*", INVOKE, "sagemaker:I*t"])
resources = st.sampled_from(["*", ENDPOINT, "arn:aws:sagemaker:*", "arn:aws:s3:::b"])
statements = st.builds(lambda e, a, r: statement(e, Action=a, Resource=r), effects, patterns, resources)


@given(st.lists(statements, min_size=1, max_size=6), st.randoms())
def test_order_decides_nothing_and_a_deny_always_wins(drawn: list[dict[str, Any]], random: Any) -> None:
    verdict = decide(*drawn)
    shuffled = list(drawn)
    random.shuffle(shuffled)
    assert decide(*shuffled) is verdict
    assert decide(*drawn, statement("Deny")) is Verdict.DENIED
    wider = decide(*drawn, statement())
    assert wider is (Verdict.DENIED if verdict is Verdict.DENIED else Verdict.ALLOWED)


@pytest.mark.parametrize(
    ("operator", "key", "value"),
    [
        ("Null", "aws:RequestTag/x", "banana"),
        ("Bool", "sagemaker:NetworkIsolation", "yes"),
        ("DateGreaterThan", "aws:CurrentTime", "notadate"),
        ("NotIpAddress", "aws:SourceIp", "10.0.0.256"),
        ("NumericLessThanIfExists", "sagemaker:ServerlessMaxConcurrency", "abc"),
    ],
)
def test_a_value_that_an_operator_can_never_match_is_refused(operator: str, key: str, value: str) -> None:
    statement = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {operator: {key: value}}}
    with pytest.raises(AwsError, match=f"{value} is no value for {operator}"):
        parse({"Version": "2012-10-17", "Statement": statement})


def test_true_is_true_however_it_is_written() -> None:
    for true in ("true", "True", "TRUE"):
        statement = {
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            "Condition": {"Null": {"aws:RequestTag/x": true}},
        }
        policy = parse({"Version": "2012-10-17", "Statement": statement})
        assert evaluate((policy,), Inquiry("sagemaker:CreateModel", "*", {})) is Verdict.DENIED


@pytest.mark.parametrize("operator", ["StringEquals", "StringNotEquals", "StringEqualsIfExists", "Null"])
def test_an_allow_with_an_unknown_key_is_taken_and_allows_nothing(operator: str) -> None:
    asked = {operator: {"s3:ExistingObjectTag/team": "true"}}
    assert decide(statement(Condition=asked)) is Verdict.SILENT
    assert decide(statement(Condition=asked), statement()) is Verdict.ALLOWED


BELOW = "arn:aws:s3:::b/m/"


@pytest.mark.parametrize(
    ("resources", "allowed", "denied"),
    [
        (("*",), True, True),
        ((BELOW + "*",), True, True),
        (("arn:aws:s3:::b/*",), True, True),
        ((BELOW + "?*",), True, True),
        ((BELOW + "?",), False, True),
        ((BELOW + "*.bin",), False, True),
        ((BELOW + "secret/*",), False, True),
        ((BELOW + "secret/x",), False, True),
        (("arn:aws:s3:::*/secret",), False, True),
        (("arn:aws:s3:::?/m/x*",), False, True),
        (("arn:aws:s3:::b/n/*",), False, False),
        (("arn:aws:s3:::b/m",), False, False),
        (("arn:aws:s3:::b/n/*", BELOW + "x"), False, True),
    ],
)
def test_all_that_is_below_must_be_allowed_and_nothing_of_it_denied(
    resources: tuple[str, ...], allowed: bool, denied: bool
) -> None:
    def verdict(*statements: dict[str, Any]) -> Verdict:
        return decide(*statements, action="s3:GetObject", resource=BELOW + "*", all_below=True)

    def about(effect: str, element: str = "Resource") -> dict[str, Any]:
        return {"Effect": effect, "Action": "s3:*", element: list(resources)}

    all_of_it = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    assert (verdict(about("Allow")) is Verdict.ALLOWED) is allowed
    assert (verdict(all_of_it, about("Deny")) is Verdict.DENIED) is denied
    # what is named by none of the patterns: all of it, or some
    assert (verdict(about("Allow", "NotResource")) is Verdict.ALLOWED) is not denied
    assert (verdict(all_of_it, about("Deny", "NotResource")) is Verdict.DENIED) is not allowed
