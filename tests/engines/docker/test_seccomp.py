"""The system calls of isolated containers: no more than other containers have, and none that leads out."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest

from clary.core.containers import Network
from clary.engines.docker import seccomp
from clary.engines.docker.engine import DockerEngine
from tests.containers import needs_docker
from tests.engines.conftest import MakeSpec
from tests.engines.docker.conftest import ask, quiet
from tests.engines.docker.test_isolation import attempt, image

__all__ = ["image"]

SURVEY = """
import ctypes, os, signal
kernel = ctypes.CDLL(None, use_errno=True)
result = {}
for number in range(450):
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_REAL, 0.1)  # some wait
        answer = kernel.syscall(number, *[ctypes.c_long(-1)] * 6)
        os._exit(ctypes.get_errno() if answer == -1 else 0)
    result[number] = os.waitpid(child, 0)[1] >> 8
"""
"""What each system call of before Linux 5.17 says to nonsense, by its number; 0 where it says nothing.

Younger calls are unknown to older engines."""
REFUSALS = (1, 38)
"""EPERM, ENOSYS."""


async def check_calls(engine: DockerEngine, make_spec: MakeSpec, image: str) -> None:
    """Compare an isolated container with another one, call by call."""
    assert not [note for note in (await engine.capacity()).notes if "seccomp" in note]
    refused = []
    for isolated in (False, True):
        container = await engine.launch(make_spec(image=image, network=Network(isolated=isolated)), quiet)
        await ask(container, do="files", path="/")
        answers: Any = await attempt(container, SURVEY)
        refused.append({int(number) for number, answer in answers.items() if answer in REFUSALS})
    assert refused[0] - refused[1] == set()
    assert 425 in refused[1], "io_uring_setup"
    assert len(refused[1] - refused[0]) < 30, "and of the rest hardly any"


@needs_docker
@pytest.mark.skipif(os.geteuid() != 0, reason="entering a container's network namespace takes root")
async def test_an_isolated_container_is_refused_all_that_others_are(
    engine: DockerEngine, make_spec: MakeSpec, image: str
) -> None:
    await check_calls(engine, make_spec, image)


@needs_docker
@pytest.mark.skipif(os.geteuid() != 0, reason="entering a container's network namespace takes root")
async def test_an_isolated_container_makes_sockets_of_its_own_network_alone(
    engine: DockerEngine, make_spec: MakeSpec, image: str
) -> None:
    container = await engine.launch(make_spec(image=image, network=Network(isolated=True)), quiet)
    await ask(container, do="files", path="/")
    for family in ("AF_INET", "AF_INET6", "AF_UNIX"):
        assert await attempt(container, f"result = socket.socket(socket.{family}).fileno() > 2") is True
    assert await attempt(container, "result = [name for _, name in socket.if_nameindex()]") == ["lo"]
    assert await attempt(container, "result = str(socket.socket(40, socket.SOCK_STREAM))") in ("ENOSYS", "EPERM")
    # The kernel reads the lower half of the argument.
    wide = (
        "import ctypes; kernel = ctypes.CDLL(None, use_errno=True); "
        "number = {'x86_64': 41, 'aarch64': 198}[os.uname().machine]; "
        "answer = kernel.syscall(number, ctypes.c_long(1 << 32 | 40), 1, 0); "
        "result = answer if answer >= 0 else errno.errorcode[ctypes.get_errno()]"
    )
    assert await attempt(container, wide) in ("ENOSYS", "EPERM")
    threads = "import threading; t = threading.Thread(target=print); t.start(); t.join(); result = 'ran'"
    assert await attempt(container, threads) == "ran"


@pytest.mark.parametrize(
    ("architecture", "options", "words"),
    [
        ("x86_64", ["name=seccomp,profile=default"], None),
        ("aarch64", ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"], None),
        ("x86_64", ["name=seccomp,profile=unconfined"], None),
        ("x86_64", ["name=seccomp,profile=/etc/docker/strict.json"], "is up to.* own seccomp profile: /etc/docker/str"),
        ("x86_64", ["name=apparmor"], "it has none"),
        ("x86_64", None, "it has none"),
        ("s390x", ["name=seccomp,profile=builtin"], "there is none of Clary's for s390x"),
    ],
)
def test_an_operators_profile_stays_and_doctor_says_so(
    architecture: str, options: list[str] | None, words: str | None
) -> None:
    found = seccomp.obstacle({"Architecture": architecture, "SecurityOptions": options})
    if words is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(words, found)
