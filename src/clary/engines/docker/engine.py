"""The Docker engine: a container is a container.

Docker keeps all that is needed to find one again, in its labels; what lies on our own disk is how far its log has
been copied, and the relays of isolated ones. A name is made from our id, so Docker itself refuses to make it twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from aiodocker import Docker

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
from clary.engines import instance_types, sockets
from clary.engines.artifacts import Artifact, Artifacts
from clary.engines.context import EngineContext
from clary.engines.docker import daemon, groups, labels, usage, volumes
from clary.engines.docker.census import Census, ids, shown
from clary.engines.docker.creation import PORT, Creation
from clary.engines.docker.daemon import gone_is_fine, translated
from clary.engines.docker.events import Events
from clary.engines.docker.follower import Followers
from clary.engines.docker.identity import identity
from clary.engines.docker.images import Images, ResolvedImage
from clary.engines.docker.labels import Inspected
from clary.engines.docker.machine import Machine, examine
from clary.engines.docker.networks import Networks
from clary.engines.docker.provider import CredentialsProvider
from clary.engines.docker.registries import Registries
from clary.engines.docker.shared import Shared
from clary.engines.launches import Launches
from clary.engines.model_folders import PLACE, ModelFolders
from clary.engines.records import check_names, is_safe
from clary.engines.relay import Relays
from clary.errors import LaunchFailure, Transient
from clary.logs.folder import LogFolder
from clary.telemetry import logger

_BIND_LABEL = "com.amazonaws.sagemaker.capabilities.accept-bind-to-port"
_MULTI_LABEL = "com.amazonaws.sagemaker.capabilities.multi-models"
_NO_LINK = "Containers of this Docker engine cannot reach Clary, so they get no credentials of their role."
_log = logger("docker")


def create(context: EngineContext) -> Engine:
    """Make the engine (entry point `docker`). Raises SettingsError for a table of registries that cannot be meant."""
    return DockerEngine(context)


@dataclass(frozen=True, slots=True)
class _Connected:
    """What needs a Docker to exist."""

    docker: Docker
    images: Images
    networks: Networks
    followers: Followers
    machine: Machine
    events: Events


class DockerEngine:
    """Implements core.ports.Engine."""

    name = "docker"

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._root = context.data / "run" / "docker"
        self._empty = self._root / "empty"
        self._owner = identity(context.data, self._root)
        self._registries = Registries(context.registries)
        self._artifacts = Artifacts(
            context.data / "artifacts",
            context.objects,
            context.artifact_cache_bytes,
            context.max_artifact_bytes,
            context.read_refusal,
        )
        self._models = ModelFolders(context.data / "models", self._artifacts.fetcher)
        self._relays = Relays(self._root / "relays")
        self._launches = Launches()
        self._census = Census(self._owner, self._launches.ids)
        self._tidied = False
        """Whether volumes without a container were looked for, since Docker may have lost count of them."""
        self._look = Shared(self._look_now)
        self._connecting: asyncio.Task[_Connected] | None = None

    # -- the port -----------------------------------------------------------------------------------------------------

    async def launch(self, spec: ContainerSpec, progress: Progress) -> Container:
        here = await self._connected()
        return await self._launches.run(spec.id, lambda: self._launch(here, spec, progress))

    async def observe(self) -> Sequence[Container]:
        return [await self._adopted(inspected) for inspected in await self._look()]

    async def stop(self, id: str, grace: float) -> None:
        here = await self._connected()
        await self._launches.cancel(id)
        box = here.docker.containers.container(self._name(id))
        with translated(f"stopping {id}"), gone_is_fine():
            await box.stop(t=math.ceil(grace))
            await here.followers.finish(id)
        await self._remove(here, id)

    async def logs(self, id: str, lines: int) -> Sequence[str]:
        here = await self._connected()
        if not is_safe(id):
            return ()
        if id in ids(each for each in self._census.seen if not _runs(each)):
            await here.followers.finish(id)
        return await here.followers.tail(id, lines)

    async def capacity(self, instance_type: str = LOCAL) -> Capacity:
        here = await self._connected()
        machine = Capacity(float(here.machine.cpus), here.machine.memory, here.machine.notes)
        return instance_types.capacity(machine, instance_type)

    async def knows_image(self, image: str, repository: Repository) -> bool | None:
        try:
            here = await self._connected()
        except Transient:
            return None
        return await here.images.known(image, repository)

    async def usage(self) -> Mapping[str, Usage]:
        """Give what each running container uses (core.ports.Meters)."""
        here = await self._connected()
        running = [(each["Id"], labels.id_of(each)) for each in self._census.seen if _runs(each)]
        return await usage.measure(here.docker, running, self._root)

    async def listens(self, id: str) -> Sequence[str]:
        """Give where a container listens (core.ports.ShowsSockets)."""
        docker_id = next((each["Id"] for each in self._census.seen if labels.id_of(each) == id), None)
        if docker_id is None:
            return ()
        return await asyncio.to_thread(lambda: sockets.places(groups.members(docker_id)))

    async def place(self, id: str, model: str, data: ModelData, role_arn: str | None) -> Placed:
        """Show a model's files to a multi-model container (core.ports.HoldsModels)."""
        return _placed(model, await self._models.place(id, model, data, role_arn))

    async def discard(self, id: str, model: str) -> None:
        await self._models.discard(id, model)

    async def placed(self, id: str) -> Mapping[str, Placed]:
        return {model: _placed(model, size) for model, size in (await self._models.placed(id)).items()}

    async def close(self) -> None:
        if self._connecting is None:
            return
        await asyncio.wait({self._connecting})
        if self._connecting.exception() is not None:
            return
        here = self._connecting.result()
        await self._launches.close()
        await self._look.close()
        await here.events.close()
        await here.followers.close()
        await self._relays.close()
        with contextlib.suppress(Transient, LaunchFailure), translated("removing networks"):
            await here.networks.remove_unused()
        await daemon.close(here.docker)

    # -- launching ----------------------------------------------------------------------------------------------------

    async def _launch(self, here: _Connected, spec: ContainerSpec, progress: Progress) -> Container:
        check_names(spec)
        if (found := await self._find(here, spec.id)) is not None:
            return await self._container(found)
        image = await here.images.resolve(spec, progress)
        # As the service does: containers of one instance may have to share a port range, and know how to.
        for required, label in ((spec.hostname, _BIND_LABEL), (spec.models, _MULTI_LABEL)):
            if required and image.labels.get(label) != "true":
                raise LaunchFailure(
                    "image", f"Your Ecr Image {spec.image} does not contain required {label}=true Docker label(s)."
                )
        try:
            artifacts = await self._artifacts.collect(spec, progress)
            progress("create")
            # Docker goes on with what it was asked for when we are gone: it is let finish, and then undone.
            starting = asyncio.ensure_future(self._start(here, spec, image, artifacts))
            try:
                return await asyncio.shield(starting)
            except BaseException:
                await asyncio.wait({starting})
                await self._remove(here, spec.id)
                raise
        except BaseException:
            self._artifacts.release(spec.id)
            raise

    async def _start(
        self, here: _Connected, spec: ContainerSpec, image: ResolvedImage, artifacts: Mapping[str, Artifact]
    ) -> Container:
        trees = {"model": self._empty, **{place: artifact.path for place, artifact in artifacts.items()}}
        if spec.takes_files:
            trees[PLACE] = self._models.create(spec.id)
        variables = self._context.role_variables(spec)
        attachment = await here.networks.attach(spec, wants_credentials=bool(variables))
        if variables and not attachment.linked:
            _log.warning(_NO_LINK, id=spec.id)
            variables = {}
        creation = Creation(
            spec=spec,
            image=image,
            trees=trees,
            attachment=attachment,
            limits=instance_types.bounds(spec),
            machine=here.machine,
            region=self._context.region,
            role_variables=variables,
            labels=labels.to_labels(
                self._owner, spec, image.resolved, tuple(artifact.key for artifact in artifacts.values())
            ),
        )
        with translated(f"starting {spec.id}"):
            box = await here.docker.containers.create(creation.body(), name=self._name(spec.id))
            for name in creation.attachment.others:
                await here.networks.connect(name, box.id)
            await box.start()
            inspected = await box.show()
        self._note(here, inspected)
        return await self._container(inspected)

    async def _find(self, here: _Connected, id: str) -> Inspected | None:
        """Look whether there is a container already.

        One that was never started is removed, for its launch has died; and so is one that only has the name.
        """
        with translated(f"looking for {id}"), gone_is_fine():
            inspected = await here.docker.containers.container(self._name(id)).show()
            if labels.phase(inspected) == "started" and labels.is_whole(inspected["Config"]["Labels"] or {}):
                self._note(here, inspected)
                return inspected
            await self._census.clear(here.docker, [inspected])
            await self._remove(here, id)
        return None

    async def _remove(self, here: _Connected, id: str) -> None:
        """Remove all that is left of a container but its log. Idempotent."""
        with translated(f"removing {id}"), gone_is_fine():
            await here.docker.containers.container(self._name(id)).delete(v=True, force=True)
        self._census.removed(id)
        await self._forget(here, id)

    async def _forget(self, here: _Connected, id: str) -> None:
        """Give back what a container had that Docker does not know of."""
        self._artifacts.release(id)
        await self._models.remove(id)
        self._census.forget(id)
        await self._relays.end(id)
        await here.followers.forget(id)

    # -- looking ------------------------------------------------------------------------------------------------------

    async def _look_now(self) -> list[Inspected]:
        """Give every container of ours that was started. Raises Transient where Docker does not answer."""
        here = await self._connected()
        found, vanished = await self._census.take(here.docker)
        for inspected in found:
            self._note(here, inspected)
        await asyncio.gather(*(self._forget(here, id) for id in vanished))
        if vanished or not self._tidied:
            await volumes.remove_unused(here.docker, self._owner)
            self._tidied = True
        return found

    def _note(self, here: _Connected, inspected: Inspected) -> None:
        """Remember a container: its log is copied from now on, and its artifacts are kept."""
        self._census.note(inspected)
        here.followers.follow(labels.id_of(inspected), labels.kept(inspected), ended=not _runs(inspected))
        self._hold(inspected)

    async def _container(self, inspected: Inspected) -> Container:
        container = labels.to_container(inspected, PORT)
        if not labels.is_isolated(inspected) or container.pid is None:
            return container
        try:
            relay = await self._relays.ensure(container.id, container.pid, PORT)
        except Transient:  # it has ended meanwhile; Docker will say so
            return container
        return replace(container, port=relay.port)

    async def _adopted(self, inspected: Inspected) -> Container:
        try:
            return await self._container(inspected)
        except LaunchFailure as failure:  # launched by a Clary that had more rights
            _log.error("an isolated container cannot be reached", reason=failure.message)
            return labels.to_container(inspected, PORT)

    def _changed(self, id: str) -> None:
        self._census.changed(id)
        self._context.on_change(id)

    def _reconnected(self) -> None:
        """Anything may have happened to anybody: also to a removal that Docker was about to finish."""
        self._census.reconnected()
        self._tidied = False
        for inspected in self._census.seen:
            self._changed(labels.id_of(inspected))

    # -- beginning ----------------------------------------------------------------------------------------------------

    async def _connected(self) -> _Connected:
        """Find Docker and take over what an earlier life left; once, whoever asks first. Raises Transient."""
        failed = self._connecting is not None and self._connecting.done() and self._connecting.exception() is not None
        if self._connecting is None or failed:
            self._connecting = asyncio.ensure_future(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> _Connected:
        self._empty.mkdir(parents=True, exist_ok=True)
        self._empty.chmod(0o755)
        docker = await daemon.connect()
        try:
            with translated("asking what the machine has"):
                machine = await examine(docker, self._context.shm_bytes, self._root)
                await self._take_over(docker)
            context, provider = self._context, CredentialsProvider(self._context.lambda_endpoint)
            here = _Connected(
                docker=docker,
                images=Images(docker, self._registries, provider, podman=machine.podman),
                networks=Networks(docker, self._owner, context.networks, machine),
                followers=Followers(docker, LogFolder(context.logs), self._root / "logs", context.lines_dropped),
                machine=machine,
                events=Events(docker, self._owner, self._changed, self._reconnected),
            )
        except BaseException:
            await daemon.close(docker)
            raise
        for note in machine.notes:
            _log.warning(note)
        return here

    async def _take_over(self, docker: Docker) -> None:
        """Keep the artifacts of what is there, and the relays of nothing else."""
        boxes = await self._census.boxes(docker)
        found = [each for each in await asyncio.gather(*map(shown, boxes)) if each is not None]
        for inspected in found:
            self._hold(inspected)
        await self._relays.retain(ids(found))
        await self._models.retain(ids(found))

    def _hold(self, inspected: Inspected) -> None:
        for artifact in labels.kept(inspected).artifacts:
            self._artifacts.hold(artifact, labels.id_of(inspected))

    def _name(self, id: str) -> str:
        return labels.name_of(self._owner, id)


def _placed(model: str, size: int) -> Placed:
    return Placed(f"/opt/ml/{PLACE}/{model}/model", size)


def _runs(inspected: Inspected) -> bool:
    return bool(inspected["State"]["Running"])
