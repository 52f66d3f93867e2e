"""Adapters under the real controller, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

from clary.testing import FakeEngine, Script, in_virtual_time, now, until
from tests.controllers.components import World, rolling


def adapter(url: str) -> dict[str, Any]:
    return {"BaseInferenceComponentName": "c", "Container": {"ArtifactUrl": url}}


async def based(world: World, copies: int = 2) -> None:
    await world.host(InitialInstanceCount=2)
    await world.add(copies=copies)
    await world.rests()


@in_virtual_time
async def test_an_adapter_is_in_service_once_every_copy_of_its_base_has_it() -> None:
    world = World()
    async with world.control():
        await based(world)
        await world.adapt()
        assert (await world.describe("a"))["InferenceComponentStatus"] == "Creating"
        described = await world.rests("a")
        assert described["RuntimeConfig"] == {"DesiredCopyCount": 2, "CurrentCopyCount": 2}
        assert world.speaks() == {target.id for target in world.targets()}
        assert len(world.engine.launched) == 2, "it has no container of its own"


@in_virtual_time
async def test_new_copies_and_copies_that_were_restarted_get_it_too() -> None:
    world = World()
    async with world.control():
        await based(world)
        await world.adapt()
        await world.rests("a")
        await world.scale(3)
        await until(lambda: len(world.speaks()) == 3)
        dead, *_ = world.engine.containers
        world.engine.crash(dead)
        await until(lambda: len(world.speaks()) == 2)
        await until(lambda: len(world.speaks()) == 3)


@in_virtual_time
async def test_one_that_no_container_takes_fails_and_says_what_it_was_told() -> None:
    world = World()
    async with world.control():
        await based(world)
        await world.adapt("a", "s3://b/broken.tar.gz")
        await world.adapt("b", "s3://b/missing.tar.gz")
        assert "The container answered 400" in (await world.rests("a", "Failed"))["FailureReason"]
        assert "no such key: s3://b/missing" in (await world.rests("b", "Failed"))["FailureReason"]
        assert not any(world.adapters.files.values())
        for name in ("a", "b"):
            await world.call("DeleteInferenceComponent", InferenceComponentName=name)
            await world.rests(name, None)


@in_virtual_time
async def test_an_update_loads_the_new_one_beside_the_old_and_a_failure_leaves_the_old() -> None:
    world = World()
    async with world.control():
        await based(world)
        await world.adapt()
        await world.rests("a")
        first = world.route("a")
        assert first is not None
        for url, worked in (("s3://b/broken.tar.gz", False), ("s3://b/new.tar.gz", True)):
            await world.call("UpdateInferenceComponent", InferenceComponentName="a", Specification=adapter(url))
            while (await world.describe("a"))["InferenceComponentStatus"] == "Updating":
                assert len(world.speaks()) == 2
                await asyncio.sleep(0.05)
            described = await world.rests("a")
            after = world.route("a")
            assert after is not None
            assert (after.adapter != first.adapter) == worked
            assert ("FailureReason" in described) != worked
            shown = described["Specification"]["Container"]["ArtifactUrl"]
            assert shown == (url if worked else "s3://b/a.tar.gz")
        await until(lambda: all(len(names) == 1 for names in world.adapters.loaded.values()))
        assert all(len(names) == 1 for names in world.adapters.files.values())


@in_virtual_time
async def test_an_update_of_the_base_never_leaves_the_adapter_without_a_copy() -> None:
    world = World(FakeEngine(default=Script(ready_after=3)))
    async with world.control():
        await based(world)
        await world.adapt()
        await world.rests("a")
        await world.update(DeploymentConfig=rolling(1))
        while (await world.describe())["InferenceComponentStatus"] == "Updating":
            assert len(world.speaks()) >= 2
            await asyncio.sleep(0.05)
        assert "FailureReason" not in await world.rests()
        assert len(world.speaks()) == 2


@in_virtual_time
async def test_a_deleted_adapter_is_unloaded_and_the_base_stays() -> None:
    world = World()
    async with world.control():
        await based(world)
        await world.adapt()
        await world.rests("a")
        await world.call("DeleteInferenceComponent", InferenceComponentName="a")
        await world.rests("a", None)
        assert not any(world.adapters.loaded.values())
        assert not any(world.adapters.files.values())
        assert world.route("a") is None
        assert len(world.targets()) == 2


@in_virtual_time
async def test_the_next_life_of_the_control_plane_knows_what_is_loaded_and_goes_on() -> None:
    world = World()
    async with world.control():
        await based(world)
        await world.adapt()
        await world.rests("a")
        world.adapters.takes = 5
        await world.adapt("b")
        await asyncio.sleep(7)  # one of its loads was acknowledged by a container, and nobody has written it down
    before = {place: set(names) for place, names in world.adapters.loaded.items()}
    async with world.control():
        await until(lambda: len(world.speaks("a")) == 2)
        await world.rests("b")
        assert len(world.speaks("b")) == 2
        for place, names in before.items():
            assert names <= world.adapters.loaded[place]


@in_virtual_time
async def test_an_adapter_of_a_base_without_copies_serves_when_there_are_some() -> None:
    world = World()
    async with world.control():
        await based(world)
        await world.scale(0)
        await world.rests()
        await world.adapt()
        began = now()
        described = await world.rests("a")
        assert now() - began < 1
        assert described["RuntimeConfig"] == {"DesiredCopyCount": 0, "CurrentCopyCount": 0}
        route = world.route("a")
        assert route is not None
        assert route.copies == 0
        await world.scale(1)
        await until(lambda: len(world.speaks()) == 1)


@in_virtual_time
async def test_one_that_came_into_service_unloaded_fails_when_the_first_copy_cannot_load_it() -> None:
    world = World()
    async with world.control():
        await based(world)
        await world.scale(0)
        await world.rests()
        await world.adapt(url="s3://b/missing.tar.gz")
        await world.rests("a")
        await world.scale(1)
        await world.rests()
        await until(lambda: len(world.targets()) == 1)
        await asyncio.sleep(1)
        assert "no such key: s3://b/missing" in (await world.rests("a", "Failed"))["FailureReason"]


@in_virtual_time
async def test_one_whose_base_has_no_copy_that_is_ready_is_given_up() -> None:
    world = World()
    async with world.control():
        await based(world)
        world.engine.default = Script(ready_after=None)
        for id in list(world.engine.containers):
            world.engine.crash(id)
        await until(lambda: not world.targets())
        await world.adapt()
        began = now()
        described = await world.rests("a", "Failed")
        assert described["FailureReason"].startswith("No copy of the base component was ready within 300 s.")
        assert 300 <= now() - began < 310
