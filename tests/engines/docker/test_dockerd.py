"""A Docker of our own that is killed and comes back."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clary.engines.context import EngineContext
from clary.engines.docker.engine import DockerEngine
from clary.errors import Transient
from tests.containers import needs_docker
from tests.dockerd import Daemon, missing
from tests.engines.conftest import MakeSpec
from tests.engines.docker.conftest import ask, end, exited, quiet, until

pytestmark = [
    needs_docker,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

MakeContext = Callable[..., EngineContext]


@pytest.fixture
def daemon(server_image: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="dockerd-", ignore_cleanup_errors=True) as folder:
        here = Daemon(Path(folder))
        here.begin()
        try:
            here.load(server_image)
            monkeypatch.setenv("DOCKER_HOST", here.url)
            yield here
        finally:
            here.stop()


async def test_containers_that_a_killed_docker_took_along_are_seen_as_ended_and_can_be_replaced(
    daemon: Daemon, make_context: MakeContext, make_spec: MakeSpec
) -> None:
    told: list[str] = []
    engine = DockerEngine(make_context(on_change=told.append))
    spec = make_spec()
    first = await engine.launch(spec, quiet)
    await ask(first, do="say", lines=5)

    async def heard() -> bool:
        return "line 4" in await engine.logs(spec.id, 100)

    await until(heard)  # what a killed Docker has read and not written yet is lost
    daemon.end()
    with pytest.raises(Transient):
        await engine.observe()
    assert await ask(first, do="files", path="/opt/ml/model") == [], "it serves while Docker is dead"
    await ask(first, do="say", lines=5, begin=5)
    told.clear()
    await asyncio.to_thread(daemon.start)  # without live-restore, Docker ends what it finds running

    async def noticed() -> bool:
        return spec.id in told

    await until(noticed)
    assert (await exited(engine, spec.id)).exit_reason
    await engine.stop(spec.id, 0)
    second = await engine.launch(spec, quiet)
    assert second.started_at > first.started_at
    await ask(second, do="say", lines=1, begin=100)

    async def logged() -> bool:
        return "line 100" in await engine.logs(spec.id, 100)

    await until(logged)
    lines = [line for line in await engine.logs(spec.id, 100) if line.startswith("line")]
    assert lines[:5] == [f"line {number}" for number in range(5)]
    assert len(set(lines)) == len(lines)
    await end(engine)
    assert not daemon.docker("network", "ls", "-q", "--filter", "label=clary.owner").stdout
    assert not daemon.docker("ps", "-a", "-q").stdout
