"""STS: credentials that expire."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from clary.api.identities import Identities
from clary.core.conditions import circumstances
from clary.core.identities import denied, may_assume
from clary.core.policy import Inquiry, parse
from clary.core.sessions import Session
from clary.credentials import new_id
from clary.errors import AwsError
from clary.wire.dispatch import Caller, Handler

_DEFAULT_SECONDS = 3600
SUPPORTED = frozenset({"RoleArn", "RoleSessionName", "Policy", "DurationSeconds", "ExternalId"})
"""Members of AssumeRole that have their effect; every other one that says something is refused."""


class Sts:
    """AssumeRole. `now` gives seconds since the epoch."""

    def __init__(self, identities: Identities, now: Callable[[], float] = time.time) -> None:
        self._identities = identities
        self._now = now

    def operations(self) -> dict[tuple[str, str], Handler]:
        """Give the operations by service and name."""
        return {("sts", "AssumeRole"): self.assume_role}

    async def assume_role(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Grant temporary credentials, an hour's unless DurationSeconds says otherwise.

        Raises AccessDenied (403) for a role that is not there too, as the service does: it does not tell which roles
        there are.
        """
        if unsupported := next((name for name, value in request.items() if value and name not in SUPPORTED), None):
            raise AwsError(f"Clary does not implement {unsupported} of AssumeRole.", code="ValidationError", status=400)
        principal = self._identities.principal(caller)
        directory, arn, now = self._identities.directory, request["RoleArn"], self._now()
        context = circumstances(now, caller.source_ip, caller.user_agent, secure=caller.secure)
        if "ExternalId" in request:
            context["sts:externalid"] = (request["ExternalId"],)
        inquiry = Inquiry("sts:AssumeRole", arn, context)
        role = directory.role(arn)
        if role is None or not may_assume(role, principal, caller.account_id, inquiry):
            verdict = principal.verdict(inquiry)[0]
            text = denied(principal.arn, inquiry, verdict, "identity-based").message.partition(" because no ")
            # The service does not say which of the two policies it is that does not allow it.
            raise AwsError(text[0], code="AccessDenied", status=403)
        policy = _session_policy(request.get("Policy"))
        expires_at = float(int(now) + request.get("DurationSeconds", _DEFAULT_SECONDS))
        session = Session(new_id("ASIA"), role.id, role.name, request["RoleSessionName"], expires_at, policy)
        token, secret = self._identities.sessions.grant(session)
        assumed = directory.principal(session.access_key_id, session)
        assert assumed is not None
        return {
            "Credentials": {
                "AccessKeyId": session.access_key_id,
                "SecretAccessKey": secret,
                "SessionToken": token,
                "Expiration": expires_at,
            },
            "AssumedRoleUser": {"AssumedRoleId": assumed.id, "Arn": assumed.arn},
        }


def _session_policy(text: str | None) -> dict[str, object] | None:
    if not text:
        return None
    try:
        document = json.loads(text)
    except ValueError:
        raise AwsError("Syntax errors in policy.", code="MalformedPolicyDocument", status=400) from None
    parse(document)
    return dict(document)
