"""The models of all multi-model variants: on which instance each is, and the door at which gateways ask for them."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from clary.controllers.loader import Journal, Loader, LoadFailed, Surroundings
from clary.controllers.model_api import HttpModelApi, ModelApi
from clary.core import replication
from clary.core.deployment import ModelHost
from clary.core.metrics import INSTANCES, INVOCATIONS, MINUTE, Point, Series, Statistics, merged, series
from clary.core.ports import HoldsModels, Meters
from clary.core.replication import Demand
from clary.core.residency import Held, HeldKey, News, Report, Shelved, Wish
from clary.core.target_model import data_of, model_id, refusal
from clary.errors import ClaryError, ContainerGone, LaunchFailure, SerializationException, Transient
from clary.telemetry import logger

WAIT = 60.0
"""Seconds that a question waits for its model; whoever asked may ask again (AWS's documentation)."""
FIRST_LOOK = 5.0
"""Longest wait for the containers to say what they have loaded, before gateways are told what is known."""
INTERVAL = 10.0
"""Seconds between looks at the memory of containers, and at how many models they have."""

GONE = 0.1
"""Seconds before a container that does not listen is looked at again."""
RECENT = 8
"""Names of models that people are told, of each container."""

Record = Callable[[Sequence[Point]], Awaitable[None]]
Document = Mapping[str, Any]


async def _at_once() -> None:
    return


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a multi-model container may have."""

    disk: int
    """Bytes of model files."""
    loads_at_once: int = 1
    pace: Callable[[], Awaitable[None]] = _at_once
    """Waits until a load may begin (`controllers.pace`)."""


class _NoModel(ClaryError):
    """A model could not be had; the message begins with the service's words."""

    def __init__(self, host: ModelHost, wish: Wish, failure: LaunchFailure) -> None:
        url = data_of(host.models, wish.target_model).url
        if failure.step == "download":
            bucket, _, key = url.removeprefix("s3://").partition("/")
            text = (
                f"Failed to download model data(bucket: {bucket}, key: {key}). Please ensure that there is an object "
                "located at the URL and that the role passed to CreateModel has permissions to download the model."
            )
        else:
            text = (
                f'Failed to extract model data archive from URL "{url}". Please ensure that the object located at the '
                "URL is a valid tar.gz archive."
            )
        super().__init__(f"{text} ({failure.message})")


class Residency:
    """All loaders, and what gateways are told of them. `clock` gives seconds since the epoch."""

    def __init__(
        self,
        engine: HoldsModels,
        journal: Journal,
        record: Record,
        bounds: Bounds,
        api: ModelApi | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._record = record
        self._clock = clock
        self._http = HttpModelApi()
        # Numbers of another life of this process are not used again.
        self._around = Surroundings(
            engine=engine,
            api=api or self._http,
            journal=journal,
            clock=clock,
            numbers=count(time.time_ns()).__next__,
            gateways=lambda: self._readers.keys(),
            came=lambda held: self._tell(News(all=False, add=[held])),
            went=lambda key: self._tell(News(all=False, drop=[key])),
            measured=self._measured,
            disk_limit=bounds.disk,
            loads_at_once=bounds.loads_at_once,
            pace=bounds.pace,
        )
        self._loaders: dict[str, dict[str, Loader]] = {}
        """By the key of the endpoint and the container's id."""
        self._readers: dict[str, asyncio.Queue[News]] = {}
        self._demand: defaultdict[tuple[str, str], Demand] = defaultdict(Demand)
        self._points: list[Point] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._opened = asyncio.Event()
        self._moved = asyncio.Event()
        self._log = logger("models")

    # -- the endpoints' side -------------------------------------------------------------------------------------------

    def put(self, key: str, hosts: Sequence[ModelHost]) -> None:
        """Say which multi-model containers of an endpoint are ready."""
        before = self._loaders.get(key, {})
        if not before and not hosts:
            return
        after: dict[str, Loader] = {}
        for host in hosts:
            loader = before.get(host.container.id)
            same = loader is not None and loader.host.container.started_at == host.container.started_at
            after[host.container.id] = loader if loader is not None and same else Loader(host, self._around)
        for id, loader in before.items():
            if after.get(id) is not loader:
                self._spawn(loader.close())
                if id not in after:
                    self._journal.forget(id)
        if after:
            self._loaders[key] = after
        else:
            del self._loaders[key]
        self._stir()

    def open(self) -> None:
        """All endpoints have been looked at: gateways may be told what is loaded."""
        self._opened.set()

    async def run(self) -> None:
        """Write numbers down, and look at the memory of containers, for ever."""
        try:
            while True:
                await asyncio.sleep(INTERVAL)
                try:
                    await self.look()
                except Transient as trouble:
                    self._log.warning("cannot look at multi-model containers now", reason=trouble.message)
                except Exception:  # numbers and a look are no reason to end
                    self._log.exception("looking at multi-model containers failed")
        finally:
            await self.close()

    async def look(self) -> None:
        """Count the models that are loaded, hand the numbers over, and unload some where memory is short."""
        loaders = self._all()
        for loader in loaders:
            self._note(series(INSTANCES, "LoadedModelCount", *_variant(loader.host)), float(len(loader.shelf.loaded)))
        points, self._points = merged(self._points), []
        if points:
            await self._record(points)
        if loaders and isinstance(self._engine, Meters):
            usage = await self._engine.usage()
            for loader in loaders:
                if (used := usage.get(loader.host.container.id)) is not None:
                    loader.relieve(used)

    async def close(self) -> None:
        """Let go of all containers; their models stay loaded."""
        loaders, self._loaders = self._all(), {}
        await asyncio.gather(*(loader.close() for loader in loaders), *self._tasks, return_exceptions=True)
        self._http.close()

    # -- the gateways' side --------------------------------------------------------------------------------------------

    async def subscribe(self, gateway: str) -> AsyncGenerator[bytes, None]:
        """Tell a gateway what is loaded, and then what comes and goes, as lines of JSON."""
        await self._opened.wait()
        if adopting := [loader.adopted for loader in self._all()]:
            await asyncio.wait(adopting, timeout=FIRST_LOOK)
        queue: asyncio.Queue[News] = asyncio.Queue()
        self._readers[gateway] = queue
        try:
            yield _line(News(all=True, add=[held for loader in self._all() for held in loader.held()]))
            while True:
                lines = [_line(await queue.get())]
                while not queue.empty():
                    lines.append(_line(queue.get_nowait()))
                yield b"".join(lines)
        finally:
            if self._readers.get(gateway) is queue:
                del self._readers[gateway]
            for loader in self._all():
                loader.lose(gateway)

    async def answer(self, question: Document) -> Document:
        """Answer a gateway. Raises SerializationException for what is no question."""
        try:
            match question["do"]:
                case "load":
                    gateway, (endpoint, variant, target, avoid) = question["gateway"], question["wish"]
                    wish = Wish(str(endpoint), str(variant), str(target), tuple(avoid))
                    answering = self._load(str(gateway), wish)
                case "report":
                    answering = self._take(Report.from_json(question))
                case "doubt":
                    answering = self._doubt(HeldKey(*question["key"]), spent=bool(question["spent"]))
                case "tell":
                    return self._tell_of(str(question["endpoint"]))
                case other:
                    raise ValueError(f"{other!r} is no question")
        except (KeyError, TypeError, ValueError) as error:
            raise SerializationException(f"This is no question about models: {error!r}") from error
        return await answering

    async def _load(self, gateway: str, wish: Wish) -> Document:
        """Have a model loaded: give `held`, or why not (`error`), or neither where it is still being loaded."""
        if (why := refusal(wish.target_model)) is not None:
            return _error("ValidationError", 400, why)
        try:
            async with asyncio.timeout(WAIT):
                return {"held": await self._ensure(gateway, wish)}
        except TimeoutError:
            return {}
        except LoadFailed as failed:
            return {"said": failed.said}
        except _NoModel as missing:
            return _error("ValidationError", 400, str(missing))
        except Transient as trouble:
            return _error("ServiceUnavailable", 503, f"{wish.target_model} cannot be loaded now: {trouble.message}")

    async def _ensure(self, gateway: str | None, wish: Wish) -> Held:
        while True:
            loaders = self._of(wish.endpoint, wish.variant)
            if not loaders:
                await self._moved.wait()
                continue
            loader = self._choose(wish, loaders)
            try:
                return await loader.ensure(wish.target_model, gateway)
            except ContainerGone:  # its endpoint is about to say so; until then another one is tried
                wish = wish._replace(avoid=(*wish.avoid, loader.host.container.instance_id))
                await asyncio.sleep(GONE)
            except LaunchFailure as failure:
                raise _NoModel(loader.host, wish, failure) from failure

    def _choose(self, wish: Wish, loaders: Mapping[str, Loader]) -> Loader:
        """Choose where it is loaded already, else where it is about to be, else where its files are, else any."""
        name = model_id(wish.target_model)
        able = {id: each for id, each in loaders.items() if id not in wish.avoid} or loaders
        for phase in ("loaded", "loading"):
            for loader in able.values():
                if loader.shelf.phase(name) == phase:
                    return loader
        placed = [id for id, loader in able.items() if loader.shelf.size(name)]
        return able[replication.place(name, placed or list(able))]

    async def _take(self, report: Report) -> Document:
        now = self._clock()
        by_container = {loader.host.container.id: loader for loader in self._all()}
        for use in report.uses:
            if (loader := by_container.get(use.key.container)) is not None:
                loader.shelf.use(use.key.model, use.key.number, now - use.age, use.target_model)
                self._replicate(loader.host, use.target_model, use.uses, now)
        for back in report.returns:
            if (loader := by_container.get(back.key.container)) is not None:
                loader.give_back(report.gateway, back)
        return {}

    def _replicate(self, host: ModelHost, target: str, uses: int, now: float) -> None:
        """Load a model that is asked for much on a further instance."""
        loaders = self._of(*_variant(host))
        name, demand = model_id(target), self._demand[_variant(host)]
        demand.count(name, uses, now)
        if len(loaders) < 2 or not host.models.cached:
            return
        holding = [id for id, each in loaders.items() if each.shelf.phase(name) != "absent"]
        if len(holding) >= demand.copies(name, len(loaders)):
            return
        if (further := replication.another(name, list(loaders), holding)) is not None:
            self._spawn(self._copy(loaders[further], target))

    async def _copy(self, loader: Loader, target: str) -> None:
        try:
            await loader.ensure(target, None)
        except ClaryError as error:  # there is one that serves
            self._log.info("a further copy of a model was not loaded", model=target, reason=str(error))

    async def _doubt(self, key: HeldKey, *, spent: bool) -> Document:
        for loader in self._all():
            if loader.host.container.id == key.container:
                return {"held": await loader.holds(key, spent=spent)}
        return {"held": False}

    def _tell_of(self, endpoint: str) -> Document:
        """Say what is loaded on each instance of an endpoint, for people."""
        told = [_told(loader) for loader in self._loaders.get(endpoint.lower(), {}).values()]
        return {"shelves": [shelf._asdict() for shelf in sorted(told)]}

    # -- inside --------------------------------------------------------------------------------------------------------

    def _of(self, endpoint: str, variant: str) -> Mapping[str, Loader]:
        """Give the loaders of a variant, by the instance."""
        return {
            loader.host.container.instance_id: loader
            for loader in self._loaders.get(endpoint.lower(), {}).values()
            if loader.host.container.variant == variant
        }

    def _all(self) -> list[Loader]:
        return [loader for loaders in self._loaders.values() for loader in loaders.values()]

    def _tell(self, news: News) -> None:
        for queue in self._readers.values():
            queue.put_nowait(news)

    def _measured(self, host: ModelHost, name: str, seconds: float) -> None:
        self._note(series(INVOCATIONS, name, *_variant(host)), seconds * 1e6)

    def _note(self, of: Series, value: float) -> None:
        statistics = Statistics()
        statistics.add(value)
        self._points.append(Point(of, int(self._clock()) // MINUTE * MINUTE, statistics))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stir(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


def _told(loader: Loader) -> Shelved:
    loading, placed, size = loader.shelf.count()
    box, recent = loader.host.container, loader.shelf.recent(RECENT)
    return Shelved(box.variant, box.instance_id, len(loader.shelf.loaded), loading, placed, size, tuple(recent))


def _variant(host: ModelHost) -> tuple[str, str]:
    return host.container.endpoint, host.container.variant


def _error(code: str, status: int, message: str) -> Document:
    return {"error": {"code": code, "status": status, "message": message}}


def _line(news: News) -> bytes:
    return json.dumps(news, separators=(",", ":")).encode() + b"\n"
