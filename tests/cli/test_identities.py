"""keys and roles: what they ask of the server, and what they print."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from .conftest import FakeClary

Run = Callable[..., Result]
POLICY = {"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}


@pytest.fixture
def asked(clary: FakeClary, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was asked; the answers that are put in front come first."""
    seen: list[Any] = []
    replies: list[tuple[int, Any]] = []

    def rest(method: str, path: str, query: Any, body: bytes) -> tuple[int, dict[str, str], str]:
        assert (method, path) == ("POST", "/_clary/iam")
        seen.append(json.loads(body))
        status, reply = replies.pop(0) if replies else (200, {})
        return status, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(reply)

    monkeypatch.setattr(clary, "rest", rest)
    monkeypatch.setattr(clary, "replies", replies, raising=False)
    return seen


def replies(clary: FakeClary) -> list[tuple[int, Any]]:
    return clary.replies  # type: ignore[attr-defined, no-any-return]  # see `asked`


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(POLICY))
    return file


def test_a_new_key_comes_as_exports(clary: FakeClary, asked: list[Any], policy: Path, run: Run) -> None:
    replies(clary).append((200, {"AccessKeyId": "AKIA1", "SecretAccessKey": "a/b+c"}))
    result = run("keys", "create", "ci", "--policy", policy, "--policy", policy, "--data", clary.data)
    assert result.stdout == "export AWS_ACCESS_KEY_ID=AKIA1\nexport AWS_SECRET_ACCESS_KEY=a/b+c\n"
    assert asked == [{"Do": "CreateKey", "Name": "ci", "Policies": [POLICY, POLICY]}]


def test_lists_have_a_line_each(clary: FakeClary, asked: list[Any], run: Run) -> None:
    item = {"Name": "ci", "Policies": [POLICY], "CreateDate": 1_700_000_000.0}
    replies(clary).extend([(200, {"Keys": [{**item, "AccessKeyId": "AKIA1"}]}), (200, {"Roles": []})])
    assert run("keys", "list", "--data", clary.data).stdout.split() == ["ci", "AKIA1", "2023-11-14", "1", "policy"]
    assert run("roles", "list", "--data", clary.data).stdout == ""
    assert asked == [{"Do": "ListKeys"}, {"Do": "ListRoles"}]


def test_a_new_role_comes_as_its_arn(clary: FakeClary, asked: list[Any], policy: Path, run: Run) -> None:
    replies(clary).extend([(200, {"Arn": "arn:aws:iam::1:role/r"})] * 3)
    assert run("roles", "create", "r", "--data", clary.data).stdout == "arn:aws:iam::1:role/r\n"
    run("roles", "create", "r", "--trust", policy, "--data", clary.data)
    run("roles", "create", "r", "--path", "/service-role/", "--data", clary.data)
    assert asked[0] == {"Do": "CreateRole", "Name": "r", "Policies": []}
    assert asked[2]["Path"] == "/service-role/"
    assert asked[1] == {"Do": "CreateRole", "Name": "r", "Policies": [], "Trust": POLICY}


def test_tags_are_keys_and_values(clary: FakeClary, asked: list[Any], run: Run) -> None:
    replies(clary).extend([(200, {"AccessKeyId": "AKIA1", "SecretAccessKey": "s"}), (200, {"Arn": "arn:r"})])
    for group in ("keys", "roles"):
        run(group, "create", "x", "--tag", "team=a=b", "--tag", "empty=", "--data", clary.data)
        assert asked.pop()["Tags"] == {"team": "a=b", "empty": ""}
    for wrong in ("team", "=a"):
        assert run("keys", "create", "x", "--tag", wrong, "--data", clary.data).exit_code == 1
    assert asked == []


def test_deleting_asks_for_it(clary: FakeClary, asked: list[Any], run: Run) -> None:
    for group, what in (("keys", "DeleteKey"), ("roles", "DeleteRole")):
        assert run(group, "delete", "x", "--data", clary.data).exit_code == 0
        assert asked.pop() == {"Do": what, "Name": "x"}


def test_the_servers_refusal_is_one_line(clary: FakeClary, asked: list[Any], run: Run) -> None:
    replies(clary).append((400, {"__type": "MalformedPolicyDocument", "message": "Syntax errors in policy."}))
    result = run("keys", "create", "ci", "--data", clary.data)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "clary: Syntax errors in policy. (MalformedPolicyDocument)\n"


def test_a_policy_that_is_not_json_is_not_sent(clary: FakeClary, asked: list[Any], policy: Path, run: Run) -> None:
    policy.write_text("{")
    result = run("keys", "create", "ci", "--policy", policy, "--data", clary.data)
    assert (result.exit_code, asked) == (1, [])
    assert f"{policy} is not JSON" in result.stderr


def test_nothing_running_is_an_error_that_says_what_to_do(data: Path, run: Run) -> None:
    assert "`clary up --data" in run("keys", "list", "--data", data).stderr
