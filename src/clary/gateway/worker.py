"""One gateway process: a listening socket, its connections, and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from clary.core.resources import Partition
from clary.gateway.access import Access
from clary.gateway.connection import Connection, Exchange, Head
from clary.gateway.control import ControlPlane
from clary.gateway.front import Front
from clary.gateway.listener import listener
from clary.gateway.state import State
from clary.gateway.streamed import Streamed
from clary.telemetry import logger
from clary.wire.sigv4 import Verifier

BACKLOG = 2048
IDLE_LIMIT = 120.0
"""Seconds after which a client's unused connection is closed; SDKs keep theirs for a minute at most."""
STALL_LIMIT = 60.0
"""Seconds for which a client may be silent in the middle of a request."""
SWEEP = 5.0


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """What a gateway is told. Sizes in bytes, times in seconds."""

    host: str
    port: int
    partition: Partition
    access: Access | None
    """Who there is and what each may do; None: requests are not verified."""
    run: Path
    max_payload: int
    model_timeout: float


async def serve(options: GatewayOptions, s3: Callable[[Streamed], Awaitable[None]]) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way, for at most the model timeout."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    access, verifier = options.access, None
    if access is not None:
        verifier = Verifier(access, options.partition.region, time.time, sessions=access.session)
    state = State(
        options.partition,
        verifier,
        options.run,
        max_payload=options.max_payload,
        model_timeout=options.model_timeout,
        access=access,
    )
    state.routes.load()
    control = ControlPlane(state.control_socket)
    door = Door(Front(state, control, s3).open)
    server = await loop.create_server(door.connect, sock=listener(options.host, options.port), backlog=BACKLOG)
    feed = loop.create_task(state.routes.follow())
    sweep = loop.create_task(_sweep(state, door))
    deadlines = loop.create_task(state.watch_deadlines())
    logger("gateway").info("gateway ready", host=options.host, port=options.port)
    await stop.wait()
    server.close()
    await door.drain(options.model_timeout)
    for task in (feed, sweep, deadlines):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    state.pool.close()
    await control.close()


class Door:
    """The connections of one process."""

    def __init__(self, open_exchange: Callable[[Head, Connection], Exchange]) -> None:
        self._open = open_exchange
        self._connections: set[Connection] = set()

    def connect(self) -> Connection:
        connection = Connection(self._open)
        self._connections.add(connection)
        return connection

    def sweep(self, now: float) -> None:
        """Forget connections that are gone; close those that were idle, or silent in mid-request, for too long."""
        for connection in list(self._connections):
            heard, connection.heard = connection.heard, False
            limit = IDLE_LIMIT if connection.idle else STALL_LIMIT
            if connection.transport is None or connection.transport.is_closing():
                self._connections.discard(connection)
            elif not connection.idle and (heard or not connection.awaiting):
                connection.quiet_since = 0.0
            elif not connection.quiet_since or (connection.idle and heard):
                connection.quiet_since = now
            elif now - connection.quiet_since > limit:
                connection.transport.close()

    async def drain(self, limit: float) -> None:
        """Close what is idle or waits for its client, let the rest be answered, for at most `limit` seconds."""
        deadline = time.monotonic() + limit
        while self._connections and time.monotonic() < deadline:
            for connection in list(self._connections):
                gone = connection.transport is None or connection.transport.is_closing()
                if gone or connection.idle or connection.awaiting:
                    self._connections.discard(connection)
                    if connection.transport is not None:
                        connection.transport.close()
            await asyncio.sleep(0.02)
        for connection in self._connections:
            connection.transport.abort()


async def _sweep(state: State, door: Door) -> None:
    while True:
        await asyncio.sleep(SWEEP)
        door.sweep(state.loop.time())
        state.pool.sweep(state.loop.time())
