"""Relays: how the gateway reaches a container that has no network.

Such a container lives in a network namespace with nothing but a loopback. A relay is a small process (forwarder.py)
with a port on this machine's loopback, which carries each connection to the container's. It is in a session of its
own and outside of the container's control groups: it takes none of its memory, and no signal to the container reaches
it while answers are under way. It ends with the container's first process; one that dies earlier is started again, on
the same port. What is known of each lies on the disk, so that the next engine takes it over.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from weakref import WeakValueDictionary

from clary.engines import forwarder, posix, sockets
from clary.errors import LaunchFailure, Transient
from clary.telemetry import logger

_log = logger("relay")

_AGAIN = 0.5
"""Seconds before another attempt to replace a relay that died."""
_DRAIN = 1.5
"""Seconds in which a relay ends by itself after its target, and somewhat more."""
_DEATH = 10.0
"""Seconds after SIGKILL in which it should be gone."""


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay that runs, or ran: `port` of 127.0.0.1 leads to `inside_port` of its target's loopback."""

    port: int
    inside_port: int
    pid: int
    birth: str
    target: int
    """The process that it entered the namespace of, and that it ends with."""
    target_birth: str

    @property
    def alive(self) -> bool:
        return posix.alive(self.pid, self.birth)

    @property
    def needed(self) -> bool:
        """Whether its target still runs."""
        return posix.alive(self.target, self.target_birth)

    def leads_to(self, pid: int) -> bool:
        return (self.target, self.target_birth) == (pid, posix.birth(pid))


class Relays:
    """The relays of one engine, by container id, and a folder that holds a file for each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._relays: dict[str, Relay] = {}
        self._watches: dict[str, int] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._reviving: set[asyncio.Task[None]] = set()

    async def ensure(self, id: str, pid: int, inside_port: int, port: int = 0) -> Relay:
        """Give the relay into the network namespace of `pid`; start one where none runs.

        It keeps its port when it has to be started anew; `port` is the one for the first time, 0 for any. Idempotent,
        and the way to take over what an earlier engine started. Raises LaunchFailure(create) where this machine or
        this user may not enter, Transient where the process is gone or the port is taken.
        """
        async with self._lock(id):
            known = self._relays.get(id) or self._read(id)
            if known is not None and known.alive and known.leads_to(pid):
                self._keep(id, known)
                return known
            if known is not None:
                self._unwatch(id)
                await _kill(known)  # of an earlier process of the container, if it lives
                port = port or known.port
            return await self._start(id, pid, inside_port, port)

    def adopt(self, id: str) -> None:
        """Take over what an earlier engine started for a container; one that died meanwhile is started again soon."""
        if (relay := self._read(id)) is not None:
            self._keep(id, relay)

    async def end(self, id: str) -> None:
        """End a container's relay and forget it. Unknown ids are fine.

        Where the container has ended, what it had answered is passed on first; that takes the relay a second at most.
        """
        async with self._lock(id):
            self._unwatch(id)
            if (relay := self._relays.pop(id, None) or self._read(id)) is not None:
                deadline = time.monotonic() + _DRAIN
                while relay.alive and not relay.needed and time.monotonic() < deadline:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
                await _kill(relay)
                self._file(id).unlink(missing_ok=True)

    async def retain(self, ids: Collection[str]) -> None:
        """End what an earlier engine left for other containers: it died after they were gone, and before the relay."""
        for file in list(self._folder.glob("*")):
            if file.name.startswith("."):
                file.unlink()  # it died while writing: such a relay goes by itself
            elif file.stem not in ids:
                await self.end(file.stem)

    async def close(self) -> None:
        """Let go of them: they run on."""
        for id in list(self._watches):
            self._unwatch(id)
        for task in list(self._reviving):
            task.cancel()
            await asyncio.wait({task})

    async def _start(self, id: str, pid: int, inside_port: int, port: int) -> Relay:
        relay, line = await _enter(pid, inside_port, port)
        with line:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = self._folder / f".{id}"
            fresh.write_text(json.dumps(asdict(relay)))
            fresh.rename(self._file(id))
            line.send(b"go")  # two bytes, and the first: there is room
        self._keep(id, relay)
        return relay

    def _keep(self, id: str, relay: Relay) -> None:
        self._relays[id] = relay
        if id in self._watches:
            return
        try:
            descriptor = os.pidfd_open(relay.pid)
        except ProcessLookupError:
            self._revive_soon(id)
            return
        self._watches[id] = descriptor
        if relay.alive:
            asyncio.get_running_loop().add_reader(descriptor, self._revive_soon, id)
        else:  # another process has its number
            self._revive_soon(id)

    def _unwatch(self, id: str) -> None:
        if (descriptor := self._watches.pop(id, None)) is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)

    def _revive_soon(self, id: str) -> None:
        self._unwatch(id)
        task = asyncio.ensure_future(self._revive(id))
        self._reviving.add(task)
        task.add_done_callback(self._reviving.discard)

    async def _revive(self, id: str) -> None:
        """Start a relay again that died before its target, until it runs or is no longer wanted."""
        while True:
            async with self._lock(id):
                relay = self._relays.get(id)
                if relay is None or relay.alive:
                    return
                posix.reap(relay.pid)
                if not relay.needed:
                    return
                _log.warning("a relay died and is started again", id=id, port=relay.port)
                try:
                    await self._start(id, relay.target, relay.inside_port, relay.port)
                    return
                except (Transient, LaunchFailure, OSError) as trouble:
                    _log.warning("the relay could not be started", id=id, reason=str(trouble))
            await asyncio.sleep(_AGAIN)

    def _lock(self, id: str) -> asyncio.Lock:
        return self._locks.setdefault(id, asyncio.Lock())

    def _file(self, id: str) -> Path:
        return self._folder / f"{id}.json"

    def _read(self, id: str) -> Relay | None:
        with contextlib.suppress(FileNotFoundError):
            return Relay(**json.loads(self._file(id).read_text()))
        return None


async def _enter(pid: int, inside_port: int, port: int) -> tuple[Relay, socket.socket]:
    """Start a forwarder that has entered the namespace and waits for the word on the socket."""
    try:
        target = os.pidfd_open(pid)
    except ProcessLookupError:
        raise Transient(f"process {pid} ended before a relay could reach it") from None
    ours, theirs = socket.socketpair()
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise Transient(f"port {port} for a relay: {error.strerror}", retry_after=5.0) from error
        given = int(listener.getsockname()[1])
        # Where that cannot be seen from here, the forwarder will see it.
        if any(each.port == inside_port for each in sockets.listening(posix.PROC / str(pid))):
            listener.listen(forwarder.BACKLOG)
        child = posix.spawn_forwarder((listener.fileno(), target, theirs.fileno()), inside_port)
    except BaseException:
        ours.close()
        raise
    finally:
        os.close(target)
        listener.close()
        theirs.close()
    ours.setblocking(False)
    relay = Relay(given, inside_port, child, posix.birth(child), pid, posix.birth(pid))
    try:
        said = await asyncio.get_running_loop().sock_recv(ours, 200)
        if said != b"in":
            raise _refusal(said.decode(errors="replace"), pid)
    except BaseException:
        ours.close()
        await _kill(relay)
        raise
    return relay, ours


def _refusal(said: str, pid: int) -> LaunchFailure | Transient:
    """Say why the namespace could not be entered, and what would allow it."""
    number, _, text = said.partition(" ")
    if number == str(errno.EPERM):
        return LaunchFailure(
            "create",
            "EnableNetworkIsolation needs the right to enter the container's network namespace: run Clary as root or "
            "with CAP_SYS_ADMIN, on the machine that runs the containers",
        )
    if number in (str(errno.ESRCH), ""):
        return Transient(f"process {pid} ended before a relay could reach it")
    return LaunchFailure("create", f"a relay cannot enter the container's network namespace: {text}")


async def _kill(relay: Relay) -> None:
    """End a relay now. Raises Transient when the kernel does not do it."""
    deadline = time.monotonic() + _DEATH
    while relay.alive:
        if time.monotonic() > deadline:
            raise Transient(f"relay {relay.pid} outlives SIGKILL", retry_after=5.0)
        posix.send(signal.SIGKILL, {relay.pid})
        await asyncio.sleep(0.005)
    posix.reap(relay.pid)
