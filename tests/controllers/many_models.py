"""Multi-model containers made of words, an engine that places files in them, and gateways without sockets."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from clary.controllers.model_api import LOAD_TIMEOUT, Said, Unreachable
from clary.controllers.residency import Bounds, Residency
from clary.core.containers import Container, ModelData, ModelPrefix, Placed
from clary.core.deployment import ModelHost
from clary.core.metrics import Point
from clary.core.residency import News, Wish
from clary.core.target_model import model_id
from clary.errors import AwsError, ContainerGone, DiskFull, LaunchFailure, Transient
from clary.gateway import residency as gateway_side
from clary.gateway.residency import NotLoaded, Resident
from clary.testing import now

PREFIX = "s3://b/models/"


@dataclass
class FakeServer:
    """One run of a multi-model container: as multi-model-server behaves, zombies included."""

    capacity: int = 1_000
    load_takes: float = 0.1
    answer_takes: float = 0.05
    models: dict[str, str | None] = field(default_factory=dict)
    """What is loaded, by name; None: a zombie."""
    under_way: Counter[str] = field(default_factory=Counter)
    loads: list[str] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)
    """What must never be asked of it."""
    refuses: Mapping[str, Said] = field(default_factory=dict)
    """What it says instead of loading something, by its source."""
    hangs: Collection[str] = ()
    """Sources whose load takes as long as the container is given."""
    alive: bool = True

    async def load(self, name: str, source: str) -> Said:
        self._check_alive()
        if name in self.models:
            if self.models[name] is not None:
                self.wrongs.append(f"load of {name}, which is loaded")
            return Said(409)
        if source in self.refuses:
            self.models[name] = None
            return self.refuses[source]
        if len(self.models) >= self.capacity:
            self.models[name] = None
            return Said(507, "no memory")
        self.models[name] = None  # until it is whole
        self.loads.append(name)
        await asyncio.sleep(LOAD_TIMEOUT if source in self.hangs else self.load_takes)
        if not self.alive:
            raise Transient("the connection was closed")
        if source in self.hangs:
            raise Transient("no answer in time")
        self.models[name] = source
        return Said(200)

    async def unload(self, name: str) -> Said:
        self._check_alive()
        await asyncio.sleep(0.01)
        if self.under_way[name]:
            self.wrongs.append(f"unload of {name}, which is answering")
        return Said(200 if self.models.pop(name, 0) != 0 else 404)

    async def invoke(self, name: str) -> tuple[int, str]:
        self._check_alive()
        if name not in self.models:
            return 404, "not loaded"
        source = self.models[name]
        if source is None:
            return 503, "a zombie"
        self.under_way[name] += 1
        try:
            await asyncio.sleep(self.answer_takes)
            self._check_alive()
            return 200, source
        finally:
            self.under_way[name] -= 1

    def _check_alive(self) -> None:
        if not self.alive:
            raise Unreachable("connection refused")


@dataclass
class Machine:
    """What outlives the control plane: containers, their files, the objects, the journal. Engine, API and journal."""

    objects: set[str] = field(default_factory=set)
    servers: dict[int, FakeServer] = field(default_factory=dict)
    """By port."""
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    """What is placed, by container and model: the URL that it is from."""
    room: int = 1_000
    """Models whose files fit on the disk of a container."""
    fetches: list[str] = field(default_factory=list)
    under_way: set[tuple[str, str]] = field(default_factory=set)

    def start(self, id: str, **server: Any) -> ModelHost:
        """Start a container, with an empty disk."""
        port = 20_000 + len(self.servers)
        self.servers[port] = FakeServer(**server)
        self.files[id] = {}
        box = Container(id, "Many", "AllTraffic", f"i-{id}", "d", "running", "127.0.0.1", port, now() + port)
        return ModelHost(box, ModelPrefix(PREFIX))

    def kill(self, host: ModelHost) -> None:
        self.servers[host.container.port].alive = False

    def stop(self, host: ModelHost) -> None:
        """Have the engine remove a container, with all that it was shown."""
        self.kill(host)
        del self.files[host.container.id]

    # -- the engine ----------------------------------------------------------------------------------------------------

    async def place(self, id: str, model: str, data: ModelData, role_arn: str | None) -> Placed:
        if id not in self.files:
            raise ContainerGone(f"{id} was stopped")
        if model not in self.files[id]:
            await asyncio.sleep(0.05)
            if data.url not in self.objects:
                raise LaunchFailure("download", f"{data.url}: there is no such object")
            if len(self.files[id]) >= self.room:
                raise DiskFull("full")
            self.files[id][model] = data.url
            self.fetches.append(data.url)
        return Placed(f"{id}/{model}", 100)

    async def discard(self, id: str, model: str) -> None:
        self.files[id].pop(model, None)

    async def placed(self, id: str) -> Mapping[str, Placed]:
        return {model: Placed(f"{id}/{model}", 100) for model in self.files[id]}

    # -- the containers' API -------------------------------------------------------------------------------------------

    async def load(self, container: Container, model: str, path: str) -> Said:
        id, _, name = path.partition("/")
        assert (id, name) == (container.id, model)
        return await self.servers[container.port].load(model, self.files[id][name])

    async def unload(self, container: Container, model: str) -> Said:
        return await self.servers[container.port].unload(model)

    async def has(self, container: Container, model: str) -> bool:
        server = self.servers[container.port]
        server._check_alive()
        return server.models.get(model) is not None

    async def loaded(self, container: Container) -> list[str]:
        server = self.servers[container.port]
        server._check_alive()
        return list(server.models)

    # -- the journal ---------------------------------------------------------------------------------------------------

    def begin(self, container: str, model: str) -> None:
        self.under_way.add((container, model))

    def end(self, container: str, model: str) -> None:
        self.under_way.discard((container, model))

    def interrupted(self, container: str) -> Collection[str]:
        return [model for id, model in self.under_way if id == container]

    def forget(self, container: str) -> None:
        self.under_way = {each for each in self.under_way if each[0] != container}


@dataclass
class World:
    """A machine, the control plane's present life if it has one, and gateways."""

    machine: Machine = field(default_factory=Machine)
    bounds: Bounds = field(default_factory=lambda: Bounds(disk=10**9, loads_at_once=2))
    hosts: list[ModelHost] = field(default_factory=list)
    routes: list[ModelHost] = field(default_factory=list)
    """Those that gateways know of: as the control plane last said."""
    control: Residency | None = None
    points: list[Point] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the present life of the control plane ends."""

    def begin(self) -> None:
        """Start the control plane: it sees all containers, and opens."""

        async def record(points: Sequence[Point]) -> None:
            self.points += points

        self.control = Residency(self.machine, self.machine, record, self.bounds, self.machine, now)
        self.control.put("many", self.hosts)
        self.routes = self.hosts
        self.control.open()
        self.gone = asyncio.Event()
        self.came.set()

    async def end(self) -> None:
        """Kill the control plane."""
        self.came.clear()
        self.gone.set()
        control, self.control = self.control, None
        if control is not None:
            await control.close()

    def ready(self, *hosts: ModelHost) -> None:
        """Say which containers are ready from now on."""
        self.hosts = list(hosts)
        if self.control is not None:
            self.control.put("many", self.hosts)
            self.routes = self.hosts


async def _before(task: asyncio.Task[Any], event: asyncio.Event) -> bool:
    """Wait for a task; False, and it is cancelled, where the event comes first."""
    signal = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, signal}, return_when=asyncio.FIRST_COMPLETED)
        return task.done() and not event.is_set()
    finally:
        signal.cancel()
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


class Gateway(gateway_side.Residency):
    """A gateway's side without its sockets: questions are calls, and wait while the control plane is away."""

    def __init__(self, world: World) -> None:
        super().__init__(None, None)  # type: ignore[arg-type]  # it opens no socket
        self._world = world
        self._loops = [asyncio.create_task(self._listen()), asyncio.create_task(self.report())]

    async def _ask(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        control = self._world.control
        if control is None:
            raise OSError("nobody listens")
        asked = asyncio.create_task(control.answer(json.loads(json.dumps(question))))  # type: ignore[arg-type]
        if not await _before(asked, self._world.gone):
            raise OSError("the connection was closed")
        found: Mapping[str, Any] = json.loads(json.dumps(asked.result()))
        return found

    async def _listen(self) -> None:
        while True:
            await self._world.came.wait()
            control = self._world.control
            assert control is not None
            feed, gone = control.subscribe(self._name), self._world.gone
            try:
                while await _before(line := asyncio.create_task(anext(feed)), gone):  # type: ignore[arg-type]
                    for each in line.result().splitlines():
                        self._hear(News.from_json(json.loads(each)))
            finally:
                await feed.aclose()

    async def close(self) -> None:
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await super().close()

    async def invoke(self, target: str) -> tuple[int, str]:
        """Do as `gateway.multi_model` does: give the status and what the model says, or what Clary does."""
        doubted = False
        while True:
            held = self.find("Many", "AllTraffic", model_id(target))
            resident = next(iter(held.values()), None)
            if resident is None:
                found: asyncio.Future[Resident | AwsError | NotLoaded] = asyncio.get_running_loop().create_future()

                def hear(
                    said: Resident | AwsError | NotLoaded, found: asyncio.Future[Any] = found, target: str = target
                ) -> None:
                    if isinstance(said, Resident):
                        self.take(said, target)
                    found.set_result(said)

                self.want(Wish("Many", "AllTraffic", target), hear)
                said = await found
                if isinstance(said, AwsError):
                    return said.status, said.message
                if isinstance(said, NotLoaded):
                    return said.status, said.body
                resident = said
            else:
                self.take(resident, target)
            try:
                status, body = await self._send(resident)
                if status == 404 and not doubted:
                    doubted = True
                    if not await self.is_held(resident, spent=False):
                        self.lose(resident)
                        continue
                return status, body
            finally:
                self.release(resident)

    async def _send(self, resident: Resident) -> tuple[int, str]:
        host = next((each for each in self._world.routes if each.container.id == resident.held.container), None)
        if host is None:
            return 0, "no such container"
        try:
            return await self._world.machine.servers[host.container.port].invoke(resident.held.model)
        except Transient as trouble:
            return 0, trouble.message
