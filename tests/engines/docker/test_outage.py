"""What happens while Docker is away: nothing is taken to be gone, and everything goes on afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from clary.engines.context import EngineContext
from clary.engines.docker.daemon import connect, version
from clary.engines.docker.engine import DockerEngine
from clary.errors import SettingsError, Transient
from tests.containers import docker, needs_docker
from tests.engines.conftest import MakeSpec
from tests.engines.docker.conftest import ask, end, quiet, until

pytestmark = [needs_docker, pytest.mark.usefixtures("nothing_is_left")]

MakeContext = Callable[..., EngineContext]


class Line:
    """A socket that leads to Docker for as long as it is not cut."""

    def __init__(self, path: Path, target: str) -> None:
        self.path = path
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def mend(self) -> None:
        self._server = await asyncio.start_unix_server(self._carry, self.path)

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        self.path.unlink(missing_ok=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_unix_connection(self._target)
        self._writers |= {writer, there}

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, there), pump(there_reader, writer))


@pytest.fixture
async def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Line]:
    here = Line(tmp_path / "d.sock", "/var/run/docker.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{here.path}")
    await here.mend()
    yield here
    await here.cut()


async def test_an_outage_is_transient_and_over_when_docker_is_back(
    line: Line, make_context: MakeContext, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    engine = DockerEngine(make_context(on_change=told.append))
    spec = make_spec()
    container = await engine.launch(spec, quiet)
    await ask(container, do="say", lines=10)
    await line.cut()
    for attempt in (engine.observe(), engine.launch(make_spec(), quiet), engine.stop(spec.id, 0)):
        with pytest.raises(Transient):
            await attempt
    assert await ask(container, do="files", path="/opt/ml/model") == [], "the model serves on"
    await ask(container, do="say", lines=10, begin=10)
    told.clear()
    await line.mend()

    async def back() -> bool:
        return spec.id in told

    await until(back)
    assert await engine.observe() == [container]

    async def copied() -> bool:
        lines = [said for said in await engine.logs(spec.id, 100) if said.startswith("line")]
        return lines == [f"line {number}" for number in range(20)]

    await until(copied)
    monkeypatch.delenv("DOCKER_HOST")
    docker("kill", docker("ps", "-q", "--filter", f"label=clary.id={spec.id}"))

    async def exited() -> bool:
        return (await engine.observe())[0].exit_reason == "killed by SIGKILL"

    await until(exited)
    await end(engine)


async def test_an_engine_that_begins_without_docker_finds_it_later(
    line: Line, make_context: MakeContext, make_spec: MakeSpec
) -> None:
    await line.cut()
    engine = DockerEngine(make_context())
    with pytest.raises(Transient):
        await engine.observe()
    assert await version() is None
    await line.mend()
    assert await engine.observe() == []
    assert await version() is not None
    await end(engine)


async def test_an_engine_on_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2375")
    with pytest.raises(SettingsError, match="not a unix socket"):
        await connect()
    assert await version() is None
