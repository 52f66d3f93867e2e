"""Logs: every line once, whatever is restarted meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clary.engines.context import EngineContext
from clary.engines.docker import follower
from clary.engines.docker.engine import DockerEngine
from clary.engines.docker.follower import Followers
from clary.engines.docker.labels import Kept
from clary.logs.folder import LogFolder
from tests.containers import needs_docker
from tests.engines.conftest import MakeSpec
from tests.engines.docker.conftest import ask, end, quiet, until
from tests.engines.docker.test_transcript import entry

MakeContext = Callable[..., EngineContext]

on_docker = [needs_docker, pytest.mark.usefixtures("nothing_is_left")]


class Scripted(Followers):
    """Followers of a Docker that answers what the test says: to the one who follows, and to the one who asks again."""

    def __init__(self, root: Path, followed: bytes, again: bytes, dropped: list[int]) -> None:
        super().__init__(None, LogFolder(root / "logs"), root / "pages", dropped.append)  # type: ignore[arg-type]
        self.answers = {True: followed, False: again}

    async def _pieces(self, container_id: str, since: str, *, follow: bool) -> AsyncIterator[bytes]:
        yield self.answers[follow]
        if container_id == "endless":
            await asyncio.Event().wait()

    async def _runs(self, container_id: str) -> bool:
        return False


def kept(container_id: str) -> Kept:
    return Kept(container_id, "/g", "s", ())


async def test_the_file_that_docker_leaves_out_at_the_end_is_asked_for(tmp_path: Path) -> None:
    lines = entry(1, "one\n"), entry(2, "two\n"), entry(3, "three")
    followers = Scripted(tmp_path, lines[0], b"".join(lines), dropped := [])
    followers.follow("c", kept("0a"))
    await followers.finish("c")
    assert await followers.tail("c", 9) == ["one", "two", "three"]
    assert not dropped


async def test_what_docker_leaves_out_in_between_is_told(tmp_path: Path) -> None:
    data = entry(7, "seven\n") + entry(9, "nine\n") + entry(7, "seven\n") + entry(9, "nine\n")
    followers = Scripted(tmp_path, data, b"", dropped := [])
    followers.follow("c", kept("0a"))
    await followers.finish("c")
    assert dropped == [1]
    assert await followers.tail("c", 9) == ["seven", "nine"]


async def test_docker_is_not_asked_for_what_may_be_read_and_what_was_missed_meanwhile_is_told(tmp_path: Path) -> None:
    log = tmp_path / "c-json.log"

    def write(seconds: int) -> None:
        document = {"log": f"{seconds}\n", "stream": "stdout", "time": f"2026-11-29T09:00:{seconds:02d}.5Z"}
        with log.open("a") as file:
            file.write(json.dumps(document) + "\n")

    write(1)
    for seconds, lost, lines in ((2, 0, ["1", "2"]), (3, 0, ["1", "2", "3"]), (50, 1, ["1", "2", "3", "50"])):
        if lost:
            log.unlink()  # replaced twice while nobody looked
        write(seconds)
        followers = Scripted(tmp_path, b"nonsense", b"nonsense", dropped := [])
        followers.follow("c", replace(kept("0a"), log_path=str(log)))
        await followers.finish("c")
        assert await followers.tail("c", 9) == lines
        assert sum(dropped) == lost
        await followers.close()


async def test_a_container_in_the_place_of_another_is_copied_alone(tmp_path: Path) -> None:
    followers = Scripted(tmp_path, b"", b"", [])
    first = kept("endless")
    for _ in range(50):
        followers.follow("c", first)
        followers.follow("c", kept("0b"))
        await asyncio.sleep(0)
    await followers.finish("c")
    await asyncio.sleep(0.01)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "log of c"]


async def test_old_pages_go_but_not_those_that_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "_KEPT", 2)
    followers = Scripted(tmp_path, b"", b"", [])
    followers.follow("endless", kept("endless"))
    await asyncio.sleep(0.01)
    for number in range(5):
        followers.follow(str(number), kept(str(number)))
        await followers.finish(str(number))
    names = {file.name for file in (tmp_path / "pages").iterdir()}
    assert {"endless", "4"} <= names
    await followers.forget("2")
    await followers.close()


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
