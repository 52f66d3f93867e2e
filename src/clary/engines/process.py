"""The process engine: a container is a session of local processes, in an environment that uv made.

It needs no image registry and no privilege. What a machine grants beyond that is used: a mount namespace that shows
the model at /opt/ml/model, control groups that limit and contain. Containers outlive this object and the process that
it is in: each has a record on disk, and the next engine takes it over by that.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import clary
from clary.core.containers import (
    LOCAL,
    Capacity,
    Container,
    ContainerSpec,
    ModelData,
    Placed,
    Progress,
    Repository,
    Usage,
)
from clary.core.ports import Engine
from clary.engines import cgroups, instance_types, isolation, posix, sockets, staging, usage
from clary.engines.artifacts import Artifacts
from clary.engines.catalogue import Catalogue, Recipe
from clary.engines.context import EngineContext
from clary.engines.environments import Environments, PythonEnvironment
from clary.engines.grants import Grants
from clary.engines.launches import Launches
from clary.engines.model_folders import PLACE, ModelFolders
from clary.engines.ports import Ports
from clary.engines.records import Record, Records, check_names, is_safe
from clary.engines.relay import Relays
from clary.engines.termination import end_all, exit_status, reason
from clary.errors import Transient
from clary.logs.folder import LogFolder
from clary.logs.stream import last_texts
from clary.telemetry import logger

_log = logger("engine")

_KEPT_LOGS = 1000
"""Containers whose logs can still be asked for by id; the logs themselves are not removed."""


def create(context: EngineContext) -> Engine:
    """Make the engine (entry point `process`). Raises SettingsError for a catalogue that cannot be used."""
    return ProcessEngine(context)


class ProcessEngine:
    """Implements core.ports.Engine."""

    name = "process"

    def __init__(self, context: EngineContext) -> None:
        run = context.data / "run"
        self._context = context
        self._run = run
        self._logs = LogFolder(context.logs)
        self._catalogue = Catalogue(context.catalogue)
        self._artifacts = Artifacts(
            context.data / "artifacts",
            context.objects,
            context.artifact_cache_bytes,
            context.max_artifact_bytes,
            context.read_refusal,
        )
        self._models = ModelFolders(context.data / "models", self._artifacts.fetcher)
        self._environments = Environments(context.data / "environments")
        self._disk = Records(run / "containers")
        self._records: dict[str, Record] = {}
        self._launches = Launches()
        self._watches: dict[str, int] = {}
        self._settling: set[asyncio.Task[None]] = set()
        seed = hashlib.sha256(os.fsencode(context.data)).hexdigest()[:8]
        self._ports = Ports(seed)
        self._grants = Grants(context.data, f"clary-{seed}", self._folders(".probe"))
        self._relays = Relays(run / "relays")
        self._prepared: asyncio.Task[None] | None = None

    # -- the port -----------------------------------------------------------------------------------------------------

    async def launch(self, spec: ContainerSpec, progress: Progress) -> Container:
        await self._ready()
        return await self._launches.run(spec.id, lambda: self._launch(spec, progress))

    async def observe(self) -> Sequence[Container]:
        await self._ready()
        return tuple(record.container for record in self._records.values() if record.phase != "starting")

    async def stop(self, id: str, grace: float) -> None:
        await self._ready()
        await self._launches.cancel(id)
        if (record := self._records.get(id)) is not None:
            self._unwatch(id)
            await self._end(record, grace)
            await self._models.remove(id)
            self._forget(record)

    async def logs(self, id: str, lines: int) -> Sequence[str]:
        await self._ready()
        if not is_safe(id):
            return ()
        return await asyncio.to_thread(last_texts, self._run / "logs" / id, lines)

    async def capacity(self, instance_type: str = LOCAL) -> Capacity:
        await self._ready()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        machine = Capacity(float(len(os.sched_getaffinity(0))), memory, self._grants.notes)
        return instance_types.capacity(machine, instance_type)

    async def knows_image(self, image: str, repository: Repository) -> bool:
        self._catalogue.resolve(image)
        return True

    async def usage(self) -> Mapping[str, Usage]:
        """Give what each running container uses (core.ports.Meters)."""
        await self._ready()
        running = [record for record in self._records.values() if record.phase == "running" and record.pid is not None]
        return await asyncio.to_thread(self._measure, running)

    def _measure(self, records: Sequence[Record]) -> dict[str, Usage]:
        found = {}
        for record in records:
            groups = [Path(group) for group in record.groups]
            found[record.spec.id] = usage.measure(_members(record), groups, record.spec.instance_type, self._run)
        return found

    async def listens(self, id: str) -> Sequence[str]:
        """Give where a container listens (core.ports.ShowsSockets)."""
        await self._ready()
        record = self._records.get(id)
        if record is None or record.pid is None:
            return ()
        return await asyncio.to_thread(lambda: sockets.places(_members(record)))

    async def place(self, id: str, model: str, data: ModelData, role_arn: str | None) -> Placed:
        """Show a model's files to a multi-model container (core.ports.HoldsModels)."""
        await self._ready()
        return self._placed(id, model, await self._models.place(id, model, data, role_arn))

    async def discard(self, id: str, model: str) -> None:
        await self._models.discard(id, model)

    async def placed(self, id: str) -> Mapping[str, Placed]:
        await self._ready()
        return {model: self._placed(id, model, size) for model, size in (await self._models.placed(id)).items()}

    def _placed(self, id: str, model: str, size: int) -> Placed:
        ml = "/opt/ml" if self._grants.mounts else self._folders(id).base
        return Placed(f"{ml}/{PLACE}/{model}/model", size)

    async def close(self) -> None:
        if self._prepared is not None:
            await asyncio.wait({self._prepared})
        await self._launches.close()
        for task in list(self._settling):
            task.cancel()
            await asyncio.wait({task})
        await self._relays.close()
        for id in list(self._watches):
            self._unwatch(id)
        self._ports.close()

    # -- launching ----------------------------------------------------------------------------------------------------

    async def _launch(self, spec: ContainerSpec, progress: Progress) -> Container:
        if (record := self._records.get(spec.id)) is not None:
            return record.container
        check_names(spec)
        isolation.check(spec.network, self._grants.no_isolation, ignore_vpc=self._context.ignore_vpc)
        recipe = self._catalogue.resolve(spec.image)
        if spec.models is not None:
            recipe.require_many(spec.image)
        try:
            artifacts = await self._artifacts.collect(spec, progress)
            trees = {place: artifact.path for place, artifact in artifacts.items()}
            if spec.takes_files:
                trees[PLACE] = self._models.create(spec.id)
            folders = self._folders(spec.id)
            folders.create(trees)
            python = await self._environments.get(recipe, folders.base / "model", progress)
            progress("start")
            return await self._start(spec, recipe, python, trees, [artifact.key for artifact in artifacts.values()])
        except OSError as error:
            raise Transient(f"starting {spec.id}: {error}", retry_after=5.0) from error
        finally:
            if spec.id not in self._records:
                self._artifacts.release(spec.id)
                self._folders(spec.id).remove()
                await self._models.remove(spec.id)

    async def _start(
        self,
        spec: ContainerSpec,
        recipe: Recipe,
        python: PythonEnvironment,
        trees: Mapping[str, Path],
        artifacts: Sequence[str],
    ) -> Container:
        ports = self._ports.take()
        bounds = instance_types.bounds(spec)
        record = Record(
            spec, "starting", ports.port, recipe.resolved, artifacts=tuple(artifacts),
            groups=tuple(map(str, self._grants.groups.create(spec.id, bounds))),
        )  # fmt: skip
        staged = staging.Staged(
            spec=spec,
            recipe=recipe,
            python=python,
            trees=trees,
            folders=self._folders(spec.id),
            ports=ports,
            limits=bounds,
            mounts=self._grants.mounts,
            serving=self._run / "serving",
            data=self._context.data,
            region=self._context.region,
            role_variables=self._context.role_variables(spec),
        )
        self._write(record)
        try:
            plan = staged.plan([Path(group) for group in record.groups])
            log = self._logs.ensure(spec.log_group, spec.log_stream)
            _link(self._run / "logs" / spec.id, log)  # by which a log is found when its container is forgotten
            pid = await staging.start(plan, log, lambda pid: self._note_birth(record, pid))
            if spec.network.isolated:
                await self._connect(self._records[spec.id])
        except BaseException:
            with contextlib.suppress(Transient):  # of what outlives SIGKILL nothing can be had back
                await self._end(self._records[spec.id], grace=0.0)
            self._forget(record)
            raise
        record = replace(_born(record, pid), phase="running", started_at=time.time())
        self._write(record)
        self._watch(record)
        return record.container

    async def _connect(self, record: Record) -> None:
        """Let the gateway reach an isolated container: inside and outside, its port has the same number."""
        assert record.pid is not None, "it was started"
        try:
            await self._relays.ensure(record.spec.id, record.pid, record.port, record.port)
        except Transient:
            if posix.alive(record.pid, record.birth):
                raise
            # It ended at once: how is told as for every other.

    def _note_birth(self, record: Record, pid: int) -> None:
        self._exit_file(pid).unlink(missing_ok=True)  # of an earlier process with this number
        self._write(_born(record, pid))

    def _exit_file(self, pid: int) -> Path:
        """Give where the supervisor writes down how a process ended that is not our child."""
        return self._run / "exits" / str(pid)

    def _folders(self, id: str) -> staging.Folders:
        return staging.Folders(self._run / "private" / id)

    def _write(self, record: Record) -> None:
        self._disk.write(record)
        self._records[record.spec.id] = record

    def _forget(self, record: Record) -> None:
        """Give back all that a container had. The record goes last: until then the next life would do this again."""
        id = record.spec.id
        cgroups.remove([Path(group) for group in record.groups])
        self._folders(id).remove()
        self._artifacts.release(id)
        self._ports.give_back(record.port)
        self._disk.remove(id)
        self._records.pop(id, None)

    async def _end(self, record: Record, grace: float) -> None:
        """End all processes of a container, its relay after what it answered. Raises Transient as `end_all`."""
        await end_all(record, grace)
        await self._relays.end(record.spec.id)

    # -- the end of a container ---------------------------------------------------------------------------------------

    def _watch(self, record: Record) -> None:
        """Be told when the process ends, whoever its parent is."""
        assert record.pid is not None, "a running container has a process"
        id = record.spec.id
        try:
            descriptor = os.pidfd_open(record.pid)
        except ProcessLookupError:
            self._settle_soon(id)
            return
        self._watches[id] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._settle_soon, id)

    def _unwatch(self, id: str) -> None:
        descriptor = self._watches.pop(id, None)
        if descriptor is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)

    def _settle_soon(self, id: str) -> None:
        self._unwatch(id)
        task = asyncio.ensure_future(self._settle(id))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, id: str) -> None:
        """Write down how a container ended, and end what it left running: it dies with its first process."""
        record = self._records.get(id)
        if record is None:
            return  # stopped in the same moment
        assert record.pid is not None, "a running container has a process"
        status = await exit_status(record.pid, self._exit_file(record.pid))
        kills = cgroups.memory_kills([Path(group) for group in record.groups])
        with contextlib.suppress(Transient):  # stop tries again, and says so
            await self._end(record, grace=0.0)
        if self._records.get(id) is not record:
            return  # stopped meanwhile
        words = reason(status, kills, record)
        self._write(replace(record, phase="exited", exit_reason=words, exited_at=time.time()))
        self._context.on_change(id)

    # -- taking over --------------------------------------------------------------------------------------------------

    async def _ready(self) -> None:
        """Take over what an earlier life left; once, whoever asks first."""
        failed = self._prepared is not None and self._prepared.done() and self._prepared.exception() is not None
        if self._prepared is None or failed:
            self._prepared = asyncio.ensure_future(self._prepare())
        await asyncio.shield(self._prepared)

    async def _prepare(self) -> None:
        serving, logs = self._run / "serving", self._run / "logs"
        serving.mkdir(parents=True, exist_ok=True)
        logs.mkdir(exist_ok=True)
        for old in sorted(logs.iterdir(), key=lambda link: link.lstat().st_mtime)[:-_KEPT_LOGS]:
            old.unlink()
        _link(serving / "clary_serving", Path(clary.__path__[0]) / "serving")
        self._disk.sweep()
        for record in list(self._disk.read_all()):
            await self._adopt(record)
        self._grants.groups.retain(self._records)
        await self._models.retain(self._records)
        await self._relays.retain(self._records)
        if self._settling:  # what ended while nobody watched is known as ended from the first observation on
            await asyncio.wait(set(self._settling))
        private = self._run / "private"
        private.mkdir(mode=0o700, exist_ok=True)
        for folder in private.iterdir():
            if folder.name not in self._records:
                staging.Folders(folder).remove()
        await self._grants.find_out()
        for note in self._grants.notes:
            _log.warning(note)

    async def _adopt(self, record: Record) -> None:
        if record.phase == "starting":
            # Its launch never returned, so nobody counts on it. What cannot be ended now is shown as exited: whoever
            # reconciles stops it, as often as it takes.
            try:
                await self._end(record, grace=0.0)
            except Transient as trouble:
                record = replace(record, phase="exited", exit_reason=trouble.message, exited_at=time.time())
            else:
                self._forget(record)
                return
        self._records[record.spec.id] = record
        self._ports.keep(record.port)
        for artifact in record.artifacts:
            self._artifacts.hold(artifact, record.spec.id)
        if record.phase == "running":
            assert record.pid is not None, "a running container has a process"
            if posix.alive(record.pid, record.birth):
                self._watch(record)
                self._relays.adopt(record.spec.id)
            else:
                self._settle_soon(record.spec.id)


def _members(record: Record) -> set[int]:
    """Give the processes of a container that was started."""
    return posix.members(record.pid or 0, record.birth) | cgroups.members([Path(group) for group in record.groups])


def _born(record: Record, pid: int) -> Record:
    return replace(record, pid=pid, birth=posix.birth(pid))


def _link(link: Path, target: Path) -> None:
    """Make a symbolic link that leads there, also where another version's was."""
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.rename(link)
