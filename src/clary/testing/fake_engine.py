"""An engine made of words: containers do what a script says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clary.core.containers import LOCAL, Capacity, Container, ContainerSpec, Progress
from clary.core.deployment import Answer
from clary.testing.clock import now


def running(spec: ContainerSpec, started_at: float, **members: Any) -> Container:
    """Give the container that an engine has made of a spec, as it runs; `members` of it differ."""
    made = Container(
        id=spec.id,
        endpoint=spec.endpoint,
        variant=spec.variant,
        instance_id=spec.instance_id,
        deployment=spec.deployment,
        phase="running",
        host="127.0.0.1",
        port=9000,
        started_at=started_at,
        image=spec.image,
        kind=spec.kind,
    )
    return replace(made, **members)


@dataclass(frozen=True, slots=True)
class Script:
    """How a fake container behaves. Times in seconds; None: never."""

    launch_takes: float = 0.0
    launch_error: Exception | None = None
    ready_after: float | None = 0.0
    exits_after: float | None = None
    exit_reason: str = "exited with 3"
    log: tuple[str, ...] = ("starting", "Traceback: no such model")
    status_before_ready: int | None = None
    """What /ping answers meanwhile; None: the port is not open."""
    listens: tuple[str, ...] = ()
    """Where else it listens."""


@dataclass
class FakeEngine:
    """An engine of containers that do what a script says, by image, component or variant, or else `default`.

    Also answers their pings (`ping` is a `controllers.health.Ask`). The scripts may be changed at any time, and are
    read at launch. It outlives controllers as containers do: hand the same one to the next.
    """

    clock: Callable[[], float] = now
    default: Script = field(default_factory=Script)
    scripts: dict[str, Script] = field(default_factory=dict)
    on_change: Callable[[str], None] | None = None
    containers: dict[str, Container] = field(default_factory=dict)
    launched: list[ContainerSpec] = field(default_factory=list)
    stopped: list[tuple[str, float]] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)
    """Ids that answer no ping any more."""
    _by_port: dict[int, tuple[str, Script]] = field(default_factory=dict)
    _logs: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return "fake"

    async def launch(self, spec: ContainerSpec, progress: Progress) -> Container:
        if spec.id in self.containers:
            return self.containers[spec.id]
        self.launched.append(spec)
        names = (spec.image, spec.component, spec.variant)
        script = next((self.scripts[name] for name in names if name in self.scripts), self.default)
        progress("download 1 of 2 MB")
        await asyncio.sleep(script.launch_takes)
        if script.launch_error is not None:
            raise script.launch_error
        if spec.id in self.containers:  # somebody else was launching it too
            return self.containers[spec.id]
        port = 20_000 + len(self._by_port)
        container = running(spec, self.clock(), port=port, resolved_image=f"{spec.image}@sha256:0")
        self.containers[spec.id] = container
        self._by_port[port] = (spec.id, script)
        self._logs[spec.id] = self._logs.get(spec.id, ()) + script.log
        if script.exits_after is not None:
            asyncio.get_running_loop().call_later(script.exits_after, self._exit, container, script.exit_reason)
        return container

    def crash(self, id: str, reason: str = "exited with 1") -> None:
        """Have a running container exit now."""
        self._exit(self.containers[id], reason)

    def _exit(self, container: Container, reason: str) -> None:
        if self.containers.get(container.id) is not container:
            return  # stopped meanwhile
        self.containers[container.id] = replace(container, phase="exited", exit_reason=reason, exited_at=self.clock())
        if self.on_change is not None:
            self.on_change(container.id)

    async def ping(self, host: str, port: int) -> tuple[Answer, int]:
        """Answer as the container behind this port would."""
        id, script = self._by_port[port]
        container = self.containers.get(id)
        if container is None or container.port != port or container.phase == "exited":
            return "refused", 0
        if id in self.silent:
            await asyncio.sleep(2)
            return "timeout", 0
        if script.ready_after is not None and self.clock() - container.started_at >= script.ready_after:
            return "ok", 200
        return ("refused", 0) if script.status_before_ready is None else ("status", script.status_before_ready)

    async def observe(self) -> Sequence[Container]:
        return tuple(self.containers.values())

    async def stop(self, id: str, grace: float) -> None:
        self.stopped.append((id, grace))
        self.containers.pop(id, None)
        self.silent.discard(id)

    async def logs(self, id: str, lines: int) -> Sequence[str]:
        return self._logs.get(id, ())[-lines:]

    async def listens(self, id: str) -> Sequence[str]:
        """Give where a container listens (core.ports.ShowsSockets)."""
        container = self.containers.get(id)
        return () if container is None else self._by_port[container.port][1].listens

    async def capacity(self, instance_type: str = LOCAL) -> Capacity:
        return Capacity(cpus=4.0, memory=8 * 1024**3, accelerators=2)

    async def close(self) -> None:
        """Nothing is held."""
