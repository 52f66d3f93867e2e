"""The supervisor: checks everything while there is a terminal to say it on, starts the other roles and keeps them
running, and announces the port.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from clary import certificates, credentials, datafolder, telemetry
from clary.core.resources import Partition
from clary.errors import SettingsError
from clary.gateway.listener import BACKLOG, free_port, listener
from clary.server.parts import AUTO, catalogue, containers_host, containers_port, control_socket, engine_point, url
from clary.settings import Settings, to_environment
from clary.supervision import Program, Supervisor, adopt_orphans
from clary.telemetry import logger

LONGEST_SOCKET_NAME = 107
"""Bytes (Linux; other systems have a few less)."""
READY_WITHIN = 300.0
"""Seconds after which a Clary that does not answer is given up: more than any machine takes to start it."""


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
    registries: Sequence[str] = ()
    """The hosts that the settings name for images."""


def up(settings: Settings, ready: Callable[[Running], None]) -> int:
    """Start everything, call `ready` once it answers, serve until SIGTERM or SIGINT; give the exit code.

    Raises SettingsError for what cannot be used: the data folder, the port, the catalogue.
    """
    telemetry.set_up(settings.log_level, "supervisor")
    settings = _with_engine(settings)
    _check(settings)
    os.umask(0o077)
    partition = Partition(settings.account_id, settings.region)
    with datafolder.held(settings.data, settings.run, partition), contextlib.ExitStack() as stack:
        doors = _doors(settings, stack)
        with datafolder.blamed(settings.data):
            settings = _with_credentials(replace(settings, port=doors[0].getsockname()[1]))
            _keep_containers_port(settings)
        return asyncio.run(_supervise(settings, doors, ready))


def _check(settings: Settings) -> None:
    """Refuse what a child process would trip over, while there is a terminal to say it on."""
    engine_point(settings.engine)
    catalogue(settings)
    _registries(settings)
    certificates.server_context(settings.tls_cert, settings.tls_key)
    if len(os.fsencode(control_socket(settings))) > LONGEST_SOCKET_NAME:
        raise SettingsError(
            f"--data: {settings.data} is too long: the system allows sockets {LONGEST_SOCKET_NAME} bytes"
        )


def _registries(settings: Settings) -> Sequence[str]:
    """Give the hosts of the table. Raises SettingsError for one that cannot be meant, whichever engine runs now."""
    from clary.engines.docker.registries import Registries

    return Registries(settings.registries).hosts()


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


def _doors(settings: Settings, stack: contextlib.ExitStack) -> list[socket.socket]:
    """Listen, on a socket for each gateway, which its successors inherit: what it has not accepted waits for them.

    Over sockets of their own the kernel spreads connections evenly; of one that is shared, whoever is awake takes most.
    Raises SettingsError where the port cannot be had.
    """
    host, port = settings.host, settings.port
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))  # without SO_REUSEPORT: fails where anybody else has it
        first = stack.enter_context(listener(host, port))
        port = first.getsockname()[1]
        doors = [first, *(stack.enter_context(listener(host, port)) for _ in range(settings.workers - 1))]
        for door in doors:
            door.listen(BACKLOG)
        return doors
    except OSError as error:
        why = "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise SettingsError(f"--port: {host}:{port} {why}; choose another, or 0 for any free one") from error


def _keep_containers_port(settings: Settings) -> None:
    """Choose the port for containers: that of the last time, or a free one."""
    file = containers_port(settings)
    kept = int(file.read_text()) if file.exists() else 0
    try:
        port = free_port(containers_host(settings), kept)
    except OSError as error:
        logger("supervisor").warning("models get no credentials of their roles", reason=str(error))
        file.unlink(missing_ok=True)
        return
    if kept not in (0, port):
        logger("supervisor").warning("models that run get no new credentials: somebody has their port", port=kept)
    fresh = file.with_suffix(".new")
    fresh.write_text(str(port))
    fresh.replace(file)


async def _supervise(settings: Settings, doors: list[socket.socket], ready: Callable[[Running], None]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    if not adopt_orphans():
        logger("supervisor").warning("this system cannot adopt orphans; exit codes of models may be lost")
    supervisor = Supervisor(_programs(settings, [door.fileno() for door in doors]), settings.run / "exits")

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
        for door in doors:  # the gateways have them still; whoever comes when they have gone is refused
            door.close()
        await running
        record.unlink(missing_ok=True)
    return 1 if supervisor.gave_up else 0


def _running(settings: Settings, pids: dict[str, int]) -> Running:
    return Running(
        url=url(settings),
        engine=settings.engine,
        data=settings.data,
        region=settings.region,
        account_id=settings.account_id,
        pids=pids,
        ca_bundle=certificates.bundle(settings.tls_cert),
        registries=_registries(settings),
    )


def _programs(settings: Settings, doors: Sequence[int]) -> list[Program]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLARY_")}
    environment |= to_environment(settings)
    python = (sys.executable, "-m", "clary.server")
    programs = [Program("control", (*python, "control"), environment, stop_timeout=settings.delete_grace + 15)]
    programs += [
        Program(
            f"gateway-{number}",
            (*python, "gateway", str(door)),
            environment,
            stop_timeout=settings.model_timeout + 5,
            descriptors=(door,),
        )
        for number, door in enumerate(doors)
    ]
    return programs


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
                "registries": list(running.registries),
            }
        )
    )
    temporary.rename(path)


async def _answers(settings: Settings, stop: asyncio.Event) -> bool:
    """Wait until the gateway and, through its socket, the control plane answer, or until `stop`."""
    answered, stopped = asyncio.create_task(_all_answer(settings)), asyncio.create_task(stop.wait())
    await asyncio.wait((answered, stopped), timeout=READY_WITHIN, return_when=asyncio.FIRST_COMPLETED)
    ready = answered.done()
    answered.cancel()
    stopped.cancel()
    await asyncio.gather(answered, stopped, return_exceptions=True)
    return ready


async def _all_answer(settings: Settings) -> None:
    host = urlsplit(url(settings)).hostname
    tls = None
    if settings.tls_cert:  # whether it answers is the question here, not who
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    while True:
        try:
            await _get_health(asyncio.open_unix_connection(str(control_socket(settings))))
            await _get_health(asyncio.open_connection(host, settings.port, ssl=tls))
            return
        except (OSError, EOFError):
            await asyncio.sleep(0.05)


async def _get_health(connecting: object) -> None:
    reader, writer = await connecting  # type: ignore[misc]
    try:
        writer.write(b"GET /_clary/health HTTP/1.1\r\nHost: clary\r\nConnection: close\r\n\r\n")
        status = await reader.readline()
        if b" 200 " not in status:
            raise EOFError("not ready")
    finally:
        writer.close()
