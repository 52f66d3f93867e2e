"""Whose containers are whose on a real Docker, and what becomes of them while nobody looks."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clary.core.containers import ModelData, Network
from clary.engines.context import EngineContext
from clary.engines.docker.engine import DockerEngine
from clary.errors import Transient
from tests.containers import docker, needs_docker
from tests.engines.conftest import MakeSpec, pack
from tests.engines.docker.conftest import ask, end, exited, inspect, quiet, until

pytestmark = [needs_docker, pytest.mark.usefixtures("nothing_is_left")]

MakeContext = Callable[..., EngineContext]


async def test_what_ended_while_nobody_looked_is_found_ended(make_context: MakeContext, make_spec: MakeSpec) -> None:
    engine = DockerEngine(make_context())
    spec = make_spec()
    container = await engine.launch(spec, quiet)
    await ask(container, do="describe")
    await engine.close()
    await asyncio.gather(ask(container, do="leave", code=4), return_exceptions=True)
    engine = DockerEngine(make_context())
    ended = await exited(engine, spec.id)
    assert ended.exit_reason == "exited with 4"
    assert ended.started_at == container.started_at
    await end(engine)


async def test_what_was_made_and_never_started_is_removed_by_the_next_look(
    engine: DockerEngine, make_spec: MakeSpec
) -> None:
    spec = make_spec()
    await engine.launch(spec, quiet)
    told = inspect(spec.id)["Config"]["Labels"]
    words = _words({**told, "clary.id": "orphan"})
    docker("create", "--name", engine._name("orphan"), *words, spec.image)
    assert {each.id for each in await engine.observe()} == {spec.id}
    assert not docker("ps", "-a", "-q", "--filter", f"name={engine._name('orphan')}")


@pytest.fixture
def stranger() -> Iterator[str]:
    """Give a name for a container that the test makes itself."""
    name = f"clary-test-stranger-{uuid.uuid4().hex[:8]}"
    yield name
    if docker("ps", "-a", "-q", "--filter", f"name={name}"):
        docker("rm", "-f", "-v", name)


async def test_a_container_that_only_has_the_labels_is_nobody(
    engine: DockerEngine, make_spec: MakeSpec, stranger: str
) -> None:
    spec = make_spec()
    await engine.launch(spec, quiet)
    told = inspect(spec.id)["Config"]["Labels"]  # as `docker commit` keeps them
    docker("run", "-d", "--name", stranger, *_words(told), spec.image)
    seen = [{each.id for each in await engine.observe()} for _ in range(5)]
    assert seen == [{spec.id}] * 5
    assert len([task for task in asyncio.all_tasks() if task.get_name() == f"log of {spec.id}"]) == 1
    await engine.stop(spec.id, 0)
    assert not await engine.observe()
    assert docker("ps", "-q", "--filter", f"name={stranger}"), "it is somebody's"


@pytest.mark.parametrize("named", [False, True])
async def test_labels_that_are_not_whole_stop_nobody(
    make_context: MakeContext, make_spec: MakeSpec, stranger: str, named: bool
) -> None:
    engine = DockerEngine(make_context())
    spec = make_spec()
    await engine.launch(spec, quiet)
    evil = make_spec(id="evil")
    name = engine._name("evil") if named else stranger
    docker("run", "-d", "--name", name, *_words({"clary.owner": engine._owner, "clary.id": "evil"}), spec.image)
    assert {each.id for each in await engine.observe()} == {spec.id}
    await engine.close()
    engine = DockerEngine(make_context())
    assert {each.id for each in await engine.observe()} == {spec.id}
    await engine.launch(evil, quiet)
    assert {each.id for each in await engine.observe()} == {spec.id, "evil"}
    await end(engine)


def _words(labels: dict[str, str]) -> list[str]:
    words = [word for name, value in labels.items() for word in ("--label", f"{name}={value}")]
    return ["--network", "none", "--env", "SAGEMAKER_BIND_TO_PORT=8080", *words]


async def test_a_look_lets_a_launch_that_is_under_way_alone(engine: DockerEngine, make_spec: MakeSpec) -> None:
    specs = [make_spec() for _ in range(3)]
    launches = asyncio.gather(*(engine.launch(spec, quiet) for spec in specs))
    while not launches.done():
        await engine.observe()
    assert {each.id for each in await launches} == {spec.id for spec in specs}
    assert {each.phase for each in await engine.observe()} == {"running"}


async def test_a_container_in_the_way_of_another_is_no_reason_to_give_up(
    engine: DockerEngine, make_spec: MakeSpec
) -> None:
    spec = make_spec()
    await engine.observe()
    other = docker("create", "--name", engine._name(spec.id), spec.image)
    engine._find = _nothing  # type: ignore[method-assign]  # as where it comes, or goes, between the look and the launch
    with pytest.raises(Transient, match="already in use"):
        await engine.launch(spec, quiet)
    assert not docker("ps", "-a", "-q", "--no-trunc", "--filter", f"id={other}")


async def _nothing(*_: object) -> None:
    return None


async def test_a_container_that_is_removed_behind_our_back_is_no_longer_seen_and_that_is_told(
    make_context: MakeContext, make_spec: MakeSpec
) -> None:
    told: list[str] = []
    engine = DockerEngine(make_context(on_change=told.append))
    spec = make_spec()
    await engine.launch(spec, quiet)
    docker("rm", "-f", inspect(spec.id)["Id"])

    async def noticed() -> bool:
        return spec.id in told and not await engine.observe()

    await until(noticed)
    assert (await engine.launch(spec, quiet)).phase == "running"
    await end(engine)


async def test_of_a_container_that_vanished_nothing_is_kept(
    engine: DockerEngine, make_spec: MakeSpec, tmp_path: Path
) -> None:
    data = ModelData(pack(tmp_path / "models" / "m.tar.gz", {"a": b"1"}))
    spec = make_spec(model_data=(data,), network=Network(isolated=True))
    await engine.launch(spec, quiet)
    docker("rm", "-f", engine._name(spec.id))

    async def noticed() -> bool:
        return not await engine.observe()

    await until(noticed)
    assert not list((engine._root / "relays").iterdir())
    assert not engine._artifacts._held


async def test_a_restart_behind_our_back_is_another_run(engine: DockerEngine, make_spec: MakeSpec) -> None:
    spec = make_spec()
    first = await engine.launch(spec, quiet)
    docker("restart", "-t", "0", inspect(spec.id)["Id"])

    async def seen() -> bool:
        return any(each.started_at > first.started_at for each in await engine.observe())

    await until(seen)


async def test_two_data_folders_do_not_see_each_other(
    make_context: MakeContext, make_spec: MakeSpec, tmp_path: Path
) -> None:
    one, other = (DockerEngine(make_context(data=tmp_path / name, logs=tmp_path / name / "logs")) for name in "ab")
    spec = make_spec()
    first, second = await one.launch(spec, quiet), await other.launch(spec, quiet)
    assert first.pid != second.pid
    await other.stop(spec.id, 0)
    assert [each.pid for each in await one.observe()] == [first.pid]
    await end(one)
    await end(other)


# -- networks ---------------------------------------------------------------------------------------------------------
