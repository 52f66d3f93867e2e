"""EnableNetworkIsolation on the process engine, seen from inside: no way in or out but the gateway's."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from clary.core.containers import Container, ModelData, Network
from clary.engines import isolation, posix
from clary.engines.context import EngineContext
from clary.engines.grants import Grants
from clary.engines.process import ProcessEngine
from clary.engines.relay import Relay
from clary.errors import LaunchFailure
from tests.engines.conftest import SERVER, MakeSpec, ask, pack

MakeContext = Callable[..., EngineContext]

ATTEMPT = '''
import errno, socket, threading, urllib.request

def attempt(code):
    """Run code that sets `result`; an error is told by its name."""
    found = dict(globals())
    try:
        exec(code, found)
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    return found["result"]

'''

ISOLATED = Network(isolated=True)


def quiet(_: str) -> None:
    """Progress that nobody follows."""


@pytest.fixture
async def isolating(engine: ProcessEngine) -> AsyncIterator[ProcessEngine]:
    if obstacles := [note for note in (await engine.capacity()).notes if "EnableNetworkIsolation" in note]:
        pytest.skip(obstacles[0])
    yield engine


@pytest.fixture
def isolated_spec(make_spec: MakeSpec, tmp_path: Path) -> MakeSpec:
    server = SERVER.replace('print("one line")', f'{ATTEMPT}print("one line")')
    url = pack(tmp_path / "models" / "isolated.tar.gz", {"serve.py": server})
    return lambda **changes: make_spec(**{"model_data": (ModelData(url),), "network": ISOLATED, **changes})


@pytest.fixture
async def container(isolating: ProcessEngine, isolated_spec: MakeSpec) -> Container:
    launched = await isolating.launch(isolated_spec(), quiet)
    await ask(launched.port, do="describe")
    return launched


async def attempt(container: Container, code: str) -> object:
    return await ask(container.port, do="attempt", code=code)


def relay_of(engine: ProcessEngine, id: str) -> Relay:
    return Relay(**json.loads((engine._run / "relays" / f"{id}.json").read_text()))


# -- from inside -------------------------------------------------------------------------------------------------------


async def test_there_is_nothing_but_a_loopback(container: Container) -> None:
    assert await attempt(container, "result = [name for _, name in socket.if_nameindex()]") == ["lo"]
    own = str(Path(f"/proc/{container.pid}/ns/net").readlink())
    assert (
        await attempt(container, "result = os.readlink('/proc/self/ns/net')")
        == own
        != str(Path("/proc/self/ns/net").readlink())
    )


async def test_its_own_loopback_works(container: Container) -> None:
    code = """
with socket.create_server(("127.0.0.1", 0)) as server:
    with socket.create_connection(server.getsockname()) as client:
        result = client.getpeername()[0]"""
    assert await attempt(container, code) == "127.0.0.1"


async def test_what_listens_on_the_machine_is_not_there(container: Container) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"result = socket.create_connection(('127.0.0.1', {port}), 5) and 'connected'"
        assert await attempt(container, code) == "ECONNREFUSED"


@pytest.mark.parametrize("address", ["192.0.2.1", "169.254.169.254", "10.0.0.1", "8.8.8.8"])
async def test_no_address_is_reached(container: Container, address: str) -> None:
    code = f"result = socket.create_connection(('{address}', 80), 5) and 'connected'"
    assert await attempt(container, code) == "ENETUNREACH"


async def test_no_datagram_leaves(container: Container) -> None:
    code = "result = socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'?', ('192.0.2.1', 53))"
    assert await attempt(container, code) == "ENETUNREACH"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.2)
        code = "result = socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'?', ('127.0.0.1', {}))"
        assert await attempt(container, code.format(server.getsockname()[1])) == 1  # to its own loopback
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(server.recv, 1)


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("result = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).connect((2, 1))", "EAFNOSUPPORT"),
        ("import ctypes; libc = ctypes.CDLL(None, use_errno=True); libc.syscall(425, 1, bytes(120)); "
         "result = ctypes.get_errno()", errno.ENOSYS),
        ("result = socket.socket(socket.AF_UNIX).family == socket.AF_UNIX", True),
    ],
)  # fmt: skip
async def test_no_socket_leads_to_the_hypervisor(container: Container, code: str, answer: object) -> None:
    assert await attempt(container, code) == answer


async def test_no_name_is_resolved(container: Container) -> None:
    code = "result = socket.getaddrinfo('example.com', 80) and 'resolved'"
    assert await attempt(container, code) == "gaierror"


async def test_the_machines_abstract_sockets_are_not_there(container: Container) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0clary-{os.getpid()}")
        server.listen()
        code = f"s = socket.socket(socket.AF_UNIX); s.connect('\\0clary-{os.getpid()}'); result = 'connected'"
        assert await attempt(container, code) == "ECONNREFUSED"


async def test_sockets_of_the_system_and_of_clary_are_not_shown(
    isolating: ProcessEngine, container: Container, tmp_path: Path
) -> None:
    """By way of such a socket a name service would resolve names, and Clary's own would start other models."""
    assert await attempt(container, "result = os.listdir('/run')") == []
    for name in (isolating._run / "control.sock", tmp_path / "data" / "credentials"):
        name.touch()
        assert await attempt(container, f"result = open('{name}').read()") == "ENOENT"
    assert await attempt(container, f"result = sorted(os.listdir('{isolating._run}'))") == ["private", "serving"]
    assert await attempt(container, f"result = os.listdir('{isolating._run}/private')") == [container.id]


async def test_the_way_back_into_the_machines_network_is_closed(container: Container) -> None:
    code = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
descriptor = os.pidfd_open({os.getpid()})
if libc.setns(descriptor, 0x40000000) != 0:
    raise OSError(ctypes.get_errno(), 'setns')
result = 'entered'"""
    assert await attempt(container, code) == "EPERM"
    assert await attempt(container, f"result = open('/proc/{os.getpid()}/ns/net') and 'opened'") == "EACCES"


async def test_no_credentials_are_offered(
    make_context: MakeContext, isolating: ProcessEngine, container: Container
) -> None:
    seen = await ask(container.port, do="describe")
    assert isinstance(seen, dict)
    assert not [name for name in seen["environment"] if name.startswith("AWS_CONTAINER")]


async def test_a_container_that_is_not_isolated_has_the_machines_network(
    engine: ProcessEngine, isolated_spec: MakeSpec
) -> None:
    container = await engine.launch(isolated_spec(network=Network()), quiet)
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"result = socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5) and 'connected'"
        assert await attempt(container, code) == "connected"


# -- life and death ----------------------------------------------------------------------------------------------------


async def test_a_killed_relay_is_replaced_on_its_port(isolating: ProcessEngine, container: Container) -> None:
    before = relay_of(isolating, container.id)
    os.kill(before.pid, signal.SIGKILL)
    async with asyncio.timeout(300):
        while not (now := relay_of(isolating, container.id)).alive or now.pid == before.pid:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert now.port == before.port == container.port
    seen = await ask(container.port, do="describe")
    assert isinstance(seen, dict)
    assert seen["pid"] == container.pid


async def test_the_relay_ends_with_the_model(isolating: ProcessEngine, container: Container) -> None:
    relay = relay_of(isolating, container.id)
    assert container.pid is not None
    os.kill(container.pid, signal.SIGKILL)
    async with asyncio.timeout(300):
        while (await isolating.observe())[0].phase != "exited":  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
    assert not relay.alive
    assert (await isolating.observe())[0].exit_reason == "killed by SIGKILL"


async def test_stop_leaves_no_process_no_port_and_no_namespace(isolating: ProcessEngine, container: Container) -> None:
    relay, namespace = relay_of(isolating, container.id), str(Path(f"/proc/{container.pid}/ns/net").readlink())
    await isolating.stop(container.id, grace=5)
    assert not relay.alive
    assert not list((isolating._run / "relays").iterdir())
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # our own questions linger in TIME_WAIT
        probe.bind(("127.0.0.1", container.port))
    assert namespace not in {link for each in Path("/proc").glob("[0-9]*") if (link := _namespace(each))}


def _namespace(process: Path) -> str | None:
    try:
        return str((process / "ns" / "net").readlink())
    except OSError:
        return None


@pytest.mark.parametrize("relay_dies", [False, True])
async def test_the_next_engine_takes_the_relay_over(
    make_context: MakeContext, isolating: ProcessEngine, isolated_spec: MakeSpec, relay_dies: bool
) -> None:
    first = ProcessEngine(make_context())
    container = await first.launch(isolated_spec(), quiet)
    relay = relay_of(first, container.id)
    await first.close()
    if relay_dies:
        os.kill(relay.pid, signal.SIGKILL)
        posix.reap(relay.pid)
    second = ProcessEngine(make_context())
    assert list(await second.observe()) == [container]
    assert await ask(container.port, do="describe")
    assert (relay_of(second, container.id).pid == relay.pid) is not relay_dies
    await second.stop(container.id, 0)
    assert not relay.alive
    await second.close()


async def test_one_that_ends_at_once_says_how(isolating: ProcessEngine, isolated_spec: MakeSpec) -> None:
    container = await isolating.launch(isolated_spec(environment={"EXIT": "3"}), quiet)
    async with asyncio.timeout(300):
        while (await isolating.observe())[0].phase != "exited":  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
    assert (await isolating.observe())[0].exit_reason == "exited with 3"
    await isolating.stop(container.id, 0)


# -- as another user ---------------------------------------------------------------------------------------------------

AS_NOBODY = """
import asyncio, json, pickle, sys
from pathlib import Path
import clary.objects
from clary.engines.context import EngineContext
from clary.engines.process import ProcessEngine
from tests.engines.conftest import ask
data, spec, questions = pickle.load(sys.stdin.buffer)
async def main():
    objects = clary.objects.Objects(None, "", "", "us-east-1", (Path(data).parent / "models",))
    engine = ProcessEngine(EngineContext(
        data=Path(data), logs=Path(data) / "logs", objects=objects, catalogue=None, artifact_cache_bytes=10**9,
        max_artifact_bytes=10**8, region="eu-west-1", on_change=lambda _: None))
    notes = [note for note in (await engine.capacity()).notes if "EnableNetworkIsolation" in note]
    if notes:
        print(json.dumps(notes))
        return
    container = await engine.launch(spec, lambda _: None)
    answers = [await ask(container.port, do="attempt", code=code) for code in questions]
    await engine.stop(container.id, 0)
    left = [file.name for file in (Path(data) / "run" / "relays").iterdir()]
    await engine.close()
    print(json.dumps([*answers, left]))
asyncio.run(main())
"""


def python_of_everybody() -> str | None:
    """Find a Python like ours that another user may run."""
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        with contextlib.suppress(OSError):
            subprocess.run([python, "-c", ""], user=65534, group=65534, extra_groups=[], check=True)
            return python
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; every test above runs unprivileged")
def test_it_isolates_without_privileges_where_the_machine_has_user_namespaces(
    isolated_spec: MakeSpec, tmp_path: Path
) -> None:
    if (python := python_of_everybody()) is None:
        pytest.skip("no Python that another user may run: install Debian's python3 beside this one")
    folder = Path("/tmp") / f"clary-{os.getpid()}"  # pytest's own folders are root's
    shutil.copytree(tmp_path / "models", folder / "models")
    (spec_data,) = isolated_spec().model_data
    spec = isolated_spec(model_data=(ModelData((folder / "models" / Path(spec_data.url).name).as_uri()),))
    questions = (
        "result = [name for _, name in socket.if_nameindex()]",
        "result = socket.create_connection(('192.0.2.1', 80), 5) and 'connected'",
        "result = socket.getaddrinfo('example.com', 80) and 'resolved'",
        "result = [os.geteuid(), os.listdir('/run')]",
        f"result = open('/proc/{os.getpid()}/ns/net') and 'opened'",
    )
    try:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 65534, 65534)
        done = subprocess.run(
            [python, "-c", AS_NOBODY],
            input=pickle.dumps((str(folder / "data"), spec, questions)),
            capture_output=True,
            user=65534,
            group=65534,
            extra_groups=[],
            cwd=Path(__file__).parents[2],
            env={"PATH": os.defpath, "HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)},
            timeout=600,
        )
    finally:
        shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr.decode()
    answers = json.loads(done.stdout.splitlines()[-1])
    if "EnableNetworkIsolation" in str(answers[0]):
        pytest.skip(answers[0])
    assert answers == [["lo"], "ENETUNREACH", "gaierror", [65534, []], "EACCES", []]


# -- where it cannot be ------------------------------------------------------------------------------------------------


async def test_a_machine_that_cannot_isolate_refuses_and_says_so(
    engine: ProcessEngine, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def probe(*_: object, isolated: bool = False, **__: object) -> str | None:
        return "cannot isolate its network: Operation not permitted: unshare" if isolated else None

    monkeypatch.setattr(Grants, "_probe", probe)
    with pytest.raises(LaunchFailure, match=r"not possible on this machine .*unshare.*: .* CAP_SYS_ADMIN") as failure:
        await engine.launch(make_spec(network=ISOLATED), quiet)
    assert failure.value.step == "create"
    assert failure.value.message in (await engine.capacity()).notes
    assert await engine.launch(make_spec(), quiet)


@pytest.mark.parametrize(
    ("file", "value", "words"),
    [
        ("user/max_user_namespaces", "0", "user.max_user_namespaces is 0"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone is 0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor"),
    ],
)
def test_the_obstacle_names_the_switch(tmp_path: Path, file: str, value: str, words: str) -> None:
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(f"{value}\n")
    assert words in isolation.obstacle("no", tmp_path, user=1000)
    assert words not in isolation.obstacle("no", tmp_path, user=0)


VPC = Network(subnets=("subnet-1",), security_groups=("sg-1",))


async def test_a_vpc_is_refused_and_the_ways_out_are_named(engine: ProcessEngine, make_spec: MakeSpec) -> None:
    with pytest.raises(LaunchFailure, match=r"VpcConfig.*--ignore-vpc.*--engine docker.*\[networks\]") as failure:
        await engine.launch(make_spec(network=VPC), quiet)
    assert failure.value.step == "create"


@pytest.mark.parametrize(
    ("network", "ignore_vpc"), [(VPC, True), (Network(True, ("subnet-1",), ("sg-1",)), False), (Network(), False)]
)
def test_a_vpc_is_accepted_where_it_is_ignored_or_has_no_meaning(network: Network, ignore_vpc: bool) -> None:
    isolation.check(network, None, ignore_vpc=ignore_vpc)
