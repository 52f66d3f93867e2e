"""One gateway process: a listening socket, its connections, and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakSet

from clary.core.resources import Partition
from clary.gateway import short
from clary.gateway.access import Access
from clary.gateway.background import forever
from clary.gateway.capture_writer import CaptureWriter, Store
from clary.gateway.connection import Connection, Exchange, ShortWay
from clary.gateway.control import ControlPlane
from clary.gateway.front import Front
from clary.gateway.head import Head
from clary.gateway.listener import BACKLOG, listener
from clary.gateway.meter import MeterFeed
from clary.gateway.outbox import Outbox
from clary.gateway.scrape import Scrape
from clary.gateway.state import Limits, State
from clary.gateway.streamed import Streamed
from clary.telemetry import logger
from clary.wire.sigv4 import Verifier

IDLE_LIMIT = 120.0
"""Seconds after which a client's unused connection is closed; SDKs keep theirs for a minute at most."""
STALL_LIMIT = 60.0
"""Seconds for which a client may be silent in the middle of a request, or read nothing of its answer."""
SWEEP = 5.0
SESSION_SWEEP = 60.0
"""Seconds between looks at the stateful sessions that are over."""


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """What a gateway is told. Sizes in bytes, times in seconds."""

    host: str
    port: int
    partition: Partition
    access: Access | None
    """Who there is and what each may do; None: requests are not verified."""
    run: Path
    limits: Limits
    door: int | None = None
    """The descriptor of a socket that listens already; None: one is opened."""
    container_door: tuple[str, int] | None = None
    """Host and port besides, at which containers ask; the address may come up later, with their network."""
    tls: ssl.SSLContext | None = None
    """None: plain HTTP. Containers on this machine ask without TLS either way."""
    metrics_token: str | None = None
    """What `GET /metrics` must bear; empty: nothing, None: it is not answered."""


async def serve(
    options: GatewayOptions, s3: Callable[[Streamed], Awaitable[None]], captures: Callable[[], Store]
) -> None:
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
        options.limits,
        access,
    )
    state.routes.load()
    control = ControlPlane(state.control_socket)
    scrape = Scrape(state.control_socket, options.metrics_token)
    door = Door(Front(state, control, s3, scrape.handle).open, state.outbox, short.way(state))
    servers = [
        await loop.create_server(door.connect, sock=sock, ssl=tls, backlog=BACKLOG) for sock, tls in _listeners(options)
    ]
    numbers = MeterFeed(state.meter, state.snapshot, state.control_socket)
    writer = CaptureWriter(state.capture, captures, lambda number: state.meter.dropped("capture", number))
    works = {
        "routes": state.routes.follow,
        "sweep": lambda: _sweep(state, door),
        "deadlines": state.watch_deadlines,
        "numbers": numbers.follow,
        "models": state.models.follow,
        "uses": state.models.report,
        "sessions": lambda: _forget_sessions(state),
        "captures": writer.follow,
        "asynchronous requests": state.deferrals.follow,
    }
    tasks = [loop.create_task(forever(name, work)) for name, work in works.items()]
    # Whatever is there now stays. Looking for garbage in it takes tens of milliseconds, for which nobody is answered.
    gc.collect()
    gc.freeze()
    logger("gateway").info("gateway ready", host=options.host, port=options.port)
    await stop.wait()
    await writer.flush()  # while there is still somebody to take it: the S3 may be behind this very door
    for server in servers:
        server.close()
    await door.drain(options.limits.model_timeout, state.interrupt_streams)
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await writer.finish()
    await numbers.finish()
    await state.models.close()
    state.pool.close()
    await control.close()


def _listeners(options: GatewayOptions) -> list[tuple[socket.socket, ssl.SSLContext | None]]:
    if options.door is None:
        sockets = [(listener(options.host, options.port), options.tls)]
    else:
        sockets = [(socket.socket(fileno=options.door), options.tls)]
    if options.container_door is not None:
        try:
            sockets.append((listener(*options.container_door, early=True), None))
        except OSError as error:
            logger("gateway").warning("containers cannot ask for credentials here", reason=str(error))
    return sockets


class Door:
    """The connections of one process."""

    def __init__(
        self,
        open_exchange: Callable[[Head, Connection], Exchange],
        outbox: Outbox,
        short: ShortWay | None = None,
    ) -> None:
        self._open = open_exchange
        self._outbox = outbox
        self.short = short
        # Weakly: a TLS handshake that fails makes no sound, it only lets go of its connection.
        self._connections: WeakSet[Connection] = WeakSet()

    def connect(self) -> Connection:
        connection = Connection(self._open, self._outbox, self.short)
        self._connections.add(connection)
        return connection

    def sweep(self, now: float) -> None:
        """Close connections that were idle, took too long for a head, or for too long neither sent nor read in time."""
        for connection in list(self._connections):
            if connection.transport is None:
                continue
            heard, connection.heard = connection.heard, False
            before, connection.unsent_before = connection.unsent_before, connection.unsent
            unsent = connection.unsent_before
            if connection.transport.is_closing() and not unsent:
                continue
            if unsent:
                quiet = unsent == before
            elif connection.idle:
                quiet = connection.in_head or not heard
            else:
                quiet = connection.awaiting and not heard
            if not quiet:
                connection.quiet_since = 0.0
            elif not connection.quiet_since:
                connection.quiet_since = now
            elif now - connection.quiet_since > (IDLE_LIMIT if connection.idle and not unsent else STALL_LIMIT):
                connection.let_go()

    async def drain(self, limit: float, last_words: Callable[[], None] = lambda: None) -> None:
        """Close what is idle or waits for its client, let the rest be answered, for at most `limit` seconds.

        `last_words` is called before what is still under way then is cut off.
        """
        deadline = time.monotonic() + limit
        while self._connections and time.monotonic() < deadline:
            for connection in list(self._connections):
                gone = connection.transport is None or connection.transport.is_closing()
                if gone or connection.idle or connection.awaiting:
                    self._connections.discard(connection)
                    if connection.transport is not None:
                        connection.close()
            await asyncio.sleep(0.02)
        last_words()
        for connection in self._connections:
            if connection.idle:
                connection.close()
            else:
                connection.transport.abort()


async def _sweep(state: State, door: Door) -> None:
    while True:
        await asyncio.sleep(SWEEP)
        door.sweep(state.loop.time())
        state.pool.sweep(state.loop.time())


async def _forget_sessions(state: State) -> None:
    while True:
        await asyncio.sleep(SESSION_SWEEP)
        now = time.time()
        state.stickiness.forget(now)
        # There may be thousands of files: no invocation waits for them.
        await state.loop.run_in_executor(None, state.stickiness.sweep, now)
