"""EnableNetworkIsolation on the Docker engine, seen from inside a real container."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from clary.core.containers import Container, Network
from clary.engines.context import EngineContext
from clary.engines.docker.engine import DockerEngine
from clary.engines.relay import Relay
from tests.containers import BIND_LABEL, build, docker, needs_docker
from tests.engines.conftest import MakeSpec
from tests.engines.docker.conftest import SERVER, ask, end, exited, quiet
from tests.engines.test_isolation import ATTEMPT

pytestmark = [
    needs_docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="entering a container's network namespace takes root"),
]


@pytest.fixture(scope="module")
def image() -> str:
    server = SERVER.replace("def describe():", f"{ATTEMPT}\ndef describe():")
    return build(
        "clary/test-isolated:1", {"server.py": server}, f"LABEL {BIND_LABEL}=true", 'ENTRYPOINT ["/server.py"]'
    )


@pytest.fixture
async def container(engine: DockerEngine, make_spec: MakeSpec, image: str) -> AsyncIterator[Container]:
    launched = await engine.launch(make_spec(image=image, network=Network(isolated=True)), quiet)
    await ask(launched, do="files", path="/opt/ml")
    yield launched


def relay_of(engine: DockerEngine, id: str) -> Relay:
    return Relay(**json.loads((engine._root / "relays" / f"{id}.json").read_text()))


async def attempt(container: Container, code: str) -> object:
    return await ask(container, do="attempt", code=code)


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("result = [name for _, name in socket.if_nameindex()]", ["lo"]),
        ("result = socket.create_connection(('192.0.2.1', 80), 5) and 'connected'", "ENETUNREACH"),
        ("result = socket.create_connection(('169.254.170.2', 80), 5) and 'connected'", "ENETUNREACH"),
        ("result = socket.create_connection(('172.17.0.1', 80), 5) and 'connected'", "ENETUNREACH"),
        ("result = socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'?', ('192.0.2.1', 53))", "ENETUNREACH"),
        ("result = socket.getaddrinfo('example.com', 80) and 'resolved'", "gaierror"),
    ],
)
async def test_from_inside_nothing_is_reached(container: Container, code: str, answer: object) -> None:
    assert await attempt(container, code) == answer


async def test_what_listens_on_the_machine_is_not_there(container: Container) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        port = server.getsockname()[1]
        code = f"result = socket.create_connection(('127.0.0.1', {port}), 5) and 'connected'"
        assert await attempt(container, code) == "ECONNREFUSED"
        abstract.bind(f"\0clary-{os.getpid()}")
        abstract.listen()
        code = f"s = socket.socket(socket.AF_UNIX); s.connect('\\0clary-{os.getpid()}'); result = 'connected'"
        assert await attempt(container, code) == "ECONNREFUSED"


async def test_no_credentials_are_offered(container: Container) -> None:
    variables = await attempt(container, "result = [name for name in os.environ if name.startswith('AWS_CONTAINER')]")
    assert variables == []


async def test_a_killed_relay_is_replaced_on_its_port(engine: DockerEngine, container: Container) -> None:
    before = relay_of(engine, container.id)
    os.kill(before.pid, signal.SIGKILL)
    async with asyncio.timeout(300):
        while not (now := relay_of(engine, container.id)).alive or now.pid == before.pid:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert now.port == before.port == container.port
    assert await ask(container, do="files", path="/opt/ml") == ["model"]


async def test_the_relay_ends_with_the_container(engine: DockerEngine, container: Container) -> None:
    relay = relay_of(engine, container.id)
    docker("kill", engine._name(container.id))
    await exited(engine, container.id)
    async with asyncio.timeout(300):
        while relay.alive:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_stop_leaves_no_relay(engine: DockerEngine, container: Container) -> None:
    relay = relay_of(engine, container.id)
    await engine.stop(container.id, 1)
    assert not relay.alive
    assert not list((engine._root / "relays").iterdir())


async def test_the_next_engine_starts_a_relay_again_that_died_meanwhile(
    make_context: Callable[..., EngineContext], make_spec: MakeSpec, image: str
) -> None:
    first = DockerEngine(make_context())
    container = await first.launch(make_spec(image=image, network=Network(isolated=True)), quiet)
    relay = relay_of(first, container.id)
    await first.close()
    os.kill(relay.pid, signal.SIGKILL)
    second = DockerEngine(make_context())
    (adopted,) = await second.observe()
    assert (adopted.host, adopted.port) == (container.host, container.port)
    assert await ask(adopted, do="files", path="/opt/ml") == ["model"]
    assert relay_of(second, container.id).pid != relay.pid
    await end(second)
