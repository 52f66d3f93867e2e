"""The engine on Podman, which speaks Docker's API with an accent.

test_podman.py runs this in a network of its own: Podman's rules for packets are for the whole machine, and stay there
when it is killed.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from clary.core.containers import Network
from clary.engines.context import EngineContext
from clary.engines.docker.engine import DockerEngine
from clary.errors import LaunchFailure
from clary.testing import Specimens, engine_conformance
from tests.containers import needs_docker
from tests.engines.conftest import MakeSpec
from tests.engines.docker.conftest import ask, end, quiet, until
from tests.engines.docker.test_isolation import attempt, image
from tests.engines.docker.test_seccomp import check_calls
from tests.podman import Podman

__all__ = ["image"]

pytestmark = needs_docker  # its images come from there

MakeContext = Callable[..., EngineContext]


@pytest.fixture(scope="module")
def podman(image: str) -> Iterator[Podman]:
    with tempfile.TemporaryDirectory(prefix="podman-", ignore_cleanup_errors=True) as folder:
        here = Podman(Path(folder))
        here.begin()
        try:
            here.load(image)
            yield here
        finally:
            here.stop()


@pytest.fixture
async def engine(
    podman: Podman, make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DockerEngine]:
    monkeypatch.setenv("DOCKER_HOST", podman.url)
    made = DockerEngine(make_context())
    yield made
    await end(made)
    assert podman.docker("network", "ls", "-q", "--filter", "label=clary.owner").stdout == b""


async def test_it_keeps_the_promises_of_every_engine(
    engine: DockerEngine, make_context: MakeContext, make_spec: MakeSpec, image: str
) -> None:
    async def create() -> DockerEngine:
        return DockerEngine(make_context())

    await engine_conformance(
        create,
        Specimens(
            serves=make_spec(image=image),
            exits=make_spec(image=image, environment={"EXIT": "3"}),
            broken=make_spec(image="127.0.0.1:9/clary/no-such:image"),
        ),
    )


async def test_an_isolated_container_has_fewer_system_calls_than_podman_gives(
    engine: DockerEngine, make_spec: MakeSpec, image: str
) -> None:
    await check_calls(engine, make_spec, image)
    container = await engine.launch(make_spec(image=image, network=Network(isolated=True)), quiet)
    await ask(container, do="files", path="/")
    assert await attempt(container, "result = [name for _, name in socket.if_nameindex()]") == ["lo"]
    assert await attempt(container, "result = str(socket.socket(40, socket.SOCK_STREAM))") in ("ENOSYS", "EPERM")


async def test_the_containers_of_a_pipeline_know_each_other_by_name_and_an_exit_is_told(
    podman: Podman, make_context: MakeContext, make_spec: MakeSpec, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", podman.url)
    told: list[str] = []
    engine = DockerEngine(make_context(on_change=told.append))
    asker, asked = [
        await engine.launch(make_spec(image=image, hostname=name, instance_id="i-00000000000000001"), quiet)
        for name in ("pre", "model")
    ]
    await ask(asked, do="files", path="/")
    assert await ask(asker, do="resolve", name="model") == asked.host
    assert await ask(asker, do="connect", host="model", port=8080) == "connected"
    told.clear()
    await asyncio.gather(ask(asked, do="leave", code=1), return_exceptions=True)

    async def noticed() -> bool:
        return asked.id in told

    await until(noticed)
    await end(engine)


async def test_what_podman_does_not_do_is_refused_or_told(
    engine: DockerEngine, make_spec: MakeSpec, image: str
) -> None:
    with pytest.raises(LaunchFailure, match=r"ml\.g4dn\.xlarge has GPUs, and Podman passes over"):
        await engine.launch(make_spec(image=image, instance_type="ml.g4dn.xlarge"), quiet)
    assert [note for note in (await engine.capacity()).notes if "Podman does not keep containers" in note]
