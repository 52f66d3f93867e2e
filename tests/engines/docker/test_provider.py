"""RepositoryCredentialsProviderArn: what the function is asked, what of its answers counts, and what is never told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from clary.engines.docker.provider import CredentialsProvider
from clary.errors import LaunchFailure, Transient

from .registry import FakeLambda, give

ARN = "arn:aws:lambda:eu-west-2:123456789012:function:login"


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLambda]:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret")
    with FakeLambda() as here:
        here.answers["login"] = give("ada", "hush")
        yield here


@pytest.mark.parametrize("arn", [ARN, f"{ARN}:PROD", f"{ARN}:$LATEST", ARN.replace("aws", "aws-us-gov", 1)])
async def test_a_function_gives_user_name_and_password(functions: FakeLambda, arn: str) -> None:
    login = await CredentialsProvider(functions.url).login(arn)
    assert (login.source, login.username, login.password) == (arn, "ada", "hush")
    assert functions.asked == [(arn, b"{}")]


async def test_an_emulator_is_asked_without_credentials_where_there_are_none(
    functions: FakeLambda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    assert (await CredentialsProvider(functions.url).login(ARN)).username == "ada"


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "hush",
        ["hush"],
        {"Username": "ada", "Password": "hush"},
        {"Credentials": None},
        {"Credentials": {"username": "ada", "password": "hush"}},
        {"Credentials": {"Username": "ada"}},
        {"Credentials": {"Username": "ada", "Password": 5}},
        {"statusCode": 200, "body": '{"Credentials": {"Username": "ada", "Password": "hush"}}'},
    ],
    ids=str,
)
async def test_another_answer_is_refused_without_a_word_of_it(functions: FakeLambda, answer: Any) -> None:
    functions.answers["login"] = answer
    with pytest.raises(LaunchFailure, match=r'must answer with {"Credentials": {"Username"') as raised:
        await CredentialsProvider(functions.url).login(ARN)
    assert "hush" not in raised.value.message
    assert "ada" not in raised.value.message


async def test_a_function_that_fails_is_named_and_its_message_is_not_told(functions: FakeLambda) -> None:
    functions.answers["login"] = {"errorType": "KeyError", "errorMessage": "hush"}
    functions.errors["login"] = "Unhandled"
    with pytest.raises(LaunchFailure, match=r"function:login failed \(KeyError\)") as raised:
        await CredentialsProvider(functions.url).login(ARN)
    assert "hush" not in raised.value.message


async def test_without_an_endpoint_the_setting_is_named() -> None:
    with pytest.raises(LaunchFailure, match=r"--lambda-endpoint URL \(lambda_endpoint"):
        await CredentialsProvider("").login(ARN)


async def test_a_function_that_is_not_there_is_said(functions: FakeLambda) -> None:
    with pytest.raises(LaunchFailure, match=r"There is no such function there"):
        await CredentialsProvider(functions.url).login(ARN.replace("login", "none"))


@pytest.mark.parametrize("arn", ["login", "arn:aws:iam::123456789012:role/x", "arn:aws:lambda:eu-west-2:1:function:x"])
async def test_what_is_no_function_is_said(functions: FakeLambda, arn: str) -> None:
    with pytest.raises(LaunchFailure, match="is not the ARN of a Lambda function"):
        await CredentialsProvider(functions.url).login(arn)
    assert functions.asked == []


@pytest.mark.parametrize(("status", "kind"), [(403, LaunchFailure), (429, Transient), (503, Transient)])
async def test_a_refusal_is_final_and_a_fault_is_not(
    functions: FakeLambda, status: int, kind: type[LaunchFailure] | type[Transient]
) -> None:
    functions.status = status
    with pytest.raises(kind, match=str(status)):
        await CredentialsProvider(functions.url).login(ARN)


async def test_an_api_that_is_away_is_waited_for(functions: FakeLambda, deaf_port: int) -> None:
    with pytest.raises(Transient, match=r"\(lambda_endpoint\) does not answer"):
        await CredentialsProvider(f"http://127.0.0.1:{deaf_port}").login(ARN)
