"""What containers use, of real ones and of Docker's answers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from clary.core.ports import Meters
from clary.engines.docker.engine import DockerEngine
from clary.engines.docker.usage import measure, to_usage
from tests.containers import needs_docker
from tests.engines.conftest import MakeSpec
from tests.engines.docker.conftest import ask, exited, quiet

MIB = 1024**2


@needs_docker
@pytest.mark.usefixtures("nothing_is_left")
async def test_a_container_is_measured_while_it_runs(engine: DockerEngine, make_spec: MakeSpec) -> None:
    assert isinstance(engine, Meters)
    container = await engine.launch(make_spec(instance_type="ml.m5.large"), quiet)
    await ask(container, do="eat", size=64 * MIB)
    await engine.observe()
    used = (await engine.usage())[container.id]
    assert 0 < used.cpu_seconds < 60
    assert 0 < used.memory < used.memory_limit
    assert 0 < used.disk_percent <= 100
    with pytest.raises(aiohttp.ClientError):  # it leaves without an answer
        await ask(container, do="leave", code=3)
    await exited(engine, container.id)
    assert await engine.usage() == {}


@pytest.mark.parametrize("cache", ["inactive_file", "total_inactive_file"])
def test_the_file_cache_is_not_counted(cache: str) -> None:
    stats: dict[str, Any] = {
        "cpu_stats": {"cpu_usage": {"total_usage": 1_500_000_000}},
        "memory_stats": {"usage": 300 * MIB, "limit": 1024 * MIB, "stats": {cache: 100 * MIB}},
    }
    used = to_usage(stats, 40.0)
    assert (used.cpu_seconds, used.memory, used.memory_limit, used.disk_percent) == (1.5, 200 * MIB, 1024 * MIB, 40.0)


@pytest.mark.parametrize("said", [None, {}, {"memory_stats": {}}])
async def test_a_container_without_numbers_is_left_out(said: object, tmp_path: Path) -> None:
    @contextlib.asynccontextmanager
    async def query(*_: object, **__: object) -> AsyncIterator[Any]:
        async def json(**_: object) -> object:
            return said

        yield SimpleNamespace(json=json)

    docker: Any = SimpleNamespace(_query=query)
    assert await measure(docker, [("d", "c")], tmp_path) == {}
