"""The control plane: API, store, controllers and the engine, on a unix socket that only gateways talk to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from clary import credentials
from clary.api.app import App, Doors, Take, operations
from clary.api.authorization import Guard
from clary.api.cloudwatch.ledger import Ledger
from clary.api.cloudwatch.logs import Logs
from clary.api.cloudwatch.metric_data import MetricData
from clary.api.cloudwatch.metrics import Metrics
from clary.api.identities import Identities
from clary.api.sts import Sts
from clary.api.world import World
from clary.controllers.agents import Means
from clary.controllers.endpoints import EndpointController, Grace
from clary.controllers.journal import LoadJournal
from clary.controllers.losses import Losses
from clary.controllers.pace import Pace
from clary.controllers.residency import Bounds, Residency
from clary.controllers.routes import Routes
from clary.controllers.transform_jobs import TransformJobController
from clary.controllers.utilisation import Utilisation
from clary.core.containers import ContainerSpec, Repository
from clary.core.ports import Engine, HoldsModels, KnowsImages, Meters
from clary.core.resources import Partition
from clary.core.sessions import ROLE_CREDENTIALS, Holder, Sessions
from clary.engines.context import EngineContext
from clary.errors import Transient
from clary.logs.folder import LogFolder
from clary.logs.upkeep import Upkeep
from clary.server.asynchronous import Asynchronous
from clary.server.bundled_s3 import BundledS3
from clary.server.parts import allow_descriptors, container_door, control_socket, engine_point, keys_file, objects
from clary.settings import DAY, GIB, MIB, Settings, to_environment
from clary.store.store import Store
from clary.telemetry import logger
from clary.wire.dispatch import Dispatcher

MALLOC = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": str(MIB)}
"""For agents of transform jobs: glibc by itself keeps what bodies of several MiB leave, and takes new memory."""


async def control(settings: Settings) -> None:
    """Be the control plane: answer on the unix socket and reconcile, until SIGTERM; then stop the models."""
    allow_descriptors()
    store = await Store.open(settings.database)
    routes = Routes(settings.run / "routes.json")
    sessions = Sessions(credentials.session_key(settings.data))
    partition = Partition(settings.account_id, settings.region)
    identities = Identities(store, partition, settings.access_key_id, sessions, keys_file(settings))
    await identities.load()
    changed: list[Callable[[str], None]] = []
    logs, ledger = LogFolder(settings.logs), Ledger(store.metrics)
    losses = Losses(ledger.record)
    engine = _engine(settings, identities, sessions, losses, lambda id: [tell(id) for tell in changed])
    grace = Grace(replace=settings.stop_grace, delete=settings.delete_grace)
    controller = EndpointController(store, engine, routes, grace)
    jobs = TransformJobController(store, engine, routes, _agents(settings, identities), grace)
    changed += [controller.container_changed, jobs.container_changed]
    if isinstance(engine, HoldsModels):
        bounds = Bounds(settings.artifact_cache * GIB, max(1, (os.cpu_count() or 1) // 2), Pace().keep)
        controller.residency = Residency(engine, LoadJournal(settings.run / "loading"), ledger.record, bounds)

    world = None if settings.defer_checks else _world(settings, engine, identities)
    handlers = {
        **operations(store, partition, controller.notify, world, jobs.notify),
        **Sts(identities).operations(),
        **Logs(logs, partition).operations(),
        **Metrics(store.metrics).operations(),
        **MetricData(store.metrics).operations(),
    }
    guarded = Guard(identities, store, partition).before(handlers)
    asynchronous = Asynchronous(settings, store, routes, identities, ledger, logs)
    doors = _doors(identities, ledger, asynchronous, controller)
    app = App(Dispatcher(guarded), partition, routes.subscribe, doors)
    work = [
        *asynchronous.work(),
        controller.run(),
        jobs.run(),
        Upkeep(logs, settings.log_size * MIB, settings.log_retention).run(),
        ledger.run(settings.metrics_retention * DAY, routes.owners),
        losses.run(),
        *(
            [Utilisation(engine, ledger.record, packed=controller.occupancies).run()]
            if isinstance(engine, Meters)
            else []
        ),
        *([controller.residency.run()] if controller.residency is not None else []),
    ]
    asked_to_stop = await _serve(app, control_socket(settings), work)
    await asynchronous.finish()
    await ledger.finish()
    if asked_to_stop:
        await jobs.end_agents()
        await stop_all(engine, settings.delete_grace)
    await engine.close()
    await store.close()


def _agents(settings: Settings, identities: Identities) -> Means:
    """Give what the agents of transform jobs are started with."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLARY_")}
    # Our parent is the supervisor.
    command = (sys.executable, "-m", "clary.server", "transform", str(os.getppid()))
    environment = MALLOC | environment | to_environment(settings)
    if settings.s3_endpoint:  # one's own has a rule for what is not completed
        return Means(settings.transforms, command, environment, identities.acting)
    return Means(settings.transforms, command, environment, identities.acting, BundledS3(settings.objects).abandon)


def _doors(identities: Identities, ledger: Ledger, asynchronous: Asynchronous, controller: EndpointController) -> Doors:
    takes: dict[str, Take] = {
        "/_clary/metrics": ledger.take,
        "/_clary/async": asynchronous.intake.take,
        "/_clary/packing": controller.packing,
    }
    residency = controller.residency
    if residency is None:
        return Doors(identities.manage, ledger.exposition, takes=takes)
    takes["/_clary/models"] = residency.answer
    return Doors(identities.manage, ledger.exposition, {"/_clary/models": residency.subscribe}, takes)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are ours


async def _serve(app: App, path: Path, work: list[Coroutine[Any, Any, None]]) -> bool:
    """Answer, and work beside it, until SIGTERM or SIGINT, or until any of it ends; tell whether it was a signal."""
    server = _Server(
        uvicorn.Config(
            app, lifespan="off", log_config=None, access_log=False, proxy_headers=False, timeout_graceful_shutdown=2
        )
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with _unix_socket(path) as listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        working = [asyncio.create_task(each) for each in work]
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((serving, stopped, *working), return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        for task in working:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    return stop.is_set()


async def stop_all(engine: Engine, grace: float) -> None:
    """End every container; one that does not end keeps none of the others."""
    try:
        ids = [container.id for container in await engine.observe()]
    except Transient as trouble:
        logger("control").error("containers may run on; the next start takes them over", reason=trouble.message)
        return
    ends = await asyncio.gather(*(engine.stop(id, grace) for id in ids), return_exceptions=True)
    for id, end in zip(ids, ends, strict=True):
        if end is not None:
            logger("control").error("a container does not stop; the next start tries again", id=id, reason=str(end))


def _engine(
    settings: Settings,
    identities: Identities,
    sessions: Sessions,
    losses: Losses,
    on_change: Callable[[str], object],
) -> Engine:
    """Find the engine by its entry point and build it. Raises SettingsError for an unknown name."""
    context = EngineContext(
        data=settings.data,
        logs=settings.logs,
        objects=objects(settings),
        catalogue=Path(settings.catalogue) if settings.catalogue else None,
        artifact_cache_bytes=settings.artifact_cache * GIB,
        max_artifact_bytes=settings.max_artifact * GIB,
        region=settings.region,
        on_change=on_change,
        registries=settings.registries,
        lambda_endpoint=settings.lambda_endpoint,
        networks=settings.networks,
        ignore_vpc=settings.ignore_vpc,
        shm_bytes=settings.shm_size * MIB,
        role_variables=_RoleVariables(settings, identities, sessions),
        read_refusal=identities.refusal,
        lines_dropped=lambda times: losses.add("logs", times),
    )
    engine: Engine = engine_point(settings.engine).load()(context)
    return engine


@dataclass(frozen=True, slots=True)
class _RoleVariables:
    """What a container finds its role's credentials with."""

    settings: Settings
    identities: Identities
    sessions: Sessions

    def __call__(self, spec: ContainerSpec) -> Mapping[str, str]:
        door = container_door(self.settings)
        # Credentials of a role that nobody has made here would only be refused everywhere.
        role = self.identities.directory.role(spec.role_arn) if spec.role_arn else None
        if door is None or spec.role_arn is None or role is None or spec.network.isolated:
            return {}
        holder = Holder(spec.role_arn, role.id, spec.instance_id)
        here = f"http://{door[0]}:{door[1]}"
        return {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{here}{ROLE_CREDENTIALS}",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": self.sessions.container_token(holder),
            "AWS_ENDPOINT_URL": here,  # they are good for this Clary alone
        }


def _world(settings: Settings, engine: Engine, identities: Identities) -> World:
    """Build what CreateModel looks at beyond its request."""

    async def cannot_tell(image: str, repository: Repository) -> bool | None:
        return None

    knows_image = engine.knows_image if isinstance(engine, KnowsImages) else cannot_tell
    return World(objects(settings), knows_image, settings.region, identities.may_read)


@contextlib.contextmanager
def _unix_socket(path: Path) -> Iterator[socket.socket]:
    """Listen on a fresh socket file; its folder is readable by its owner alone."""
    path.unlink(missing_ok=True)  # left by a control plane that was killed
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))
        sock.listen(512)
        sock.setblocking(False)
        try:
            yield sock
        finally:
            path.unlink(missing_ok=True)
