"""Temporary credentials that carry their own proof: whoever has the server's key verifies them without any table.

The token is what was granted, and an HMAC over it; the secret is another HMAC over the same. So a gateway accepts them
while the control plane is down, and nothing is kept for them or swept up after them.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

ROLE_CREDENTIALS = "/_clary/role-credentials"
"""The path where containers fetch the credentials of their role, as AWS's SDKs do from the platform that runs them."""
CREDENTIALS_HOST = "169.254.170.2"
"""Where those look for that path who are not on this machine's loopback: the SDKs ask a few addresses only (botocore's
ContainerMetadataFetcher), and this is the one that AWS gives its own containers."""
_MAC = 32


@dataclass(frozen=True, slots=True)
class Session:
    """Who a session token speaks for. `expires_at` in seconds since the epoch."""

    access_key_id: str
    role_id: str
    role_name: str
    name: str
    expires_at: float
    policy: Mapping[str, object] | None = None
    """The session policy: what it does not allow too, the session may not do."""


class Holder(NamedTuple):
    """Who may ask for a role's credentials: an instance, for as long as both it and this very role are there."""

    role_arn: str
    role_id: str
    instance_id: str


class Sessions:
    """Grants and reads session tokens under one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def grant(self, session: Session) -> tuple[str, str]:
        """Give the token and the secret access key of a session."""
        terms = [session.access_key_id, session.role_id, session.role_name, session.name, session.expires_at]
        payload = json.dumps([*terms, session.policy], separators=(",", ":")).encode()
        return self._token(b"token", payload), self._secret(payload)

    def read(self, token: str) -> tuple[Session, str] | None:
        """Give the session and the secret that a token stands for, whether or not it is over; None for a forgery."""
        payload = self._payload(b"token", token)
        return None if payload is None else (Session(*json.loads(payload)), self._secret(payload))

    def container_token(self, holder: Holder) -> str:
        """Give what a container shows when it asks for its role's credentials: good for as long as the holder is."""
        return self._token(b"holder", json.dumps(holder).encode())

    def read_container_token(self, token: str) -> Holder | None:
        """Give whom a token was given to; None for a forgery."""
        payload = self._payload(b"holder", token)
        return None if payload is None else Holder(*json.loads(payload))

    def _token(self, purpose: bytes, payload: bytes) -> str:
        return base64.urlsafe_b64encode(self._mac(purpose, payload) + payload).decode()

    def _payload(self, purpose: bytes, token: str) -> bytes | None:
        try:
            raw = base64.b64decode(token, b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        mac, payload = raw[:_MAC], raw[_MAC:]
        return payload if hmac.compare_digest(self._mac(purpose, payload), mac) else None

    def _secret(self, payload: bytes) -> str:
        return base64.b64encode(self._mac(b"secret", payload)).decode()[:40]

    def _mac(self, purpose: bytes, payload: bytes) -> bytes:
        return hmac.digest(self._key, purpose + b"\0" + payload, "sha256")
