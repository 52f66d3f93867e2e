"""Endpoints come into service, are repaired, adopted and deleted."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from clary.core.deployment import Answer
from clary.core.resources import ENDPOINT, Kind, Resource
from clary.errors import LaunchFailure
from clary.testing import FakeEngine, Script, in_virtual_time, now, until
from tests.controllers.endpoint_world import World, endpoint


@in_virtual_time
async def test_an_endpoint_comes_into_service_and_is_routed_to() -> None:
    world = World(FakeEngine(default=Script(launch_takes=2, ready_after=1)))
    async with world.control():
        await world.create(endpoint(count=2))
        started = now()
        resource = await world.reaches("InService")
        assert now() - started < 5
        assert resource is not None
        (summary,) = resource.status["ProductionVariants"]
        assert summary["CurrentInstanceCount"] == summary["DesiredInstanceCount"] == 2
        assert summary["CurrentWeight"] == summary["DesiredWeight"] == 1.0
        assert summary["DeployedImages"][0]["SpecifiedImage"] == "img:1"
        assert summary["DeployedImages"][0]["ResolvedImage"] == "img:1@sha256:0"
        assert "VariantStatus" not in summary
        assert {hop.id for target in world.targets() for hop in target.hops} == set(world.engine.containers)


@in_virtual_time
async def test_creating_shows_no_production_variants_but_what_is_going_on() -> None:
    world = World(FakeEngine(default=Script(launch_takes=5)))
    async with world.control():
        await world.create(endpoint())
        await asyncio.sleep(2)
        resource = await world.store.get(ENDPOINT, "ep")
        assert resource is not None
        assert resource.status["EndpointStatus"] == "Creating"
        assert "ProductionVariants" not in resource.status
        (pending,) = resource.status["PendingDeploymentSummary"]["ProductionVariants"]
        assert "download 1 of 2 MB" in pending["VariantStatus"][0]["StatusMessage"]
        assert world.routes.table.endpoints["ep"].status == "Creating"
        assert world.targets() == ()


@in_virtual_time
async def test_a_crash_in_service_is_repaired_and_the_endpoint_stays_in_service() -> None:
    world = World()
    async with world.control():
        await world.create(endpoint())
        before = await world.reaches("InService")
        (id,) = world.engine.containers
        world.engine.crash(id)
        await until(lambda: world.targets() == ())
        await until(lambda: len(world.targets()) == 1, timeout=5)
        after = await world.reaches("InService")
        assert [spec.id for spec in world.engine.launched] == [id, id]
        assert before is not None
        assert after is not None
        assert after.modified_at == before.modified_at


@in_virtual_time
async def test_a_container_that_always_crashes_after_service_never_fails_the_endpoint() -> None:
    world = World()
    async with world.control():
        await world.create(endpoint())
        await world.reaches("InService")
        world.engine.default = Script(ready_after=None, exits_after=0.1)
        world.engine.crash(next(iter(world.engine.containers)))
        await asyncio.sleep(600)
        resource = await world.reaches("InService")
        assert resource is not None
        (summary,) = resource.status["ProductionVariants"]
        assert summary["CurrentInstanceCount"] == 0
        assert summary["VariantStatus"][0]["Status"] == "Updating"
        assert 10 < len(world.engine.launched) < 20
        world.engine.default = Script()
        await until(lambda: len(world.targets()) == 1)


@in_virtual_time
async def test_three_bad_pings_replace_a_container() -> None:
    world = World()
    async with world.control():
        await world.create(endpoint())
        await world.reaches("InService")
        (id,) = world.engine.containers
        world.engine.silent.add(id)
        silent_at = now()
        await until(lambda: world.engine.stopped == [(id, 30.0)])
        assert 10 < now() - silent_at < 30
        assert world.targets() == ()
        await until(lambda: len(world.targets()) == 1)


@in_virtual_time
async def test_deletion_takes_it_out_of_the_routes_before_it_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    async with world.control():
        await world.create(endpoint(count=2))
        await world.reaches("InService")
        seen: list[int] = []
        stop = world.engine.stop

        async def watched(id: str, grace: float) -> None:
            seen.append(len(world.targets()))
            await stop(id, grace)

        monkeypatch.setattr(world.engine, "stop", watched)
        await world.delete()
        await world.reaches(None)
        assert seen == [0, 0]
        assert {grace for _, grace in world.engine.stopped} == {3.0}
        assert world.engine.containers == {}
        assert world.routes.table.endpoints == {}


@in_virtual_time
async def test_deletion_works_while_launches_are_running_and_the_name_is_free_again() -> None:
    world = World(FakeEngine(default=Script(launch_takes=1000)))
    async with world.control():
        await world.create(endpoint())
        await asyncio.sleep(5)
        first = world.engine.launched[0].id
        await world.delete()
        started = now()
        await world.reaches(None)
        assert now() - started < 3
        world.engine.default = Script()
        await world.create(endpoint())
        await world.reaches("InService")
        assert first not in world.engine.containers
        assert len(world.engine.containers) == 1


@in_virtual_time
async def test_a_failed_endpoint_can_be_deleted() -> None:
    world = World(FakeEngine(default=Script(launch_error=LaunchFailure("image", "unknown image"))))
    async with world.control():
        await world.create(endpoint())
        await world.reaches("Failed")
        await world.delete()
        await world.reaches(None)


@in_virtual_time
async def test_what_runs_is_adopted_after_a_restart_and_is_in_the_first_table() -> None:
    world = World()
    async with world.control():
        for number in range(5):
            await world.create(endpoint(f"ep{number}"))
        for number in range(5):
            await world.reaches("InService", f"ep{number}")
    running = dict(world.engine.containers)
    world.engine.silent = set(running)  # not one answer is there yet when the first table goes out
    async with world.control():
        table = await anext(world.routes.subscribe())
        for container in running.values():
            assert container.id.encode() in table
        assert len(world.engine.launched) == 5
        assert len(world.routes.table.endpoints) == 5
        world.engine.silent.clear()
        await asyncio.sleep(120)
        assert world.engine.stopped == []
        assert world.engine.containers == running


@in_virtual_time
async def test_no_table_goes_out_while_an_endpoint_cannot_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    async with world.control():
        await world.create(endpoint())
        await world.reaches("InService")
    get = world.store.get

    async def broken(kind: object, name: str) -> Resource | None:
        raise OSError("disk")

    monkeypatch.setattr(world.store, "get", broken)
    async with world.control():
        await asyncio.sleep(2)
        assert not world.routes.is_open
        monkeypatch.setattr(world.store, "get", get)
        table = await anext(world.routes.subscribe())
        assert next(iter(world.engine.containers)).encode() in table


@in_virtual_time
async def test_an_endpoint_that_cannot_be_looked_at_for_long_keeps_its_routes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(file=tmp_path / "routes.json")
    async with world.control():
        for name in ("good", "bad", "gone"):
            await world.create(endpoint(name))
        for name in ("good", "bad", "gone"):
            await world.reaches("InService", name)
    get = world.store.get

    async def broken(kind: Kind, name: str) -> Resource | None:
        if name == "bad":
            raise OSError("disk")
        return await get(kind, name)

    monkeypatch.setattr(world.store, "get", broken)
    await world.store.remove(ENDPOINT, "gone")
    async with world.control():
        await asyncio.sleep(30)
        assert world.routes.is_open
        assert len(world.targets("good")) == len(world.targets("bad")) == 1
        await until(lambda: set(world.routes.table.endpoints) == {"good", "bad"})


@in_virtual_time
async def test_one_that_died_while_control_was_away_is_not_routed_to() -> None:
    world = World()
    async with world.control():
        await world.create(endpoint(count=2))
        await world.reaches("InService")
    dead, alive = world.engine.containers
    world.engine.crash(dead)
    async with world.control():
        table = await anext(world.routes.subscribe())
        assert alive.encode() in table
        assert dead.encode() not in table
        await until(lambda: len(world.targets()) == 2)


@in_virtual_time
async def test_containers_without_an_endpoint_or_of_another_deployment_are_stopped() -> None:
    world = World()
    async with world.control():
        await world.create(endpoint())
        await world.reaches("InService")
    (container,) = world.engine.containers.values()
    orphan = replace(container, id="orphan", endpoint="gone")
    stray = replace(container, id="stray", deployment="older")
    world.engine.containers |= {"orphan": orphan, "stray": stray}
    async with world.control():
        await until(lambda: set(world.engine.containers) == {container.id}, timeout=5)
        assert len(world.targets()) == 1


@in_virtual_time
async def test_names_that_differ_in_case_are_one_endpoint() -> None:
    world = World()
    async with world.control() as controller:
        await world.create(endpoint("Ep-One"))
        await world.reaches("InService", "Ep-One")
        controller.notify("EP-ONE")
        await asyncio.sleep(60)
        assert len(world.engine.launched) == 1
        assert world.engine.stopped == []
        assert set(world.routes.table.endpoints) == {"Ep-One"}


@in_virtual_time
async def test_an_endpoint_that_cannot_be_translated_fails_and_disturbs_nobody() -> None:
    world = World()
    async with world.control():
        await world.create(replace(endpoint("odd"), spec={"EndpointConfigName": "cfg", "_Deployment": "nonsense"}))
        await world.create(endpoint("good"))
        await world.reaches("InService", "good")
        resource = await world.reaches("Failed", "odd")
        assert resource is not None
        assert "does not understand" in str(resource.status["FailureReason"])


@in_virtual_time
async def test_a_stop_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    async with world.control():
        await world.create(endpoint())
        await world.reaches("InService")
        stop, calls = world.engine.stop, []

        async def flaky(id: str, grace: float) -> None:
            calls.append(now())
            if len(calls) < 3:
                raise OSError("no")
            await stop(id, grace)

        monkeypatch.setattr(world.engine, "stop", flaky)
        await world.delete()
        await world.reaches(None)
        assert [round(b - a) for a, b in pairwise(calls)] == [1, 1]


@in_virtual_time
async def test_what_is_being_stopped_is_not_pinged(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    async with world.control() as controller:
        await world.create(endpoint())
        await world.reaches("InService")
        asked: list[float] = []

        async def slow_stop(id: str, grace: float) -> None:
            await asyncio.sleep(1)  # a ping or two may be under way
            asked.clear()
            controller.notify("ep")
            await asyncio.sleep(grace)
            del world.engine.containers[id]

        async def ping(host: str, port: int) -> tuple[Answer, int]:
            asked.append(now())
            return "ok", 200

        monkeypatch.setattr(world.engine, "stop", slow_stop)
        monkeypatch.setattr(world.engine, "ping", ping)
        await world.delete()
        await world.reaches(None)
        assert asked == []


@in_virtual_time
async def test_a_deletion_in_the_middle_of_a_look_is_seen_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    get = world.store.get

    async def get_then_delete(kind: Kind, name: str) -> Resource | None:
        resource = await get(kind, name)
        if resource is not None and not resource.deleting:
            await world.store.mark_deleting(kind, name, {"EndpointStatus": "Deleting"})
        return resource

    async with world.control():
        monkeypatch.setattr(world.store, "get", get_then_delete)
        await world.create(endpoint())
        await asyncio.sleep(1)
        assert world.engine.launched == []
        assert await get(ENDPOINT, "ep") is None


@in_virtual_time
async def test_shutting_down_leaves_containers_running_and_cancels_launches() -> None:
    world = World()
    async with world.control():
        await world.create(endpoint("done"))
        await world.reaches("InService", "done")
        world.engine.default = Script(launch_takes=1000)
        await world.create(endpoint("half"))
        await asyncio.sleep(1)
    assert len(world.engine.containers) == 1
    assert len(asyncio.all_tasks()) == 1
    assert world.engine.stopped == []


@pytest.mark.parametrize("when", [0.0, 0.05, 0.5, 1.5, 2.0, 2.2, 4.0])
@in_virtual_time
async def test_a_restart_at_any_moment_of_creation_ends_in_service(when: float) -> None:
    world = World(FakeEngine(default=Script(launch_takes=1, ready_after=1)))
    async with world.control():
        await world.create(endpoint(count=2))
        await asyncio.sleep(when)
    async with world.control():
        await world.reaches("InService")
        await until(lambda: len(world.targets()) == 2)
        assert len(world.engine.containers) == 2
