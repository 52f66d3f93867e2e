"""Models of multi-model containers: the real control plane's and gateway's side with containers made of words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from clary.controllers.model_api import Said
from clary.controllers.residency import Bounds
from clary.core.containers import ModelPrefix
from clary.core.deployment import ModelHost
from clary.core.replication import ENOUGH
from clary.core.target_model import model_id
from clary.testing import in_virtual_time, until
from tests.controllers.many_models import PREFIX, Gateway, Machine, World


@asynccontextmanager
async def running(
    containers: int = 1, *, models: int = 10, gateways: int = 1, **server: object
) -> AsyncIterator[tuple[World, list[Gateway]]]:
    """A world with containers and objects, `m0` and so on, and its control plane."""
    world = World()
    world.machine.objects |= {f"{PREFIX}m{number}" for number in range(models)}
    world.ready(*(world.machine.start(f"c{number}", **server) for number in range(containers)))
    world.begin()
    doors = [Gateway(world) for _ in range(gateways)]
    await asyncio.sleep(0.1)
    try:
        yield world, doors
    finally:
        for gateway in doors:
            await gateway.close()
        await world.end()
    assert not [wrong for each in world.machine.servers.values() for wrong in each.wrongs]


def loads(world: World) -> list[str]:
    return [name for each in world.machine.servers.values() for name in each.loads]


@in_virtual_time
async def test_a_model_is_loaded_once_for_all_who_want_it_and_then_never_again() -> None:
    async with running(gateways=2) as (world, doors):
        answers = await asyncio.gather(*(doors[n % 2].invoke("m1") for n in range(50)))
        assert set(answers) == {(200, f"{PREFIX}m1")}
        await doors[0].invoke("m1")
        assert loads(world) == [model_id("m1")]
        assert world.machine.fetches == [f"{PREFIX}m1"]


@in_virtual_time
async def test_without_memory_the_least_recently_used_goes_and_its_files_stay() -> None:
    async with running(capacity=2) as (world, [gateway]):
        for target in ("m1", "m2", "m1", "m3", "m1", "m2"):
            assert await gateway.invoke(target) == (200, PREFIX + target)
            await asyncio.sleep(2)
        assert loads(world) == [model_id(each) for each in ("m1", "m2", "m3", "m2")]
        assert len(world.machine.fetches) == 3


@in_virtual_time
async def test_a_model_that_is_answering_is_unloaded_only_afterwards() -> None:
    async with running(capacity=1, answer_takes=5.0) as (_, [gateway]):
        answers = await asyncio.gather(*(gateway.invoke(f"m{n % 3}") for n in range(6)))
        assert [said for _, said in answers] == [f"{PREFIX}m{n % 3}" for n in range(6)]


@in_virtual_time
async def test_a_model_larger_than_all_memory_is_its_own_error_and_leaves_no_zombie() -> None:
    async with running(capacity=0) as (world, [gateway]):
        assert await gateway.invoke("m1") == (507, "no memory")
        assert not world.machine.servers[20_000].models


@in_virtual_time
@pytest.mark.parametrize("capacity", [1_000, 4])
async def test_loads_that_hang_keep_nobody_from_theirs(capacity: int) -> None:
    """Neither where there is room, nor where it has to be made for them and for those that come after."""
    stuck = ("m1", "m2", "m3")
    hangs = {PREFIX + target for target in stuck}
    async with running(capacity=capacity, hangs=hangs) as (world, [gateway]):
        for target in ("m4", "m5", "m6", "m7"):
            await gateway.invoke(target)
        waiting = [asyncio.create_task(gateway.invoke(target)) for target in stuck]
        await asyncio.sleep(0.5)
        async with asyncio.timeout(30):
            assert await gateway.invoke("m8") == (200, f"{PREFIX}m8")
        assert all(status == 0 for status, _ in await asyncio.gather(*waiting)), "they end as well"
        await asyncio.sleep(1)
        assert not world.machine.servers[20_000].models.keys() & {model_id(target) for target in stuck}


@in_virtual_time
async def test_a_model_larger_than_all_memory_does_not_put_the_others_out_again_and_again() -> None:
    async with running(refuses={f"{PREFIX}m1": Said(507, "no memory")}) as (world, [gateway]):
        for _ in range(3):
            assert await gateway.invoke("m2") == (200, f"{PREFIX}m2")
            assert await gateway.invoke("m1") == (507, "no memory")
        assert loads(world) == [model_id("m2")] * 2, "it was tried with all the room that there is, once"
        world.machine.servers[20_000].refuses = {}
        assert await gateway.invoke("m1") == (200, f"{PREFIX}m1"), "where there is room it gets it"


@in_virtual_time
async def test_what_a_failed_load_leaves_is_cleared_and_a_better_one_gets_its_chance() -> None:
    async with running(refuses={f"{PREFIX}m1": Said(500, "broken")}) as (world, [gateway]):
        assert await gateway.invoke("m1") == (500, "broken")
        server = world.machine.servers[20_000]
        assert not server.models
        server.refuses = {}
        assert await gateway.invoke("m1") == (200, f"{PREFIX}m1")
        assert len(world.machine.fetches) == 2


@in_virtual_time
async def test_a_missing_object_is_said_in_the_services_words_until_it_is_there() -> None:
    async with running() as (world, [gateway]):
        status, words = await gateway.invoke("late")
        assert status == 400
        assert words.startswith("Failed to download model data(bucket: b, key: models/late)")
        world.machine.objects.add(f"{PREFIX}late")
        assert await gateway.invoke("late") == (200, f"{PREFIX}late")


@pytest.mark.parametrize("target", ["/m1", "../m1", "a/../m1", "a//m1", "./m1", "m1/", " m1", "m\x011", "m\u00fc"])
@in_virtual_time
async def test_a_key_that_leads_out_of_the_prefix_is_refused(target: str) -> None:
    async with running() as (world, [gateway]):
        assert (await gateway.invoke(target))[0] == 400
        assert not world.machine.fetches


@in_virtual_time
async def test_files_on_the_disk_are_bounded_and_a_full_disk_is_made_room_on() -> None:
    async with running(capacity=2) as (world, [gateway]):
        world.machine.room = 4
        for number in range(8):
            assert (await gateway.invoke(f"m{number}"))[0] == 200
        assert len(world.machine.files["c0"]) <= 4
    world = World(bounds=Bounds(disk=350))
    world.machine.objects |= {f"{PREFIX}m{number}" for number in range(8)}
    world.ready(world.machine.start("c0", capacity=2))
    world.begin()
    gateway = Gateway(world)
    for number in range(8):
        assert (await gateway.invoke(f"m{number}"))[0] == 200
    assert len(world.machine.files["c0"]) <= 3
    await gateway.close()
    await world.end()


@in_virtual_time
async def test_after_a_restart_of_the_control_plane_nothing_is_loaded_again() -> None:
    async with running() as (world, [gateway]):
        for number in range(5):
            await gateway.invoke(f"m{number}")
        await world.end()
        assert await gateway.invoke("m3") == (200, f"{PREFIX}m3")  # without it, too
        waiting = asyncio.create_task(gateway.invoke("m7"))
        await asyncio.sleep(5)
        assert not waiting.done()
        world.begin()
        assert await waiting == (200, f"{PREFIX}m7")
        fresh = Gateway(world)
        await asyncio.sleep(0.1)
        assert await fresh.invoke("m2") == (200, f"{PREFIX}m2")
        await fresh.close()
        assert len(loads(world)) == 6


@in_virtual_time
async def test_a_load_that_a_restart_cut_off_is_cleared_first() -> None:
    async with running(load_takes=10.0) as (world, [gateway]):
        waiting = asyncio.create_task(gateway.invoke("m1"))
        await asyncio.sleep(1)
        await world.end()
        world.begin()
        assert await waiting == (200, f"{PREFIX}m1")


@in_virtual_time
async def test_a_model_that_its_container_has_lost_is_loaded_again() -> None:
    async with running() as (world, [gateway]):
        await gateway.invoke("m1")
        world.machine.servers[20_000].models.clear()
        assert await gateway.invoke("m1") == (200, f"{PREFIX}m1")
        assert len(loads(world)) == 2


@in_virtual_time
async def test_without_caching_a_model_goes_with_its_files_as_soon_as_it_has_answered() -> None:
    async with running(answer_takes=1.0) as (world, [gateway]):
        host = world.hosts[0]
        world.ready(
            replace(host, models=ModelPrefix(PREFIX, cached=False), container=replace(host.container, started_at=1.0))
        )
        answers = await asyncio.gather(*(gateway.invoke(f"m{n % 2}") for n in range(6)))
        assert [said for _, said in answers] == [f"{PREFIX}m{n % 2}" for n in range(6)]
        await until(lambda: not world.machine.servers[20_000].models and not world.machine.files["c0"])
        assert (await gateway.invoke("m1"))[0] == 200
        assert len(loads(world)) == 3


@in_virtual_time
async def test_models_spread_over_the_instances_and_one_that_is_asked_for_much_is_on_all() -> None:
    async with running(3, models=60) as (world, [gateway]):
        for number in range(60):
            await gateway.invoke(f"m{number}")
        spread = [len(each.models) for each in world.machine.servers.values()]
        assert min(spread) >= 10
        for _ in range(20 * ENOUGH):
            await gateway.invoke("m1")
        await asyncio.sleep(5)
        assert sum(model_id("m1") in each.models for each in world.machine.servers.values()) == 3
        assert sum(model_id("m2") in each.models for each in world.machine.servers.values()) == 1


@in_virtual_time
async def test_when_an_instance_dies_its_models_are_loaded_elsewhere() -> None:
    async with running(2) as (world, [gateway]):
        for number in range(10):
            await gateway.invoke(f"m{number}")
        world.machine.kill(world.hosts[0])
        world.ready(world.hosts[1])
        await asyncio.sleep(0.1)
        for number in range(10):
            assert await gateway.invoke(f"m{number}") == (200, f"{PREFIX}m{number}")


@in_virtual_time
async def test_room_that_comes_by_itself_while_a_model_is_refused_is_used() -> None:
    """A container drops the model that took the room, and is asked again instead of being believed (seed 29)."""
    async with running(capacity=1) as (world, [gateway]):
        await gateway.invoke("m1")
        server, (host,) = world.machine.servers[20_000], world.hosts
        assert world.control is not None
        (loader,) = world.control._loaders["many"].values()
        held = loader.held()[0].key
        unload = server.unload

        async def drop_and_unload(name: str) -> Said:
            if name == model_id("m2") and model_id("m1") in server.models:
                del server.models[model_id("m1")]
                assert not await loader.holds(held, spent=False)
            return await unload(name)

        server.unload = drop_and_unload  # type: ignore[method-assign]
        assert await gateway.invoke("m2") == (200, f"{PREFIX}m2")
        assert host.container.id == "c0"


@pytest.mark.parametrize("end", [Machine.kill, Machine.stop])
@in_virtual_time
async def test_no_model_is_to_blame_for_a_container_that_does_not_listen_or_is_no_more(
    end: Callable[[Machine, ModelHost], None],
) -> None:
    async with running(2, models=11) as (world, [gateway]):
        end(world.machine, world.hosts[0])  # and its endpoint has not noticed yet
        for number in range(10):
            assert await gateway.invoke(f"m{number}") == (200, f"{PREFIX}m{number}")
        end(world.machine, world.hosts[1])
        waiting = asyncio.create_task(gateway.invoke("m10"))
        await asyncio.sleep(3)
        assert not waiting.done()
        world.ready(world.machine.start("c2"))
        assert await waiting == (200, f"{PREFIX}m10")


@in_virtual_time
async def test_the_numbers_of_loads_are_kept() -> None:
    async with running(capacity=1) as (world, [gateway]):
        await gateway.invoke("m1")
        await gateway.invoke("m2")
        assert world.control is not None
        await world.control.look()
        counts = {point.series.name: point.statistics.count for point in world.points}
        assert counts == {
            "ModelDownloadingTime": 2, "ModelLoadingTime": 2, "ModelUnloadingTime": 1, "LoadedModelCount": 1,
        }  # fmt: skip
