"""One multi-model container: its models are downloaded, loaded and unloaded here, one thing at a time for each model.

The service's ways (developer guide, "Multi-Model Endpoints"): whoever wants a model that is being loaded waits for that
load; a container that has no memory (507) loses its least recently used model and is asked again; what a failed load
leaves in the container is cleared; files stay on the disk until there is no room for them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from clary.controllers.model_api import LOAD_TIMEOUT, ModelApi, Said, Unreachable
from clary.controllers.turns import Turns
from clary.core.containers import Placed, Usage
from clary.core.deployment import ModelHost
from clary.core.ports import HoldsModels
from clary.core.residency import Held, HeldKey, Return
from clary.core.shelf import Shelf
from clary.core.target_model import data_of, model_id
from clary.errors import ClaryError, ContainerGone, DiskFull, LaunchFailure, Transient
from clary.telemetry import logger

DRAIN = 60.0
"""Seconds that an unload waits for requests that are under way."""
SETTLE = 1.0
"""Seconds in which gateways notice a new life of the control plane."""
OUTSIZE = 60.0
"""Seconds for which a model that does not fit even alone gets no more room: it would put all others out each time."""
ADOPT_RETRY = 0.5
"""Seconds between attempts to ask a container what it has loaded."""


class LoadFailed(ClaryError):
    """The container did not take a model, and said why."""

    def __init__(self, said: Said) -> None:
        super().__init__(f"the container answered {said.status}")
        self.said = said


class Journal(Protocol):
    """Remembers across lives which loads were under way: whether they came to an end nobody can tell afterwards."""

    def begin(self, container: str, model: str) -> None: ...

    def end(self, container: str, model: str) -> None: ...

    def interrupted(self, container: str) -> Collection[str]: ...

    def forget(self, container: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every loader needs. `measured` is told a metric's name and seconds."""

    engine: HoldsModels
    api: ModelApi
    journal: Journal
    clock: Callable[[], float]
    numbers: Callable[[], int]
    gateways: Callable[[], Collection[str]]
    """Those that follow the news."""
    came: Callable[[Held], None]
    went: Callable[[HeldKey], None]
    measured: Callable[[ModelHost, str, float], None]
    disk_limit: int
    """Bytes of model files in each container."""
    loads_at_once: int
    """In each container: each takes processor time that the models in it would have."""
    pace: Callable[[], Awaitable[None]]
    """Waits until a load may begin."""


class Loader:
    """Loads and unloads the models of one run of one container."""

    def __init__(self, host: ModelHost, around: Surroundings) -> None:
        self.host = host
        self.shelf = Shelf(around.numbers, around.disk_limit)
        self._around = around
        self._container = host.container
        self._work: dict[str, asyncio.Task[None]] = {}
        self._trying: set[str] = set()
        """Models that the container is just being asked to load, or to forget where it could not: they take room."""
        self._fetches = Turns(2 * around.loads_at_once)
        self._loads = Turns(around.loads_at_once)
        self._room = Turns(1)
        self._outsize: dict[str, float] = {}
        """Until when models are known not to fit even alone."""
        self._moved = asyncio.Event()
        self._closed = False
        self._unloads = 0
        self._log = logger("models").bind(container=host.container.id)
        self.adopted: asyncio.Task[None] = asyncio.create_task(self._adopt(), name=f"adopt {host.container.id}")
        self._settled = asyncio.create_task(self._settle(), name=f"settle {host.container.id}")

    # -- for those who want a model ------------------------------------------------------------------------------------

    async def ensure(self, target: str, gateway: str | None) -> Held:
        """Have a model loaded, and give a gateway a grant of it.

        Raises LaunchFailure, LoadFailed or Transient, of which ContainerGone is one.
        """
        await self._finished(self.adopted)
        name = model_id(target)
        self.shelf.wait(name)
        self.shelf[name].target = target
        try:
            while self.shelf[name].phase != "loaded":
                self._check_open()
                await self._finished(self._work.get(name) or self._begin(name, self._bring(name, target)))
            self._check_open()
            if gateway is not None:
                self.shelf.grant(name, gateway, self._around.clock())
            return self._held(name)
        finally:
            self.shelf.leave(name)
            self._stir()

    def give_back(self, gateway: str, back: Return) -> None:
        """Take grants back."""
        _, name, number = back.key
        self.shelf.give_back(name, number, gateway, back.grants, aware=back.aware)
        model = self.shelf.get(name, number)
        if not self.host.models.cached and model is not None and model.is_idle:
            self.retire(name)
        self._stir()

    def lose(self, gateway: str) -> None:
        """A gateway has gone away, with all that it had under way."""
        self.shelf.lose(gateway)
        self._stir()

    async def holds(self, key: HeldKey, *, spent: bool) -> bool:
        """Tell whether a model is still loaded that its container answered 404 for (507, if it is `spent`)."""
        model = self.shelf.get(key.model, key.number)
        if model is None or model.phase != "loaded":
            return False
        if spent:
            self.retire(key.model)
            return True
        try:
            if await self._around.api.has(self._container, key.model):
                return self.shelf.get(key.model, key.number) is model
        except Transient:
            return True
        if self.shelf.get(key.model, key.number) is model and model.phase == "loaded":
            self._log.warning("a container has lost a model", model=key.model)
            self._around.went(key)
            self.shelf.has_gone(key.model)
            self._unloads += 1  # there may be room
        return False

    def relieve(self, usage: Usage) -> None:
        """Unload models if the container uses too much of its memory."""
        if not self._settled.done():
            return
        for name in self.shelf.beyond_memory(usage.memory, usage.memory_limit):
            self.retire(name)

    def held(self) -> list[Held]:
        """Give the models that gateways may be told of."""
        return [self._held(name) for name, model in self.shelf.loaded.items() if model.published]

    async def close(self) -> None:
        """Let go: the container has ended, or this process does. Who waits is told that it has gone."""
        self._closed = True
        for held in self.held():
            self._around.went(held.key)
        tasks = [self.adopted, self._settled, *self._work.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- loading -------------------------------------------------------------------------------------------------------

    async def _adopt(self) -> None:
        """Find out what an earlier life has loaded. What was being loaded when it died may be but a name: cleared."""
        id = self._container.id
        while True:
            try:
                placed = await self._around.engine.placed(id)
                loaded = set(await self._around.api.loaded(self._container))
                for name in self._around.journal.interrupted(id):
                    if name in loaded:
                        await self._clear(name)
                        loaded.discard(name)
                    self._around.journal.end(id, name)
                break
            except Transient as trouble:
                self._log.warning("cannot ask which models are loaded", reason=trouble.message)
                await asyncio.sleep(ADOPT_RETRY)
        ours = loaded & placed.keys()  # others are the image's own
        self.shelf.adopt(ours, {name: each.size for name, each in placed.items()}, self._around.clock())
        for held in self.held():
            self._around.came(held)

    async def _settle(self) -> None:
        """Leave what was adopted alone until the gateways are back, who know what they have under way to it."""
        await self._finished(self.adopted)
        if not self.shelf.loaded:
            return
        await asyncio.sleep(SETTLE)
        for name in () if self.host.models.cached else list(self.shelf.loaded):
            self.retire(name)

    async def _bring(self, name: str, target: str) -> None:
        self.shelf.is_loading(name)
        try:
            await self._around.pace()
            placed = await self._place(name, target)
            async with self._loads.turn():
                await self._load(name, target, placed.path)
        except BaseException:
            self.shelf.has_gone(name)
            raise
        self.shelf.has_loaded(name, self._around.clock(), published=self.host.models.cached)
        if self.host.models.cached:
            self._around.came(self._held(name))

    async def _place(self, name: str, target: str) -> Placed:
        host, engine = self.host, self._around.engine
        was_there = bool(self.shelf[name].size)
        async with self._fetches.turn(), _deadline("download"):
            begun = self._around.clock()
            while True:
                try:
                    placed = await engine.place(self._container.id, name, data_of(host.models, target), host.role_arn)
                    break
                except DiskFull:
                    if not await self._make_disk_room(name, full=True):
                        raise
            if not was_there:
                self._around.measured(host, "ModelDownloadingTime", self._around.clock() - begun)
        self.shelf.has_placed(name, placed.size)
        await self._make_disk_room(name)
        return placed

    async def _load(self, name: str, target: str, path: str) -> None:
        outsize = self._is_outsize(name)
        if not outsize:
            await self._unload_what_is_too_much(name)
        before = self._unloads
        said = await self._ask_to_load(name, path)
        if said.status == 507 and not outsize:
            # One at a time: what two leave for a moment would be in each other's way for ever.
            async with self._room.turn():
                await self._finished(self._settled)
                while said.status == 507:
                    self.shelf.was_refused(name, self._around.clock())
                    # Where something else has gone meanwhile there may be room already.
                    if self._unloads == before + 1 and not await self._make_room():
                        self._outsize[name] = self._around.clock() + OUTSIZE
                        self.shelf.is_outsize()
                        break
                    before = self._unloads
                    said = await self._ask_to_load(name, path)
        if said.status == 409:  # it had something under this name, which has been cleared
            said = await self._ask_to_load(name, path)
        if said.status in (200, 409):
            self._outsize.pop(name, None)
            return
        if said.status != 507:
            await self._discard(name)  # so that a better one under the same key gets its chance
        self._log.warning("model", model=name, target=target, phase="failed", status=said.status)
        raise LoadFailed(said)

    def _is_outsize(self, name: str) -> bool:
        now = self._around.clock()
        self._outsize = {each: until for each, until in self._outsize.items() if until > now}
        return name in self._outsize

    async def _ask_to_load(self, name: str, path: str) -> Said:
        """Ask the container. Whatever it is that a failed load leaves behind, it must not be taken for a model."""
        around, id = self._around, self._container.id
        around.journal.begin(id, name)
        self._trying.add(name)
        begun = around.clock()
        try:
            try:
                said = await around.api.load(self._container, name, path)
            except Unreachable as trouble:
                around.journal.end(id, name)
                raise ContainerGone(trouble.message) from trouble
            except Transient as trouble:
                said = Said(0, trouble.message)
            if said.status == 200:
                around.measured(self.host, "ModelLoadingTime", around.clock() - begun)
            else:
                await self._clear(name)
            around.journal.end(id, name)
        finally:
            self._trying.discard(name)
            self._stir()
        return said

    # -- making room ---------------------------------------------------------------------------------------------------

    def retire(self, name: str) -> asyncio.Task[None]:
        """Unload a loaded model once nothing is under way to it."""
        held = self._held(name)
        self.shelf.retire(name, self._around.gateways())
        if self.shelf[name].published:
            self._around.went(held.key)
        return self._begin(name, self._unload(name))

    async def _unload(self, name: str) -> None:
        model = self.shelf[name]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN):
                while model.in_hands:
                    await self._moved.wait()
        begun = self._around.clock()
        if await self._clear(name):
            self._around.measured(self.host, "ModelUnloadingTime", self._around.clock() - begun)
        self.shelf.has_gone(name)
        if not self.host.models.cached:
            await self._discard(name)

    async def _clear(self, name: str) -> bool:
        """Have the container forget a model; False where it does not answer: its next load will say 409."""
        try:
            await self._around.api.unload(self._container, name)
        except Transient as trouble:
            self._log.warning("cannot unload a model", model=name, reason=trouble.message)
            return False
        finally:
            self._unloads += 1
        return True

    async def _unload_what_is_too_much(self, name: str) -> None:
        """Make the room that the container is known not to have: to be refused costs it more than an unload."""
        if not self.shelf.is_too_much(name, self._around.clock()):
            return
        async with self._room.turn():
            await self._finished(self._settled)
            while self.shelf.is_too_much(name, self._around.clock()):
                if (victim := self.shelf.victim()) is None:
                    return
                await asyncio.wait({self.retire(victim)})

    async def _make_room(self) -> bool:
        """Unload a model, or wait until one can be; False where there is no room to be had."""
        if (victim := self.shelf.victim()) is not None:
            await asyncio.wait({self.retire(victim)})
            return True
        if self.shelf.is_empty and not self._trying:
            return False
        try:
            async with asyncio.timeout(LOAD_TIMEOUT):
                await self._moved.wait()
        except TimeoutError:
            return False
        return True

    async def _make_disk_room(self, keep: str, *, full: bool = False) -> bool:
        gone = self.shelf.beyond_disk(keep, full=full)
        for name in gone:
            await self._discard(name)
        return bool(gone)

    async def _discard(self, name: str) -> None:
        self.shelf.has_placed(name, 0)
        await self._around.engine.discard(self._container.id, name)

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        before = self._work.get(name)
        assert before is None or before.done(), "one thing at a time for each model"
        task = self._work[name] = asyncio.create_task(work, name=f"{name} in {self._container.id}")
        task.add_done_callback(lambda done: self._end(name, done))
        return task

    def _end(self, name: str, task: asyncio.Task[None]) -> None:
        if self._work.get(name) is task:
            del self._work[name]
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ClaryError):
            self._log.error("a model's load failed unexpectedly", model=name, error=repr(error), exc_info=error)
        self._stir()

    async def _finished(self, task: asyncio.Task[None]) -> None:
        """Wait for a task that others wait for too; raise what it raised."""
        await asyncio.wait({task})
        if task.cancelled():
            raise ContainerGone(f"{self._container.id} has ended")
        task.result()

    def _check_open(self) -> None:
        if self._closed:
            raise ContainerGone(f"{self._container.id} has ended")

    def _stir(self) -> None:
        """Let everybody who waits look again."""
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def _held(self, name: str) -> Held:
        box = self._container
        return Held(box.endpoint, box.variant, box.instance_id, box.id, name, self.shelf[name].number)


@contextlib.asynccontextmanager
async def _deadline(step: str) -> AsyncIterator[None]:
    """Bound a part of a load, in the words of its failure."""
    try:
        async with asyncio.timeout(LOAD_TIMEOUT) as timer:
            yield
    except TimeoutError:
        if not timer.expired():
            raise
        raise LaunchFailure(step, f"it took longer than {LOAD_TIMEOUT:g} s") from None
