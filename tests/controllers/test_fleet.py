from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from clary.controllers.fleet import Fleet, Surroundings
from clary.controllers.health import Prober
from clary.core.containers import ContainerSpec
from clary.core.deployment import LaunchFailed, Launching, Present, Stopping
from clary.errors import Transient
from clary.testing import FakeEngine, Script, in_virtual_time, now

SPEC = ContainerSpec("c", "Ep", "v", "i-1", "img:1", deployment="d")


@asynccontextmanager
async def fleet_of(engine: FakeEngine, notified: list[str] | None = None) -> AsyncIterator[Fleet]:
    async def at_once() -> None:
        """No gateway to wait for."""

    told = notified if notified is not None else []
    fleet = Fleet(engine, Prober(lambda _: None, engine.ping), Surroundings(now, told.append, at_once))
    try:
        yield fleet
    finally:
        await fleet.close()
        assert len(asyncio.all_tasks()) == 1, "nothing is left running"


@in_virtual_time
async def test_a_launch_is_seen_with_its_progress_and_then_as_a_container() -> None:
    notified: list[str] = []
    async with fleet_of(FakeEngine(default=Script(launch_takes=5)), notified) as fleet:
        start = now()
        fleet.launch(SPEC)
        fleet.launch(SPEC)
        await asyncio.sleep(1)
        assert await fleet.sightings("ep", (), with_logs=True) == {"c": Launching(start, "download 1 of 2 MB")}
        await asyncio.sleep(5)
        (seen,) = (await fleet.sightings("ep", (), with_logs=True)).values()
        assert isinstance(seen, Present)
        assert seen.log == ("starting", "Traceback: no such model")
        assert notified == ["ep", "ep"]
        assert await fleet.sightings("other", (), with_logs=True) == {}


@in_virtual_time
async def test_of_a_container_that_nobody_hears_is_told_where_it_listens() -> None:
    async with fleet_of(FakeEngine(default=Script(ready_after=9, listens=("127.0.0.1:8081",)))) as fleet:
        fleet.launch(SPEC)
        await asyncio.sleep(1)
        for with_logs in (False, True):
            await fleet.sightings("ep", (), with_logs=with_logs)
            await asyncio.sleep(1)
            (seen,) = (await fleet.sightings("ep", (), with_logs=with_logs)).values()
            assert isinstance(seen, Present)
            assert seen.words == "port never opened" + " (it listens on 127.0.0.1:8081)" * with_logs
        await asyncio.sleep(10)
        (seen,) = (await fleet.sightings("ep", (), with_logs=True)).values()
        assert isinstance(seen, Present)
        assert (seen.words, seen.listens) == ("ping answered 200", ())


@in_virtual_time
async def test_a_launch_that_is_stopped_at_once_leaves_no_trace() -> None:
    engine = FakeEngine()
    async with fleet_of(engine) as fleet:
        fleet.launch(SPEC)
        fleet.stop("c", "delete", 3.0)
        await asyncio.sleep(1)
        assert await fleet.sightings("ep", (), with_logs=False) == {}
        assert engine.containers == {}


@in_virtual_time
async def test_a_shorter_grace_takes_the_place_of_a_longer_one() -> None:
    engine = FakeEngine()
    async with fleet_of(engine) as fleet:
        fleet.launch(SPEC)
        await asyncio.sleep(1)

        async def stop(id: str, grace: float) -> None:
            await asyncio.sleep(grace)
            del engine.containers[id]

        engine.stop = stop
        fleet.stop("c", "replace", 30.0)
        await asyncio.sleep(1)
        assert await fleet.sightings("ep", (), with_logs=False) == {"c": Stopping("replace")}
        fleet.stop("c", "delete", 3.0)
        assert await fleet.sightings("ep", (), with_logs=False) == {"c": Stopping("delete")}
        await asyncio.sleep(4)
        assert await fleet.sightings("ep", (), with_logs=False) == {}


@in_virtual_time
async def test_a_stop_that_hangs_is_given_up_to_be_planned_again() -> None:
    engine = FakeEngine()
    async with fleet_of(engine) as fleet:
        fleet.launch(SPEC)
        await asyncio.sleep(1)

        async def hang(id: str, grace: float) -> None:
            await asyncio.sleep(1e6)

        engine.stop = hang
        fleet.stop("c", "delete", 3.0)
        await asyncio.sleep(40)
        (seen,) = (await fleet.sightings("ep", (), with_logs=False)).values()
        assert isinstance(seen, Present)


@in_virtual_time
async def test_a_failed_launch_is_seen_until_the_next_one() -> None:
    engine = FakeEngine(default=Script(launch_error=Transient("away")))
    async with fleet_of(engine) as fleet:
        fleet.launch(SPEC)
        await asyncio.sleep(1)
        assert await fleet.sightings("ep", (), with_logs=False) == {
            "c": LaunchFailed(now() - 1, "launch", "away", transient=True)
        }
        engine.default = Script()
        fleet.launch(SPEC)
        await asyncio.sleep(1)
        (seen,) = (await fleet.sightings("ep", (), with_logs=False)).values()
        assert isinstance(seen, Present)


@in_virtual_time
async def test_a_log_that_cannot_be_read_is_no_obstacle() -> None:
    engine = FakeEngine()
    async with fleet_of(engine) as fleet:
        fleet.launch(SPEC)
        await asyncio.sleep(1)

        async def broken(id: str, lines: int) -> list[str]:
            raise OSError("disk")

        engine.logs = broken
        (seen,) = (await fleet.sightings("ep", (), with_logs=True)).values()
        assert isinstance(seen, Present)
        assert seen.log == ()
