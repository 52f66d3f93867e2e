"""Logs: every line once, whatever is restarted meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from clary.engines.context import EngineContext
from clary.engines.docker.engine import DockerEngine
from clary.engines.docker.follower import Cursor, _nanoseconds
from tests.containers import needs_docker
from tests.engines.conftest import MakeSpec
from tests.engines.docker.conftest import ask, end, quiet, until

MakeContext = Callable[..., EngineContext]

on_docker = [needs_docker, pytest.mark.usefixtures("nothing_is_left")]


def test_a_cursor_counts_what_happens_in_the_same_nanosecond() -> None:
    cursor = Cursor().after(5).after(5)
    assert cursor == Cursor(5, 2) < cursor.after(5) < cursor.after(6) == Cursor(6, 1)
    assert Cursor(1_700_000_000_000_000_012).since == "1700000000.000000012"


@pytest.mark.parametrize(
    ("stamp", "nanoseconds"),
    [
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000_000_000),
        ("2023-11-14T22:13:20.123456789Z", 1_700_000_000_123_456_789),
    ],
)
def test_dockers_times_are_read_to_the_nanosecond(stamp: str, nanoseconds: int) -> None:
    assert _nanoseconds(stamp) == nanoseconds


async def logged(engine: DockerEngine, id: str, count: int) -> list[str]:
    async def enough() -> bool:
        return len(await engine.logs(id, 10_000)) >= count

    await until(enough)
    return list(await engine.logs(id, 10_000))


class TestOnDocker:
    pytestmark = on_docker

    async def test_nothing_is_lost_or_doubled_over_restarts(
        self, make_context: MakeContext, make_spec: MakeSpec
    ) -> None:
        spec = make_spec()
        engine = DockerEngine(make_context())
        container = await engine.launch(spec, quiet)
        expected = ["one line", "another line"]
        for round in range(3):
            speaking = asyncio.ensure_future(ask(container, do="say", lines=500, begin=500 * round))
            await asyncio.sleep(0.01 * round)
            await engine.close()  # in the middle of it
            await speaking
            engine = DockerEngine(make_context())
            await engine.observe()
            expected += [f"line {number}" for number in range(500 * round, 500 * (round + 1))]
        assert sorted(await logged(engine, spec.id, len(expected))) == sorted(expected)
        assert (await engine.logs(spec.id, 10_000))[2:] == expected[2:]
        await end(engine)

    async def test_a_line_that_docker_cuts_is_one_line(self, engine: DockerEngine, make_spec: MakeSpec) -> None:
        spec = make_spec()
        container = await engine.launch(spec, quiet)
        await ask(container, do="shout", size=100_000)
        assert "y" * 100_000 in await logged(engine, spec.id, 3)

    async def test_a_successor_with_the_same_name_goes_on_in_the_same_stream(
        self, make_context: MakeContext, make_spec: MakeSpec
    ) -> None:
        engine = DockerEngine(make_context())
        spec = make_spec()
        await engine.launch(spec, quiet)
        await logged(engine, spec.id, 2)
        await engine.stop(spec.id, 0)
        before = len(await engine.logs(spec.id, 100))
        await engine.launch(spec, quiet)
        lines = await logged(engine, spec.id, before + 2)
        assert lines.count("one line") == 2
        await end(engine)

    async def test_what_an_ended_container_said_last_is_there(self, engine: DockerEngine, make_spec: MakeSpec) -> None:
        spec = make_spec(environment={"EXIT": "3"})
        await engine.launch(spec, quiet)

        async def ended() -> bool:
            return (await engine.observe())[0].phase == "exited"

        await until(ended)
        assert sorted(await engine.logs(spec.id, 10)) == ["another line", "one line"]
