"""Who may do what, as a gateway knows it: the default key may do everything, the others what their policies say.

Users and roles come from a file that the control plane replaces whenever they change. It is looked at (one `stat`) with
every request that is not the default key's, so a key that was taken away is refused from the next request on, and a
control plane that is down changes nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from clary.core import conditions
from clary.core.identities import Directory, Principal, Role, User, trusts_hosting
from clary.core.policy import Inquiry
from clary.core.resources import ENDPOINT, Partition
from clary.core.sessions import Session, Sessions
from clary.credentials import new_id
from clary.errors import AwsError
from clary.gateway.connection import Source
from clary.telemetry import logger
from clary.wire import sigv4

_CACHE_SIZE = 1024
CONTAINER_SECONDS = 3600
"""How long a container's credentials hold; SDKs ask again a quarter of an hour before."""
# Tags are the control plane's: a gateway has none.
_UNKNOWN = ("aws:resourcetag/", "sagemaker:resourcetag/")
_FROM_HEADERS = (
    ("sagemaker:targetmodel", b"x-amzn-sagemaker-target-model"),
    ("sagemaker:targetcontainerhostname", b"x-amzn-sagemaker-target-container-hostname"),
)


class Access(Mapping[str, str]):
    """Secrets by access key id, for the verifier, and the principals behind them.

    `owner` is the default key and its secret; `file` need not exist.
    """

    def __init__(self, partition: Partition, owner: tuple[str, str], file: Path, sessions: Sessions) -> None:
        self._partition = partition
        self._owner, self._secret = owner
        self._file = file
        self._sessions = sessions
        self._stamp: tuple[int, int] | None = None
        self._directory = Directory(partition, self._owner)
        self._principals: dict[tuple[str, str], Principal] = {}

    # -- for the verifier --------------------------------------------------------------------------------------------

    def __getitem__(self, access_key_id: str) -> str:
        if access_key_id == self._owner:
            return self._secret
        return self._fresh().users[access_key_id].secret_access_key

    def __contains__(self, access_key_id: object) -> bool:
        return access_key_id == self._owner or access_key_id in self._fresh().users

    def __iter__(self) -> Iterator[str]:
        yield self._owner
        yield from self._fresh().users

    def __len__(self) -> int:
        return 1 + len(self._fresh().users)

    def session(self, access_key_id: str, token: str) -> sigv4.Session | None:
        """Tell the verifier what a token says of an access key; None where it was not made here for this key."""
        found = self._sessions.read(token)
        if found is None or found[0].access_key_id != access_key_id:
            return None
        return sigv4.Session(found[1], found[0].expires_at)

    def is_owner(self, access_key_id: str) -> bool:
        """Tell whether this is the default key, of which nothing need be asked."""
        return access_key_id == self._owner

    # -- for everybody else ------------------------------------------------------------------------------------------

    def principal(self, identity: sigv4.Identity) -> Principal | None:
        """Give who signed a request; None for the default key, of which nothing need be asked.

        Raises AwsError UnrecognizedClientException (403) for a key that was taken away meanwhile.
        """
        if self.is_owner(identity.access_key_id):
            return None
        directory = self._fresh()
        cached = self._principals.get((identity.access_key_id, identity.token))
        if cached is not None:
            return cached
        found = self._sessions.read(identity.token) if identity.token else None
        principal = directory.principal(identity.access_key_id, found[0] if found else None)
        if principal is None:
            message = "The security token included in the request is invalid."
            raise AwsError(message, code="UnrecognizedClientException", status=403)
        if len(self._principals) >= _CACHE_SIZE:
            self._principals.clear()
        self._principals[identity.access_key_id, identity.token] = principal
        return principal

    def role_credentials(self, token: str, is_there: Callable[[str], bool]) -> dict[str, str]:
        """Give a container the credentials of its role, an hour's, in the form in which SDKs fetch them again in time.

        Raises AwsError for a token that was not made here, one of an instance that is gone (`is_there` tells by its
        id), and for a role that is gone, was made anew, or no longer trusts SageMaker.
        """
        holder = self._sessions.read_container_token(token)
        if holder is None or not is_there(holder.instance_id):
            raise AwsError("The authorization token is not valid.", code="AccessDenied", status=403)
        role_arn = holder.role_arn
        role = self._fresh().role(role_arn)
        if role is None or role.id != holder.role_id or not trusts_hosting(role, self._partition.account_id):
            raise AwsError(f"The role {role_arn} cannot be assumed by SageMaker.", code="AccessDenied", status=403)
        expires_at = int(time.time()) + CONTAINER_SECONDS
        session = Session(new_id("ASIA"), role.id, role.name, holder.instance_id, float(expires_at))
        session_token, secret = self._sessions.grant(session)
        return {
            "AccessKeyId": session.access_key_id,
            "SecretAccessKey": secret,
            "Token": session_token,
            "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires_at)),
            "RoleArn": role_arn,
        }

    def _fresh(self) -> Directory:
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return self._directory
        if (found.st_ino, found.st_mtime_ns) != self._stamp:
            self._stamp = (found.st_ino, found.st_mtime_ns)
            self._principals.clear()
            self._directory = self._read()
        return self._directory

    def _read(self) -> Directory:
        try:
            document = json.loads(self._file.read_bytes())
            users = [User(**user) for user in document["users"]]
            return Directory(self._partition, self._owner, users, [Role(**role) for role in document["roles"]])
        except (OSError, ValueError, KeyError, TypeError) as error:
            # Better nobody than somebody whose key was taken away.
            logger("gateway").error("the file of keys is unreadable; only the default key works", error=str(error))
            return Directory(self._partition, self._owner)


def invocation(
    partition: Partition,
    endpoint: str,
    headers: Mapping[bytes, bytes],
    source: Source,
    action: str = "sagemaker:InvokeEndpoint",
) -> Inquiry:
    """Say what InvokeEndpoint, or another operation that invokes, needs to be allowed."""
    context: dict[str, tuple[str, ...]] = {
        key: (headers[name].decode("latin-1"),) for key, name in _FROM_HEADERS if name in headers
    }
    context = {**context, **circumstances(source, headers)}
    return Inquiry(action, partition.arn(ENDPOINT, endpoint), context, _UNKNOWN)


def bearer(headers: Mapping[bytes, bytes], source: Source) -> Inquiry:
    """Say what the use of a bearer token needs to be allowed."""
    return Inquiry("sagemaker:CallWithBearerToken", "*", circumstances(source, headers), _UNKNOWN)


def circumstances(source: Source, headers: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Give the condition keys that every request has: when, from where, by which program."""
    user_agent = headers.get(b"user-agent", b"").decode("latin-1")
    return conditions.circumstances(time.time(), source.ip, user_agent, secure=source.secure)
