"""What every exchange of one gateway process shares."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sized
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import getrandbits
from typing import Any, Protocol, TypeVar
from uuid import UUID

from clary.core import routing
from clary.core.ejection import Outliers
from clary.core.identities import Principal
from clary.core.resources import Partition
from clary.errors import AwsError
from clary.gateway.access import Access
from clary.gateway.admission import Admission
from clary.gateway.capture import Capture
from clary.gateway.deferrals import Deferrals
from clary.gateway.head import Head
from clary.gateway.meter import Concurrency, Meter, Snapshot
from clary.gateway.outbox import Outbox
from clary.gateway.residency import Residency
from clary.gateway.routes import RouteFeed
from clary.gateway.shortcut.compiled import compiled
from clary.gateway.stickiness import Stickiness
from clary.gateway.upstream import Pool
from clary.wire import bearer
from clary.wire.sigv4 import Identity, Verifier

DEADLINE_GRAIN = 0.05
"""Seconds between looks at the deadlines."""


class Overdue(Protocol):
    """What has a deadline."""

    def time_out(self) -> None: ...


class Stream(Overdue, Protocol):
    """What may be under way for long, and can say that it was cut off."""

    def interrupt(self) -> None: ...


_Late = TypeVar("_Late", bound=Overdue)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a gateway allows. Sizes in bytes, times in seconds."""

    max_payload: int
    model_timeout: float
    stream_timeout: float = 480.0
    instance_concurrency: int = 0
    """Requests that this process gives an instance at once; 0: as many as come."""
    instance_queue: int = 0
    """Requests that wait for a place on an instance."""


class State:
    """One gateway process: its routes, its connections, its counters. Sizes in bytes, times in seconds."""

    pick = staticmethod(routing.pick)

    def __init__(
        self,
        partition: Partition,
        verifier: Verifier | None,
        run: Path,
        limits: Limits,
        access: Access | None = None,
    ) -> None:
        """Without `access` whoever signs with a known key may do everything."""
        self.loop = asyncio.get_running_loop()
        self.partition = partition
        self.verifier = verifier
        self._access = access
        self.max_payload = limits.max_payload
        self.model_timeout = limits.model_timeout
        self.stream_timeout = limits.stream_timeout
        self.admission: Admission | None = None
        """None where instances get as many requests as come."""
        if limits.instance_concurrency:
            self.admission = Admission(limits.instance_concurrency, limits.instance_queue)
        self.control_socket = run / "control.sock"
        self.routes = RouteFeed(run / "routes.json", self.control_socket)
        self.deferrals = Deferrals(self.control_socket)
        self.load: dict[str, int] = {}
        """Requests under way by instance id, of this process; those that wait for a place count."""
        self.outliers = Outliers()
        self.stickiness = Stickiness(run / "sessions")
        self.capture = Capture()
        self.shadows_under_way = 0
        self.shadow_bytes = 0
        """Bytes of the bodies that copies under way hold."""
        self.meter = Meter()
        self._concurrency = Concurrency()
        self.deadlines: dict[Overdue, float] = {}
        """When each invocation has taken too long, in the order in which that comes: one limit holds for all."""
        self.stream_deadlines: dict[Stream, float] = {}
        """The same for streamed answers, which have a limit of their own."""
        self.loading: dict[Overdue, float] = {}
        """The same for those that wait for a model to be loaded."""
        self.outbox = _outbox(self.loop, self.deadlines, self.stream_deadlines)
        self.pool = Pool(self.loop, self.outbox)
        self.models = Residency(self.control_socket, self.pool)
        self.plain_requests: Callable[[], int] = int
        """Gives how many requests went the short way."""
        self._numbers = count(getrandbits(32))
        self.next_number = self._numbers.__next__
        """Gives the number of a new request."""
        self.request_prefix = str(UUID(int=getrandbits(128), version=4))[:24]
        self._tasks: set[asyncio.Task[Any]] = set()

    def authenticate(self, head: Head, payload: bytes | None) -> Identity | None:
        """Verify the signature; None with `--auth off`. Raises AwsError under AWS's own codes."""
        if self.verifier is None:
            return None
        return self.verifier.verify(head.method.decode("latin-1"), head.target, head.headers, payload)

    def foresee(self, head: Head) -> None:
        """Raise AwsError where `authenticate` will, as far as that is known without the body."""
        if self.verifier is not None:
            self.verifier.foresee(head.method.decode("latin-1"), head.target, head.headers)

    def bearer(self, token: bytes) -> Identity | None:
        """Verify a bearer token; None with `--auth off`. Raises AwsError under AWS's own codes."""
        return None if self.verifier is None else bearer.verify(self.verifier, token)

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

    def is_owner(self, access_key_id: str) -> bool:
        """Tell whether a key may do everything."""
        return self._access is None or self._access.is_owner(access_key_id)

    def role_credentials(self, token: str) -> dict[str, str]:
        """Give the credentials of a container's role. Raises AwsError."""
        if self._access is None:
            raise AwsError("Requests are not verified here (--auth off).", code="AccessDenied", status=403)
        return self._access.role_credentials(token, self.routes.table.has_instance)

    def request_id(self, number: int | None = None) -> str:
        """Make a request id, a new one or that of a number: shaped as a UUID, unique, and cheap."""
        number = next(self._numbers) if number is None else number
        return f"{self.request_prefix}{number & 0xFFFFFFFFFFFF:012x}"

    async def watch_deadlines(self) -> None:
        """Tell invocations that their time is over, and let instances that failed back in, for ever: one timer."""
        while True:
            await asyncio.sleep(DEADLINE_GRAIN)
            now = self.loop.time()
            _time_out(self.deadlines, now)
            _time_out(self.stream_deadlines, now)
            _time_out(self.loading, now)
            self.outliers.review(now, self.routes.table.endpoints.values())

    def interrupt_streams(self) -> None:
        """Tell the streams under way that this gateway is about to go."""
        for stream in list(self.stream_deadlines):
            stream.interrupt()

    def snapshot(self) -> Snapshot:
        """Give what the numbers of this process say of the moment."""
        gauges = {"requests_under_way": float(sum(self.load.values())),
                  "plain_requests": float(self.plain_requests()),
                  "route_table_revision": float(self.routes.table.revision)}  # fmt: skip
        return Snapshot(gauges, self._concurrency.of(self.routes.table, self.load))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a piece of work that nobody waits for; its failure is the loop's exception handler's."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _outbox(loop: asyncio.AbstractEventLoop, *under_way: Sized) -> Outbox:
    module = compiled()
    found: Outbox = (Outbox if module is None else module.Outbox)(loop, *under_way)
    return found


def _time_out(due: dict[_Late, float], now: float) -> None:
    """End what is overdue; one by one, for the end of one may give its place, and all of its time, to the next."""
    while (first := next(iter(due), None)) is not None and due[first] <= now:
        del due[first]
        first.time_out()
