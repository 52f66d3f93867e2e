"""What tests need in place of the outside world: time that jumps, a store in memory, an engine made of words; and the
suites that every engine must pass, and every engine that holds models.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec, TypeVar

from clary.core.asynchronous import AsyncRequest, Backlog, Notification, Settled
from clary.core.deployment import Answer
from clary.core.ports import (
    LOCAL,
    Capacity,
    Container,
    ContainerSpec,
    Engine,
    HoldsModels,
    ListQuery,
    Meters,
    ModelData,
    Page,
    Progress,
)
from clary.core.queues import Bound, Unsent, Waiting
from clary.core.resources import KINDS, Kind, Resource
from clary.errors import LaunchFailure, Transient

P = ParamSpec("P")
T = TypeVar("T")
_KINDS = {kind.name: kind for kind in KINDS}
EPOCH = 1_700_000_000.0
"""When virtual time begins."""


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits for a timer: where nothing is ready, the time of the next timer has come."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise RuntimeError("deadlock: no task can go on, and no timer is set")
        self.skipped += timeout
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumps = _JumpingSelector()
        super().__init__(self._jumps)

    def time(self) -> float:
        return self._jumps.skipped


def now() -> float:
    """Give the virtual time in seconds since the epoch: the clock to hand to what is tested."""
    return EPOCH + asyncio.get_running_loop().time()


def virtual_runner() -> asyncio.Runner:
    """Make a runner in whose loop sleeping takes no time. For tests without sockets and threads."""
    return asyncio.Runner(loop_factory=_VirtualLoop)


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test in a loop in which sleeping takes no time. For tests without sockets and threads."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with virtual_runner() as runner:
            runner.run(test(*args, **kwargs))

    return run


async def until(condition: Callable[[], bool], timeout: float = 600.0) -> None:
    """Wait, in whatever time the loop has, until the condition holds. Raises TimeoutError."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - any condition at all: there is no event to wait for
            await asyncio.sleep(0.01)


class MemoryStore:
    """A ResourceStore and SpecStore in a dict, with the same promises but the one about surviving."""

    def __init__(self, clock: Callable[[], float] = now) -> None:
        self._clock = clock
        self._rows: dict[tuple[str, str], Resource] = {}
        self._tags: dict[str, Mapping[str, str]] = {}

    def _key(self, kind: Kind, name: str) -> tuple[str, str]:
        return kind.name, name.lower() if kind.case_insensitive else name

    async def insert(self, resource: Resource, tags: Mapping[str, str]) -> Resource | None:
        key = self._key(_KINDS[resource.kind], resource.name)
        if key in self._rows:
            return None
        at = self._clock()
        self._tags[resource.arn] = dict(tags)
        self._rows[key] = replace(resource, created_at=at, modified_at=at)
        return self._rows[key]

    async def get(self, kind: Kind, name: str) -> Resource | None:
        return self._rows.get(self._key(kind, name))

    async def list(self, kind: Kind, query: ListQuery) -> Page:
        of_kind = (r for r in self._rows.values() if r.kind == kind.name)
        rows = sorted(
            (r for r in of_kind if all(r.spec.get(member) == value for member, value in query.members)),
            key=lambda r: r.name,
        )
        start = query.after[1] if query.after else 0
        page = rows[start : start + query.limit]
        more = start + query.limit < len(rows)
        return Page(page, (page[-1].name, start + query.limit) if more else None)

    async def set_status(self, resource: Resource, status: Mapping[str, object], *, touch: bool = True) -> bool:
        key = self._key(_KINDS[resource.kind], resource.name)
        row = self._rows.get(key)
        if row is None or row.generation != resource.generation or row.created_at != resource.created_at:
            return False
        self._rows[key] = replace(row, status=status, modified_at=self._clock() if touch else row.modified_at)
        return True

    async def replace(self, resource: Resource, spec: Mapping[str, object]) -> Resource | None:
        key = self._key(_KINDS[resource.kind], resource.name)
        row = self._rows.get(key)
        if row is None or row.generation != resource.generation or row.created_at != resource.created_at:
            return None
        self._rows[key] = replace(row, spec=spec, generation=row.generation + 1, modified_at=self._clock())
        return self._rows[key]

    async def mark_deleting(self, kind: Kind, name: str, status: Mapping[str, object]) -> Resource | None:
        key = self._key(kind, name)
        row = self._rows.get(key)
        if row is None:
            return None
        row = replace(row, status=status, deleting=True, generation=row.generation + 1, modified_at=self._clock())
        self._rows[key] = row
        return row

    async def remove(self, kind: Kind, name: str) -> bool:
        row = self._rows.pop(self._key(kind, name), None)
        if row is not None:
            self._tags.pop(row.arn, None)
        return row is not None


class MemoryQueue:
    """An AsyncQueue and an Outbox in lists, with the same promises but the one about surviving."""

    def __init__(self, clock: Callable[[], float] = now) -> None:
        self._clock = clock
        self._rows: list[tuple[AsyncRequest, bytes]] = []
        self.ended: dict[str, float] = {}
        self.notifications: dict[int, Unsent] = {}
        self._number = 0

    async def add(self, requests: Sequence[tuple[AsyncRequest, bytes]], bound: Bound) -> Sequence[bool]:
        kept = []
        for request, body in requests:
            there = any(request.id == known.id for known, _ in self._rows)
            held = [len(each) for known, each in self._rows if known.queue == request.queue and self._waits(known)]
            fits = len(held) < bound.requests and sum(held) + len(body) <= bound.bytes
            if fits and not there:
                self._rows.append((request, body))
            kept.append(fits or there)
        return kept

    def _waits(self, request: AsyncRequest) -> bool:
        return request.id not in self.ended

    async def waiting(self, queue: str, after: int, limit: int) -> Sequence[Waiting]:
        numbered = enumerate((request for request, _ in self._rows), 1)
        found = [Waiting(n, each) for n, each in numbered if n > after and each.queue == queue and self._waits(each)]
        return found[:limit]

    async def body(self, id: str) -> bytes:
        return next(body for request, body in self._rows if request.id == id)

    async def expired(self, now: float, limit: int) -> Sequence[Waiting]:
        numbered = enumerate((request for request, _ in self._rows), 1)
        return [Waiting(n, each) for n, each in numbered if self._waits(each) and each.expires_at <= now][:limit]

    async def settle(self, ends: Sequence[Settled]) -> None:
        for end in ends:
            if end.id not in self.ended:
                self.ended[end.id] = self._clock()
                await self.post([end.notification] if end.notification is not None else [])

    async def backlogs(self) -> Mapping[str, Backlog]:
        found: dict[str, Backlog] = {}
        for request, _ in self._rows:
            if self._waits(request):
                before = found.get(request.queue, Backlog(0, request.accepted_at))
                found[request.queue] = Backlog(before.size + 1, before.oldest)
        return found

    async def post(self, notifications: Sequence[Notification]) -> None:
        for notification in notifications:
            self._number += 1
            self.notifications[self._number] = Unsent(self._number, self._clock(), notification)

    async def unsent(self, after: int, limit: int) -> Sequence[Unsent]:
        return [each for number, each in sorted(self.notifications.items()) if number > after][:limit]

    async def sent(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            del self.notifications[number]

    async def forget(self, before: float) -> None:
        gone = {id for id, at in self.ended.items() if at < before}
        self._rows = [row for row in self._rows if row[0].id not in gone]


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
        container = Container(
            id=spec.id,
            endpoint=spec.endpoint,
            variant=spec.variant,
            instance_id=spec.instance_id,
            deployment=spec.deployment,
            phase="running",
            host="127.0.0.1",
            port=port,
            started_at=self.clock(),
            image=spec.image,
            resolved_image=f"{spec.image}@sha256:0",
            kind=spec.kind,
        )
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

    async def capacity(self, instance_type: str = LOCAL) -> Capacity:
        return Capacity(cpus=4.0, memory=8 * 1024**3, accelerators=2)

    async def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, slots=True)
class Specimens:
    """Containers for the conformance suite, runnable on the engine under test. Ids differ."""

    serves: ContainerSpec
    """Runs until it is stopped, and writes at least two lines to its log soon after it starts."""
    exits: ContainerSpec
    """Exits by itself with status 3 soon after it starts."""
    broken: ContainerSpec
    """Cannot be launched at all."""


LAUNCH_STEPS = frozenset({"image", "download", "unpack", "environment", "create"})


async def engine_conformance(create: Callable[[], Awaitable[Engine]], specimens: Specimens) -> None:
    """Check that an engine keeps the promises of `core.ports.Engine`. Raises AssertionError at the first broken one.

    `create` makes an engine object; objects made one after the other must find each other's containers.
    """
    engine = await create()
    try:
        await _check_broken(engine, specimens.broken)
        await _check_cancelled(engine, specimens.serves)
        first = await _check_launch(engine, specimens.serves)
        await _check_exit(engine, specimens.exits)
    finally:
        await engine.close()
    engine = await create()
    try:
        await _check_adopted(engine, first)
        await _check_usage(engine, first)
        await _check_stop(engine, first)
        capacity = await engine.capacity()
        assert capacity.cpus > 0, "an engine has processors"
        assert capacity.memory > 0, "an engine has memory"
    finally:
        await engine.close()


async def _find(engine: Engine, id: str) -> Container | None:
    found = [container for container in await engine.observe() if container.id == id]
    assert len(found) <= 1, f"{id} is observed {len(found)} times"
    return found[0] if found else None


async def _wait_for(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(60):
            while not await holds():  # noqa: ASYNC110 - engines need not tell of changes
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"within 60 s: {what}") from None


async def _check_broken(engine: Engine, spec: ContainerSpec) -> None:
    try:
        await engine.launch(spec, lambda _: None)
    except LaunchFailure as error:
        assert error.step in LAUNCH_STEPS, f"unknown launch step {error.step!r}"
        assert error.message, "a launch failure explains itself"
    else:
        raise AssertionError("launching what cannot be launched raises LaunchFailure")
    assert await _find(engine, spec.id) is None, "a failed launch leaves nothing behind"


async def _check_cancelled(engine: Engine, spec: ContainerSpec) -> None:
    task = asyncio.ensure_future(engine.launch(spec, lambda _: None))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await _find(engine, spec.id) is None, "a cancelled launch leaves nothing behind"


async def _launch(engine: Engine, spec: ContainerSpec) -> Container:
    return await _insisted(lambda: engine.launch(spec, lambda _: None))


async def _stop(engine: Engine, id: str) -> None:
    await _insisted(lambda: engine.stop(id, 1.0))


async def _insisted(work: Callable[[], Awaitable[T]]) -> T:
    """Do what may be put off: Transient says that it is worth another try, as controllers give it one."""
    for _ in range(5):
        try:
            return await work()
        except Transient as trouble:
            await asyncio.sleep(min(trouble.retry_after, 1.0))
    return await work()


async def _check_launch(engine: Engine, spec: ContainerSpec) -> Container:
    container, twin = await asyncio.gather(*(_launch(engine, spec) for _ in range(2)))
    assert (twin.started_at, twin.pid) == (container.started_at, container.pid), "two launches at once are one"
    for name in ("id", "endpoint", "variant", "instance_id", "deployment", "image", "kind"):
        assert getattr(container, name) == getattr(spec, name), f"a container keeps its {name}"
    assert container.phase == "running", "launch returns once the process runs"
    assert container.port > 0, "a container has a port"
    assert container.resolved_image, "an image is resolved to what will be launched again"
    again = await _launch(engine, spec)
    assert (again.started_at, again.pid) == (container.started_at, container.pid), "launching twice is launching once"
    assert await _find(engine, spec.id) is not None, "what was launched is observed"

    async def has_logged() -> bool:
        return len(await engine.logs(spec.id, 100)) >= 2

    await _wait_for(has_logged, "the log has the lines that the container wrote")
    assert len(await engine.logs(spec.id, 1)) == 1, "the log gives at most as many lines as were asked for"
    assert not await engine.logs("nobody", 10), "the log of an unknown container is empty"
    return container


async def _check_exit(engine: Engine, spec: ContainerSpec) -> None:
    await _launch(engine, spec)

    async def has_exited() -> bool:
        container = await _find(engine, spec.id)
        assert container is not None, "an exited container is observed until it is stopped"
        return container.phase == "exited"

    await _wait_for(has_exited, "an exit is observed")
    container = await _find(engine, spec.id)
    assert container is not None
    assert container.exit_reason == "exited with 3", f"an exit has its reason, not {container.exit_reason!r}"
    assert container.exited_at is not None, "an exit has its time"
    assert container.exited_at >= container.started_at, "an exit comes after the start"
    before = await engine.logs(spec.id, 100)
    await _stop(engine, spec.id)
    assert await _find(engine, spec.id) is None, "a stopped container is forgotten"
    again = await _launch(engine, replace(spec, resolved_image=container.resolved_image))
    assert again.started_at > container.started_at, "what was stopped can be launched again"
    assert again.resolved_image == container.resolved_image, "a pinned image stays what it is"
    await _wait_for(has_exited, "its exit is observed too")
    await _stop(engine, spec.id)
    lines = await engine.logs(spec.id, 100)
    assert list(lines[: len(before)]) == list(before), "what it wrote stays, in order, and what comes next follows"
    news = sorted(lines[len(before) :])
    assert news, "what it wrote until its end is in the log"
    assert news == sorted(before[-len(news) :]), "once, as it was the first time"


async def _check_adopted(engine: Engine, first: Container) -> None:
    adopted = await _find(engine, first.id)
    assert adopted is not None, "containers outlive the engine object"
    assert adopted.phase == "running", "and run on"
    assert (adopted.host, adopted.port, adopted.started_at) == (first.host, first.port, first.started_at)
    assert adopted.deployment == first.deployment, "an adopted container knows its deployment"


async def _check_usage(engine: Engine, first: Container) -> None:
    if not isinstance(engine, Meters):
        return
    used = (await engine.usage())[first.id]
    assert 0 <= used.cpu_seconds <= (await engine.usage())[first.id].cpu_seconds, "CPU time grows"
    assert 0 < used.memory <= used.memory_limit, "a container that runs has memory, within its limit"
    assert 0 <= used.disk_percent <= 100, "a disk is so many percent full"


async def _check_stop(engine: Engine, first: Container) -> None:
    await _stop(engine, first.id)
    assert await _find(engine, first.id) is None, "a stopped container is forgotten"
    assert await engine.logs(first.id, 10), "logs stay after a stop"
    await _stop(engine, first.id)
    await _stop(engine, "nobody")


@dataclass(frozen=True, slots=True)
class ModelSpecimens:
    """Models for the suite of `core.ports.HoldsModels`, and a container to show them to."""

    container: ContainerSpec
    """Takes files (`takes_files`)."""
    model: ModelData
    file: str
    """The name of a file of the model."""
    missing: ModelData
    """Where there is nothing."""
    read: Callable[[Container, str], Awaitable[str | None]]
    """Reads a file at a path as a container sees it; None: there is none."""


async def holds_models_conformance(create: Callable[[], Awaitable[Engine]], specimens: ModelSpecimens) -> None:
    """Check that an engine keeps the promises of `core.ports.HoldsModels`, as `engine_conformance` does for all."""
    spec = specimens.container
    engine = await create()
    try:
        assert isinstance(engine, HoldsModels), "an engine that holds models says so"
        container = await _launch(engine, spec)
        assert await engine.placed(spec.id) == {}, "at first there are no models"
        path = await _check_placed(engine, specimens, container)
        await _check_missing(engine, specimens)
    finally:
        await engine.close()
    engine = await create()
    try:
        assert isinstance(engine, HoldsModels)
        assert (await engine.placed(spec.id)).keys() == {"one"}, "files outlive the engine object"
        await _check_discarded(engine, specimens, container, path)
        await _stop(engine, spec.id)
        assert await engine.placed(spec.id) == {}, "files end with their container"
        try:
            await engine.place(spec.id, "one", specimens.model, None)
        except Transient:
            pass
        else:
            raise AssertionError("nothing is shown to a container that has ended")
    finally:
        await engine.close()


async def _check_placed(engine: HoldsModels, specimens: ModelSpecimens, container: Container) -> str:
    first = await engine.place(container.id, "one", specimens.model, None)
    assert first.path == "/opt/ml/models/one/model" or first.path.endswith("/models/one/model"), (
        "models have their place"
    )
    assert first.size > 0, "a model has a size"
    path = f"{first.path}/{specimens.file}"
    content = await specimens.read(container, path)
    assert content, "the container sees the model's files"
    again = await engine.place(container.id, "one", specimens.model, None)
    assert again == first, "placing twice is placing once"
    assert await engine.placed(container.id) == {"one": first}, "what was placed is there"
    assert await specimens.read(container, path) == content, "and stays as it is"
    return path


async def _check_missing(engine: HoldsModels, specimens: ModelSpecimens) -> None:
    id = specimens.container.id
    try:
        await engine.place(id, "missing", specimens.missing, None)
    except LaunchFailure as error:
        assert error.step == "download", f"what is not there cannot be downloaded, not: {error.step}"
    else:
        raise AssertionError("placing what is not there raises LaunchFailure")
    assert (await engine.placed(id)).keys() == {"one"}, "a failed download leaves nothing behind"


async def _check_discarded(engine: HoldsModels, specimens: ModelSpecimens, container: Container, path: str) -> None:
    await engine.discard(container.id, "one")
    assert await engine.placed(container.id) == {}, "what was discarded is gone"
    assert await specimens.read(container, path) is None, "for the container too"
    await engine.discard(container.id, "one")
    await engine.discard(container.id, "never")
    await engine.discard("nobody", "one")
    await engine.place(container.id, "one", specimens.model, None)
    assert await specimens.read(container, path), "what was discarded can come back"
