"""The composition root: the roles a process can have, and what each is built from.

up        the supervisor: keeps the other two running, announces the port
control   API, store, controllers, engine; on a unix socket
gateway   the front door, with the bundled S3 behind it; one or more share the port
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import uvloop

from clary import certificates, credentials, datafolder, telemetry
from clary.core.ports import ContainerSpec, Engine, KnowsImages, Meters, ModelData, Repository
from clary.core.resources import Partition
from clary.core.sessions import CREDENTIALS_HOST, ROLE_CREDENTIALS, Sessions
from clary.errors import Fatal, SettingsError, Transient
from clary.gateway.listener import listener
from clary.settings import DAY, GIB, MIB, Settings, inherited, is_loopback, to_environment
from clary.supervision import HOPELESS, Program, Supervisor, adopt_orphans
from clary.telemetry import logger

if TYPE_CHECKING:
    from clary.api.world import World
    from clary.engines.catalogue import Catalogue
    from clary.objects import Objects

LONGEST_SOCKET_NAME = 107
"""Bytes (Linux; other systems have a few less)."""
READY_WITHIN = 60.0
"""Seconds after which a Clary that does not answer is given up."""
AUTO = "auto"
"""Stands for an engine that is yet to be chosen."""


@dataclass(frozen=True, slots=True)
class Running:
    """A Clary that answers: what the banner shows."""

    url: str
    engine: str
    data: Path
    region: str
    account_id: str
    pids: dict[str, int]
    ca_bundle: str = ""
    """File that clients must be told to trust; empty where they know the certificate's issuer, or there is none."""


# -- up ---------------------------------------------------------------------------------------------------------------


def up(settings: Settings, ready: Callable[[Running], None]) -> int:
    """Start everything, call `ready` once it answers, serve until SIGTERM or SIGINT; give the exit code.

    Raises SettingsError for what cannot be used: the data folder, the port, the catalogue.
    """
    telemetry.set_up(settings.log_level, "supervisor")
    settings = _with_engine(settings)
    _check(settings)
    os.umask(0o077)
    partition = Partition(settings.account_id, settings.region)
    with datafolder.held(settings.data, settings.run, partition), _reserved(settings.host, settings.port) as port:
        with datafolder.blamed(settings.data):
            settings = _with_credentials(replace(settings, port=port))
        return asyncio.run(_supervise(settings, ready))


def _check(settings: Settings) -> None:
    """Refuse what a child process would trip over, while there is a terminal to say it on."""
    _engine_point(settings.engine)
    _catalogue(settings)
    _registries(settings)
    certificates.server_context(settings.tls_cert, settings.tls_key)
    if len(os.fsencode(_control_socket(settings))) > LONGEST_SOCKET_NAME:
        raise SettingsError(
            f"--data: {settings.data} is too long: the system allows sockets {LONGEST_SOCKET_NAME} bytes"
        )


def _control_socket(settings: Settings) -> Path:
    return settings.run / "control.sock"


def _keys_file(settings: Settings) -> Path:
    return settings.run / "keys.json"


def _engine_point(name: str) -> EntryPoint:
    known = {point.name: point for point in entry_points(group="clary.engines")}
    if name not in known:
        raise SettingsError(f"--engine: must be one of {', '.join(sorted([AUTO, *known]))}, not {name!r}")
    return known[name]


def _with_engine(settings: Settings) -> Settings:
    """Choose the engine where that is left to us. Raises SettingsError where the one that was asked for is not here."""
    if settings.engine not in (AUTO, "docker"):
        return settings
    from clary.engines.docker.daemon import version

    found = asyncio.run(version())
    if settings.engine == "docker" and found is None:
        raise SettingsError("--engine docker: no Docker engine answers; start one, or see `clary doctor`")
    chosen = "process" if found is None else "docker"
    if settings.engine == AUTO:
        logger("supervisor").info("engine chosen", engine=chosen, docker=found or "does not answer")
    return replace(settings, engine=chosen)


def _with_credentials(settings: Settings) -> Settings:
    given = None
    if settings.access_key_id:
        given = credentials.Credentials(settings.access_key_id, settings.secret_access_key)
    pair = credentials.load_or_create(settings.credentials, given)
    return replace(settings, access_key_id=pair.access_key_id, secret_access_key=pair.secret_access_key)


@contextlib.contextmanager
def _reserved(host: str, port: int) -> Iterator[int]:
    """Hold the port, without listening, for as long as gateways come and go; give its number."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))  # without SO_REUSEPORT: fails where anybody else has it
        held = listener(host, port)
    except OSError as error:
        why = "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise SettingsError(f"--port: {host}:{port} {why}; choose another, or 0 for any free one") from error
    with held:
        yield int(held.getsockname()[1])


async def _supervise(settings: Settings, ready: Callable[[Running], None]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    if not adopt_orphans():
        logger("supervisor").warning("this system cannot adopt orphans; exit codes of models may be lost")
    supervisor = Supervisor(_programs(settings), settings.run / "exits")

    def end() -> None:
        if stop.is_set():
            supervisor.hurry()  # said twice: now
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    record = settings.run / "clary.json"
    running = asyncio.create_task(supervisor.run(stop))
    try:
        if await _answers(settings, stop):
            here = _running(settings, supervisor.pids)
            _write_record(record, here)
            ready(here)
            await stop.wait()
        elif not stop.is_set():
            logger("supervisor").error("Clary does not answer; the log above says why", waited=READY_WITHIN)
            return 1
    finally:
        stop.set()
        await running
        record.unlink(missing_ok=True)
    return 1 if supervisor.gave_up else 0


def _running(settings: Settings, pids: dict[str, int]) -> Running:
    return Running(
        url=_url(settings),
        engine=settings.engine,
        data=settings.data,
        region=settings.region,
        account_id=settings.account_id,
        pids=pids,
        ca_bundle=certificates.bundle(settings.tls_cert),
    )


def _programs(settings: Settings) -> list[Program]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLARY_")}
    environment |= to_environment(settings)
    python = (sys.executable, "-m", "clary.server")
    programs = [Program("control", (*python, "control"), environment, stop_timeout=settings.delete_grace + 15)]
    programs += [
        Program(f"gateway-{number}", (*python, "gateway"), environment, stop_timeout=settings.model_timeout + 5)
        for number in range(settings.workers)
    ]
    return programs


def _url(settings: Settings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    return f"{'https' if settings.tls_cert else 'http'}://{host}:{settings.port}"


def _write_record(path: Path, running: Running) -> None:
    """Leave word for `clary env` and the like: where this Clary is."""
    temporary = path.with_suffix(".new")
    temporary.write_text(
        json.dumps(
            {
                "url": running.url,
                "pid": os.getpid(),
                "engine": running.engine,
                "region": running.region,
                "account_id": running.account_id,
                "ca_bundle": running.ca_bundle,
            }
        )
    )
    temporary.rename(path)


async def _answers(settings: Settings, stop: asyncio.Event) -> bool:
    """Wait until the gateway and, through its socket, the control plane answer."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + READY_WITHIN
    host = urlsplit(_url(settings)).hostname
    tls = None
    if settings.tls_cert:  # whether it answers is the question here, not who
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    while loop.time() < deadline and not stop.is_set():
        try:
            await _get_health(asyncio.open_unix_connection(str(_control_socket(settings))))
            await _get_health(asyncio.open_connection(host, settings.port, ssl=tls))
            return True
        except (OSError, EOFError):
            await asyncio.sleep(0.05)
    return False


async def _get_health(connecting: object) -> None:
    reader, writer = await connecting  # type: ignore[misc]
    try:
        writer.write(b"GET /_clary/health HTTP/1.1\r\nHost: clary\r\nConnection: close\r\n\r\n")
        status = await reader.readline()
        if b" 200 " not in status:
            raise EOFError("not ready")
    finally:
        writer.close()


# -- control ----------------------------------------------------------------------------------------------------------


async def control(settings: Settings) -> None:
    """Be the control plane: answer on the unix socket and reconcile, until SIGTERM; then stop the models."""
    # Imported here: a gateway process carries neither the store nor an engine.
    import uvicorn

    from clary.api.app import App, operations
    from clary.api.authorization import Guard
    from clary.api.identities import Identities
    from clary.api.ledger import Ledger
    from clary.api.logs import Logs
    from clary.api.metric_data import MetricData
    from clary.api.metrics import Metrics
    from clary.api.sts import Sts
    from clary.controllers.endpoints import EndpointController, Grace
    from clary.controllers.routes import Routes
    from clary.controllers.utilisation import Utilisation
    from clary.logs.folder import LogFolder
    from clary.logs.upkeep import Upkeep
    from clary.store.store import Store
    from clary.wire.dispatch import Dispatcher

    partition = Partition(settings.account_id, settings.region)
    store = await Store.open(settings.database)
    routes = Routes(settings.run / "routes.json")
    changed: list[Callable[[str], None]] = []
    sessions = Sessions(credentials.session_key(settings.data))
    identities = Identities(store, partition, settings.access_key_id, sessions, _keys_file(settings))
    await identities.load()

    # A container's loopback is its own.
    url = f"http://{CREDENTIALS_HOST}:{settings.port}" if settings.engine == "docker" else _url(settings)
    trusted = certificates.bundle(settings.tls_cert)

    def role_variables(spec: ContainerSpec) -> dict[str, str]:
        # Credentials of a role that nobody has made here would only be refused everywhere.
        known = spec.role_arn is not None and identities.directory.role(spec.role_arn) is not None
        if spec.role_arn is None or not known or spec.network.isolated or settings.auth == "off":
            return {}
        return {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}{ROLE_CREDENTIALS}",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": sessions.container_token(spec.role_arn, spec.instance_id),
            "AWS_ENDPOINT_URL": url,  # they are good for this Clary alone
            **({"AWS_CA_BUNDLE": trusted} if trusted and url.startswith("https://") else {}),
        }

    engine = _engine(settings, lambda id: [tell(id) for tell in changed], role_variables, identities.read_refusal)
    grace = Grace(replace=settings.stop_grace, delete=settings.delete_grace)
    controller = EndpointController(store, engine, routes, grace)
    changed.append(controller.container_changed)
    world = None if settings.defer_checks else _world(settings, engine, identities.may_read)
    logs = LogFolder(settings.logs)
    upkeep = Upkeep(logs, settings.log_size * MIB, settings.log_retention)
    handlers = {**operations(store, partition, controller.notify, world), **Sts(identities).operations()}
    handlers |= Logs(logs, partition).operations()
    handlers |= {**Metrics(store.metrics).operations(), **MetricData(store.metrics).operations()}
    ledger = Ledger(store.metrics)
    utilisation = Utilisation(engine, ledger.record) if isinstance(engine, Meters) else None
    guarded = Guard(identities, store, partition).before(handlers)
    app = App(Dispatcher(guarded), partition, routes.subscribe, identities.manage, ledger)

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # signals are ours

    server = Server(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=2))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with _unix_socket(_control_socket(settings)) as listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        reconciling = asyncio.create_task(controller.run())
        following = asyncio.create_task(upkeep.run())
        counting = asyncio.create_task(ledger.run(settings.metrics_retention * DAY, lambda: routes.table.endpoints))
        measuring = asyncio.create_task(utilisation.run() if utilisation else stop.wait())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((serving, reconciling, following, counting, stopped), return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        for task in (reconciling, following, counting, measuring):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await ledger.finish()
    if stop.is_set():
        await _stop_all(engine, settings.delete_grace)
    await engine.close()
    await store.close()


async def _stop_all(engine: Engine, grace: float) -> None:
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
    on_change: Callable[[str], object],
    role_variables: Callable[[ContainerSpec], Mapping[str, str]],
    read_refusal: Callable[[str | None, ModelData], str | None],
) -> Engine:
    """Find the engine by its entry point and build it. Raises SettingsError for an unknown name."""
    from clary.engines.context import EngineContext

    context = EngineContext(
        data=settings.data,
        logs=settings.logs,
        objects=_objects(settings),
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
        role_variables=role_variables,
        read_refusal=read_refusal,
    )
    engine: Engine = _engine_point(settings.engine).load()(context)
    return engine


def _objects(settings: Settings) -> Objects:
    from clary.objects import Objects

    if settings.s3_endpoint:
        source = (settings.s3_endpoint, settings.s3_access_key_id, settings.s3_secret_access_key)
    else:  # the bundled one, through the front door like everybody
        source = (_url(settings), settings.access_key_id, settings.secret_access_key)
    # Our own address is this machine: nobody stands between, whatever name the certificate is for.
    return Objects(*source, settings.region, settings.file_roots, own=not settings.s3_endpoint)


def _world(settings: Settings, engine: Engine, may_read: Callable[[str, str, bool], bool]) -> World:
    """Build what CreateModel looks at beyond its request."""
    from clary.api.world import World

    async def cannot_tell(image: str, repository: Repository) -> bool | None:
        return None

    knows_image = engine.knows_image if isinstance(engine, KnowsImages) else cannot_tell
    return World(_objects(settings), knows_image, settings.region, may_read)


def _catalogue(settings: Settings) -> Catalogue:
    """Read the image catalogue. Raises SettingsError for a file that cannot be used."""
    from clary.engines.catalogue import Catalogue

    return Catalogue(Path(settings.catalogue) if settings.catalogue else None)


def _registries(settings: Settings) -> None:
    """Check the table. Raises SettingsError for one that cannot be meant, whichever engine runs now."""
    from clary.engines.docker.registries import Registries

    Registries(settings.registries)


@contextlib.contextmanager
def _unix_socket(path: Path) -> Iterator[socket.socket]:
    """Listen on a fresh socket file; its folder is readable by its owner alone."""
    path.unlink(missing_ok=True)  # left by a control plane that was killed
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))
        sock.listen(512)
        sock.setblocking(False)
        yield sock


# -- gateway ----------------------------------------------------------------------------------------------------------


async def gateway(settings: Settings) -> None:
    """Be one gateway process."""
    from clary.gateway import worker
    from clary.gateway.access import Access
    from clary.gateway.s3 import S3
    from clary.gateway.s3proxy import S3Proxy
    from clary.gateway.state import Limits

    partition = Partition(settings.account_id, settings.region)
    owner = (settings.access_key_id, settings.secret_access_key)
    access = Access(partition, owner, _keys_file(settings), Sessions(credentials.session_key(settings.data)))
    s3: S3 | S3Proxy
    if settings.s3_endpoint:
        s3 = S3Proxy(settings.s3_endpoint, settings.s3_access_key_id, settings.s3_secret_access_key, settings.region)
    else:
        s3 = S3(settings.objects)
    await worker.serve(
        worker.GatewayOptions(
            host=settings.host,
            port=settings.port,
            partition=partition,
            access=access if settings.auth == "sigv4" else None,
            # Without signatures Clary is for this machine alone, and containers get no credentials.
            container_host=CREDENTIALS_HOST if settings.engine == "docker" and settings.auth == "sigv4" else None,
            run=settings.run,
            tls=certificates.server_context(settings.tls_cert, settings.tls_key),
            metrics_token=settings.metrics_token or ("" if is_loopback(settings.host) else None),
            limits=Limits(
                settings.max_payload * MIB,
                settings.model_timeout,
                settings.stream_timeout,
                # Each process counts for itself. A share of at least one each: an instance always answers somebody.
                settings.instance_concurrency and max(1, settings.instance_concurrency // settings.workers),
                settings.instance_queue and max(1, settings.instance_queue // settings.workers),
            ),
        ),
        s3.handle,
        lambda: _objects(settings),
    )
    if isinstance(s3, S3Proxy):
        await s3.close()


ROLES = {"control": control, "gateway": gateway}


def main() -> None:
    """Be what the first argument says, with the supervisor's settings. Tells it when a restart would change nothing."""
    role = sys.argv[1]
    settings = inherited(os.environ)
    telemetry.set_up(settings.log_level, role)
    try:
        uvloop.run(ROLES[role](settings))
    except (SettingsError, Fatal) as error:
        logger(role).error("this cannot work", reason=str(error))
        sys.exit(HOPELESS)


if __name__ == "__main__":
    main()
