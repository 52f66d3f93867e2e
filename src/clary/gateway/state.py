"""What every exchange of one gateway process shares."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from itertools import count, takewhile
from pathlib import Path
from random import getrandbits
from typing import Any, Protocol
from uuid import UUID

from clary.core import routing
from clary.core.identities import Principal
from clary.core.resources import Partition
from clary.errors import AwsError
from clary.gateway.access import Access
from clary.gateway.connection import Head
from clary.gateway.routes import RouteFeed
from clary.gateway.upstream import Pool
from clary.wire.sigv4 import Identity, Verifier

DEADLINE_GRAIN = 0.05
"""Seconds between looks at the deadlines."""


class Overdue(Protocol):
    """What has a deadline."""

    def time_out(self) -> None: ...


class State:
    """One gateway process: its routes, its connections, its counters. Sizes in bytes, times in seconds."""

    pick = staticmethod(routing.pick)

    def __init__(
        self,
        partition: Partition,
        verifier: Verifier | None,
        run: Path,
        *,
        max_payload: int,
        model_timeout: float,
        access: Access | None = None,
    ) -> None:
        """Without `access` whoever signs with a known key may do everything."""
        self.loop = asyncio.get_running_loop()
        self.partition = partition
        self.verifier = verifier
        self._access = access
        self.max_payload = max_payload
        self.model_timeout = model_timeout
        self.control_socket = run / "control.sock"
        self.routes = RouteFeed(run / "routes.json", self.control_socket)
        self.pool = Pool(self.loop)
        self.load: dict[str, int] = {}
        """Requests under way by container id, of this process."""
        self.deadlines: dict[Overdue, float] = {}
        """When each invocation has taken too long, in the order in which that comes: one limit holds for all."""
        self._request_ids = count(getrandbits(32))
        self._request_prefix = str(UUID(int=getrandbits(128), version=4))[:24]
        self._tasks: set[asyncio.Task[Any]] = set()

    def authenticate(self, head: Head, payload: bytes | None) -> Identity | None:
        """Verify the signature; None with `--auth off`. Raises AwsError under AWS's own codes."""
        if self.verifier is None:
            return None
        return self.verifier.verify(head.method.decode("latin-1"), head.target, head.headers, payload)

    def is_anonymous(self, head: Head) -> bool:
        """Tell, before the body has come, whether a request that must be signed bears no signature at all."""
        return (
            self.verifier is not None and b"authorization" not in head.headers and head.target.find(b"Signature=") < 0
        )

    def principal(self, identity: Identity | None) -> Principal | None:
        """Give who is asking; None where nothing need be asked of policies. Raises AwsError."""
        if identity is None or self._access is None:
            return None
        return self._access.principal(identity)

    def role_credentials(self, token: str) -> dict[str, str]:
        """Give the credentials of a container's role. Raises AwsError."""
        if self._access is None:
            raise AwsError("Requests are not verified here (--auth off).", code="AccessDenied", status=403)
        return self._access.role_credentials(token)

    def request_id(self) -> str:
        """Make a request id: shaped as a UUID, unique; unguessable it need not be, cheap it must."""
        return f"{self._request_prefix}{next(self._request_ids) & 0xFFFFFFFFFFFF:012x}"

    async def watch_deadlines(self) -> None:
        """Tell invocations that their time is over, for ever: one timer for all of them."""
        while True:
            await asyncio.sleep(DEADLINE_GRAIN)
            for invocation in self._overdue(self.loop.time()):
                invocation.time_out()

    def _overdue(self, now: float) -> list[Overdue]:
        return list(takewhile(lambda each: self.deadlines[each] <= now, self.deadlines))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a piece of work that nobody waits for; its failure is the loop's exception handler's."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
