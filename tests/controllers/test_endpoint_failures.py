"""Endpoints that cannot come into service, and what is tried before they fail."""

from __future__ import annotations

import asyncio

from clary.core.resources import ENDPOINT
from clary.errors import LaunchFailure, Transient
from clary.testing import FakeEngine, Script, in_virtual_time, now
from tests.controllers.endpoint_world import World, endpoint


@in_virtual_time
async def test_a_container_that_keeps_exiting_fails_the_endpoint_after_three_starts() -> None:
    world = World(FakeEngine(default=Script(ready_after=None, exits_after=0.3, exit_reason="exited with 3")))
    async with world.control():
        await world.create(endpoint())
        started = now()
        resource = await world.reaches("Failed")
        assert now() - started < 5
        assert resource is not None
        reason = str(resource.status["FailureReason"])
        assert reason.startswith(
            "The primary container for production variant AllTraffic did not pass the ping health check. "
            "Please check CloudWatch logs for this endpoint."
        )
        for part in ("exited with 3", "3 starts", "img:1", "Traceback: no such model", "clary doctor ep"):
            assert part in reason
        assert "ProductionVariants" not in resource.status
        assert len(world.engine.launched) == 3
        await asyncio.sleep(1)
        assert world.engine.containers == {}


@in_virtual_time
async def test_a_container_that_keeps_exiting_fails_the_endpoint_though_control_keeps_dying() -> None:
    world = World(FakeEngine(default=Script(ready_after=None, exits_after=0.1, exit_reason="exited with 3")))
    await world.create(endpoint())
    lives = 0
    while (found := await world.store.get(ENDPOINT, "ep")) and found.status["EndpointStatus"] == "Creating":
        lives += 1
        assert lives < 30
        async with world.control():
            await asyncio.sleep(0.4)
    assert found is not None
    assert found.status["EndpointStatus"] == "Failed"
    for part in ("exited with 3 (3 starts)", "Traceback: no such model"):
        assert part in str(found.status["FailureReason"])
    assert lives > 3
    assert len(world.engine.launched) == 3


@in_virtual_time
async def test_a_container_that_never_answers_fails_the_endpoint_when_its_window_is_over() -> None:
    world = World(FakeEngine(default=Script(ready_after=None, status_before_ready=500)))
    async with world.control():
        await world.create(endpoint(ContainerStartupHealthCheckTimeoutInSeconds=60))
        started = now()
        resource = await world.reaches("Failed")
        assert 60 <= now() - started < 62
        assert resource is not None
        assert "ping answered 500" in str(resource.status["FailureReason"])
        await asyncio.sleep(1)
        assert world.engine.containers == {}


@in_virtual_time
async def test_a_launch_that_cannot_succeed_fails_the_endpoint_at_once() -> None:
    error = LaunchFailure("download", "s3://b/m.tar.gz: no such key")
    world = World(FakeEngine(default=Script(launch_takes=1, launch_error=error)))
    async with world.control():
        await world.create(endpoint())
        resource = await world.reaches("Failed")
        assert resource is not None
        reason = str(resource.status["FailureReason"])
        assert reason.startswith(
            'Failed to download model data for container "container_1" from URL: "s3://b/m.tar.gz". '
        )
        assert "no such key" in reason
        assert len(world.engine.launched) == 1


@in_virtual_time
async def test_a_transient_launch_failure_is_tried_again() -> None:
    world = World(FakeEngine(default=Script(launch_error=Transient("the registry is away"))))
    async with world.control():
        await world.create(endpoint())
        await asyncio.sleep(10)
        world.engine.default = Script()
        await world.reaches("InService")


@in_virtual_time
async def test_a_defect_in_the_engine_is_a_failure_reason_too() -> None:
    world = World(FakeEngine(default=Script(launch_error=ZeroDivisionError("oops"))))
    async with world.control():
        await world.create(endpoint())
        resource = await world.reaches("Failed")
        assert resource is not None
        assert "ZeroDivisionError: oops" in str(resource.status["FailureReason"])
