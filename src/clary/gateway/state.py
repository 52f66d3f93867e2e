"""What every exchange of one gateway process shares."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from clary.core import routing
from clary.core.resources import Partition
from clary.gateway.connection import Head
from clary.gateway.routes import RouteFeed
from clary.gateway.upstream import Pool
from clary.wire.sigv4 import Identity, Verifier


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
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.partition = partition
        self.verifier = verifier
        self.max_payload = max_payload
        self.model_timeout = model_timeout
        self.control_socket = run / "control.sock"
        self.routes = RouteFeed(run / "routes.json", self.control_socket)
        self.pool = Pool(self.loop)
        self.load: dict[str, int] = {}
        """Requests under way by container id, of this process."""
        self._tasks: set[asyncio.Task[Any]] = set()

    def authenticate(self, head: Head, payload: bytes | None) -> Identity | None:
        """Verify the signature; None with `--auth off`. Raises AwsError under AWS's own codes."""
        if self.verifier is None:
            return None
        return self.verifier.verify(head.method.decode("latin-1"), head.target, head.headers, payload)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a piece of work that nobody waits for; its failure is the loop's exception handler's."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
