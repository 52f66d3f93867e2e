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
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from clary import credentials, datafolder, telemetry
from clary.core.ports import ContainerSpec, Engine
from clary.core.resources import Partition
from clary.core.sessions import ROLE_CREDENTIALS, Sessions
from clary.errors import Fatal, SettingsError
from clary.gateway.listener import listener
from clary.settings import GIB, MIB, Settings, inherited, to_environment
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


@dataclass(frozen=True, slots=True)
class Running:
    """A Clary that answers: what the banner shows."""

    url: str
    engine: str
    data: Path
    region: str
    account_id: str
    pids: dict[str, int]


# -- up ---------------------------------------------------------------------------------------------------------------


def up(settings: Settings, ready: Callable[[Running], None]) -> int:
    """Start everything, call `ready` once it answers, serve until SIGTERM or SIGINT; give the exit code.

    Raises SettingsError for what cannot be used: the data folder, the port, the catalogue.
    """
    telemetry.set_up(settings.log_level, "supervisor")
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
        raise SettingsError(f"--engine: must be one of {', '.join(sorted(known))}, not {name!r}")
    return known[name]


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
    return f"http://{host}:{settings.port}"


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
            }
        )
    )
    temporary.rename(path)


async def _answers(settings: Settings, stop: asyncio.Event) -> bool:
    """Wait until the gateway and, through its socket, the control plane answer."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + READY_WITHIN
    host = _url(settings).removeprefix("http://").rpartition(":")[0].strip("[]")
    while loop.time() < deadline and not stop.is_set():
        try:
            await _get_health(asyncio.open_unix_connection(str(_control_socket(settings))))
            await _get_health(asyncio.open_connection(host, settings.port))
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
    from clary.api.sts import Sts
    from clary.controllers.endpoints import EndpointController, Grace
    from clary.controllers.routes import Routes
    from clary.store.store import Store
    from clary.wire.dispatch import Dispatcher

    partition = Partition(settings.account_id, settings.region)
    store = await Store.open(settings.database)
    routes = Routes(settings.run / "routes.json")
    changed: list[Callable[[str], None]] = []
    sessions = Sessions(credentials.session_key(settings.data))
    identities = Identities(store, partition, settings.access_key_id, sessions, _keys_file(settings))
    await identities.load()

    def role_variables(spec: ContainerSpec) -> dict[str, str]:
        # Credentials of a role that nobody has made here would only be refused everywhere.
        if spec.role_arn is None or settings.auth == "off" or identities.directory.role(spec.role_arn) is None:
            return {}
        return {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{_url(settings)}{ROLE_CREDENTIALS}",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": sessions.container_token(spec.role_arn, spec.instance_id),
            "AWS_ENDPOINT_URL": _url(settings),  # they are good for this Clary alone
        }

    engine = _engine(settings, lambda id: [tell(id) for tell in changed], role_variables)
    grace = Grace(replace=settings.stop_grace, delete=settings.delete_grace)
    controller = EndpointController(store, engine, routes, grace)
    changed.append(controller.container_changed)
    world = None if settings.defer_checks else _world(settings, identities.may_read)
    handlers = {**operations(store, partition, controller.notify, world), **Sts(identities).operations()}
    guarded = Guard(identities, store, partition).before(handlers)
    app = App(Dispatcher(guarded), partition, routes.subscribe, identities.manage)

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
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((serving, reconciling, stopped), return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        reconciling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reconciling
    if stop.is_set():
        await _stop_all(engine, settings.delete_grace)
    await engine.close()
    await store.close()


async def _stop_all(engine: Engine, grace: float) -> None:
    """End every container; one that does not end keeps none of the others."""
    ids = [container.id for container in await engine.observe()]
    ends = await asyncio.gather(*(engine.stop(id, grace) for id in ids), return_exceptions=True)
    for id, end in zip(ids, ends, strict=True):
        if end is not None:
            logger("control").error("a container does not stop; the next start tries again", id=id, reason=str(end))


def _engine(
    settings: Settings,
    on_change: Callable[[str], object],
    role_variables: Callable[[ContainerSpec], Mapping[str, str]],
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
        role_variables=role_variables,
    )
    engine: Engine = _engine_point(settings.engine).load()(context)
    return engine


def _objects(settings: Settings) -> Objects:
    from clary.objects import Objects

    if settings.s3_endpoint:
        source = (settings.s3_endpoint, settings.s3_access_key_id, settings.s3_secret_access_key)
    else:  # the bundled one, through the front door like everybody
        source = (_url(settings), settings.access_key_id, settings.secret_access_key)
    return Objects(*source, settings.region, settings.file_roots)


def _world(settings: Settings, may_read: Callable[[str, str, bool], bool]) -> World:
    """Build what CreateModel looks at beyond its request."""
    from clary.api.world import World

    return World(_objects(settings), _catalogue(settings).__contains__, settings.region, may_read)


def _catalogue(settings: Settings) -> Catalogue:
    """Read the image catalogue. Raises SettingsError for a file that cannot be used."""
    from clary.engines.catalogue import Catalogue

    return Catalogue(Path(settings.catalogue) if settings.catalogue else None)


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
            run=settings.run,
            max_payload=settings.max_payload * MIB,
            model_timeout=settings.model_timeout,
        ),
        s3.handle,
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
