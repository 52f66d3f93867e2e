"""RepositoryCredentialsProviderArn: the Lambda function that knows the login of a private registry.

AWS documents its answer, `{"Credentials": {"Username": ..., "Password": ...}}`, and not what it is asked with: it gets
an empty object. What it answers goes into the one pull that it was asked for, and nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import closing
from typing import TYPE_CHECKING, Any

from clary.engines.docker.logins import Login
from clary.errors import ClaryError, LaunchFailure, Transient

if TYPE_CHECKING:
    from botocore.client import BaseClient

_ARN = re.compile(r"arn:aws[a-z-]*:lambda:(?P<region>[a-z0-9-]+):\d{12}:function:[\w-]+(?::[\w$-]+)?", re.ASCII)
_CONNECT_TIMEOUT, _ANSWER_TIMEOUT = 5, 60


class CredentialsProvider:
    """Invokes functions at one Lambda API, with the AWS credentials of the environment that Clary runs in."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint

    async def login(self, arn: str) -> Login:
        """Ask a function for user name and password. Raises LaunchFailure or Transient, neither of which quotes it."""
        if not self._endpoint:
            raise LaunchFailure(
                "image",
                f"The registry's credentials come from the Lambda function {arn}, and Clary was not told where to "
                "invoke it: start it with --lambda-endpoint URL (lambda_endpoint in the settings file).",
            )
        match = _ARN.fullmatch(arn)
        if match is None:
            raise LaunchFailure(
                "image", f"RepositoryCredentialsProviderArn {arn} is not the ARN of a Lambda function; correct it."
            )
        return await asyncio.to_thread(self._ask, arn, match["region"])

    def _ask(self, arn: str, region: str) -> Login:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            with closing(self._client(region)) as client:
                answer = client.invoke(FunctionName=arn, Payload=b"{}")
                payload = answer["Payload"].read()
        except ClientError as error:
            raise self._refusal(arn, error.response) from error
        except BotoCoreError as error:
            raise Transient(
                f"The Lambda API at {self._endpoint} (lambda_endpoint) does not answer: {type(error).__name__}",
                retry_after=5.0,
            ) from error
        return _credentials(arn, payload, answer.get("FunctionError"))

    def _client(self, region: str) -> BaseClient:
        import botocore.session
        from botocore import UNSIGNED
        from botocore.config import Config

        session = botocore.session.Session()
        config = Config(
            connect_timeout=_CONNECT_TIMEOUT, read_timeout=_ANSWER_TIMEOUT, retries={"total_max_attempts": 2}
        )
        if session.get_credentials() is None:  # an emulator may not ask for any
            config = config.merge(Config(signature_version=UNSIGNED))
        return session.create_client("lambda", region_name=region, endpoint_url=self._endpoint, config=config)

    def _refusal(self, arn: str, answer: Any) -> ClaryError:
        code = answer.get("Error", {}).get("Code", "")
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        if status == 429 or status >= 500:
            return Transient(f"The Lambda API at {self._endpoint} answered {status} {code}", retry_after=5.0)
        if code == "ResourceNotFoundException":
            why = "There is no such function there; create it, or correct RepositoryCredentialsProviderArn."
        else:
            why = f"It answered {status} {code}. Check the AWS credentials that Clary runs with."
        return LaunchFailure("image", f"The Lambda function {arn} could not be invoked at {self._endpoint}. {why}")


def _credentials(arn: str, payload: bytes, error: str | None) -> Login:
    try:
        answer = json.loads(payload)
    except ValueError:
        answer = None
    if error:
        kind = answer.get("errorType", error) if isinstance(answer, dict) else error
        raise LaunchFailure(
            "image", f"The Lambda function {arn} failed ({kind}); its own log says why. It gave no credentials."
        )
    given = answer.get("Credentials") if isinstance(answer, dict) else None
    match given:
        case {"Username": str(username), "Password": str(password)}:
            return Login(arn, username, password)
    # Of what it answered instead nothing is said: it may be a secret in the wrong place.
    raise LaunchFailure(
        "image",
        f"The Lambda function {arn} must answer with "
        '{"Credentials": {"Username": "...", "Password": "..."}}, and answered something else.',
    )
