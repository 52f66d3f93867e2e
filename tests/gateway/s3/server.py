"""A gateway with the bundled S3 behind it, in a thread of its own, so that blocking clients can talk to it."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clary.core.resources import Partition
from clary.gateway.control import ControlPlane
from clary.gateway.front import Front
from clary.gateway.s3.service import S3
from clary.gateway.state import Limits, State
from clary.gateway.streamed import Streamed
from clary.gateway.worker import Door, listener
from clary.wire.sigv4 import Verifier

KEY, SECRET, REGION = "AKIATEST", "secret", "us-east-1"


@contextmanager
def serving(root: Path, *, signed: bool = True) -> Iterator[str]:
    """Serve the buckets below `root`; give the URL."""
    with gateway(S3(root).handle, {KEY: SECRET} if signed else None) as url:
        yield url


@contextmanager
def gateway(
    handle: Callable[[Streamed], Awaitable[None]],
    secrets: dict[str, str] | None,
    close: Callable[[], Awaitable[None]] | None = None,
) -> Iterator[str]:
    """Serve S3 requests by a handler; give the URL."""
    sock = listener("127.0.0.1", 0)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    ready, loops = threading.Event(), []

    async def run() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        verifier = Verifier(secrets, REGION, time.time) if secrets is not None else None
        with tempfile.TemporaryDirectory() as sockets:
            partition = Partition("123456789012", REGION)
            state = State(partition, verifier, Path(sockets), Limits(10**6, 5.0))
            control = ControlPlane(Path(sockets) / "control.sock")
            door = Door(Front(state, control, handle).open, state.outbox)
            server = await asyncio.get_running_loop().create_server(door.connect, sock=sock)
            ready.set()
            await stop.wait()
            server.close()
            await door.drain(0.1)
            state.pool.close()
            await control.close()
            if close is not None:
                await close()
            await asyncio.sleep(0)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield url
    finally:
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
