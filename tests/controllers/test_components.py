"""Inference components under the real controller, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from clary.core.containers import Network
from clary.errors import LaunchFailure, ValidationException
from clary.testing import FakeEngine, Script, in_virtual_time, now, until
from tests.controllers.components import ROLE, World, rolling

DEAD = Script(ready_after=None, exits_after=0.3)


@in_virtual_time
async def test_a_component_comes_into_service_on_an_instance_of_the_endpoint() -> None:
    world = World(FakeEngine(default=Script(launch_takes=2, ready_after=1)))
    async with world.control():
        await world.host(InitialInstanceCount=2)
        await world.add(copies=2)
        assert (await world.describe())["InferenceComponentStatus"] == "Creating"
        described = await world.rests()
        assert described["RuntimeConfig"] == {"DesiredCopyCount": 2, "CurrentCopyCount": 2}
        assert described["Specification"]["Container"]["DeployedImage"]["ResolvedImage"] == "img:1@sha256:0"
        assert len(world.running()) == 2, "copies are spread over instances"
        assert {target.id for target in world.targets()} == set(world.engine.containers)
        route = world.routes.table.endpoints["ep"]
        assert set(route.instances) == set(world.running())


@in_virtual_time
async def test_copies_are_packed_where_they_are_asked_to_be() -> None:
    world = World()
    async with world.control():
        await world.host(InitialInstanceCount=3)
        await world.add(copies=3, SchedulingConfig={"PlacementStrategy": "BINPACK"})
        await world.rests()
        assert [len(each) for each in world.running().values()] == [3]


@in_virtual_time
async def test_a_copy_gets_its_share_of_the_instance() -> None:
    world = World()
    async with world.control():
        await world.host()
        limits = {"MinMemoryRequiredInMb": 1024, "MaxMemoryRequiredInMb": 2048, "NumberOfCpuCoresRequired": 0.5}
        await world.add(ComputeResourceRequirements=limits)
        await world.rests()
        (spec,) = world.engine.launched
        assert spec.share is not None
        assert (spec.share.cpus, spec.share.memory) == (0.5, 2048 * 1024 * 1024)
        assert spec.log_group == "/aws/sagemaker/InferenceComponents/c"
        assert spec.log_stream == f"v/{spec.instance_id}/{spec.id}"


@in_virtual_time
async def test_a_model_that_asks_for_isolation_has_it_wherever_it_is_put() -> None:
    """Its configuration can isolate all of an endpoint's components, and cannot open a model that is not to be."""
    world = World()
    async with world.control():
        await world.host()
        await world.call(
            "CreateModel",
            ModelName="shut",
            PrimaryContainer={"Image": "img:1"},
            ExecutionRoleArn=ROLE,
            EnableNetworkIsolation=True,
            VpcConfig={"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
        )
        requirements = {"MinMemoryRequiredInMb": 1024}
        await world.call(
            "CreateInferenceComponent",
            InferenceComponentName="c",
            EndpointName="ep",
            Specification={"ModelName": "shut", "ComputeResourceRequirements": requirements},
            RuntimeConfig={"CopyCount": 1},
        )
        await world.rests()
        (spec,) = world.engine.launched
        assert spec.network == Network(True, ("subnet-1",), ("sg-1",))


@in_virtual_time
async def test_each_copy_has_accelerators_of_its_own() -> None:
    world = World()  # whose instances have two
    async with world.control():
        await world.host()
        wanted = {"MinMemoryRequiredInMb": 1024, "NumberOfAcceleratorDevicesRequired": 1}
        await world.add(copies=2, ComputeResourceRequirements=wanted)
        await world.rests()
        shares = [spec.share for spec in world.engine.launched]
        assert sorted(share.devices for share in shares if share is not None) == [(0,), (1,)]
        await world.scale(3)
        assert (await world.rests())["FailureReason"].startswith("There is not enough hardware")
        await world.scale(1)
        await world.rests()
        await until(lambda: len(world.engine.containers) == 1)
        ((kept,),) = world.running().values()
        await world.scale(2)
        await world.rests()
        other = world.engine.launched[-1]
        assert kept.share is not None and other.share is not None
        assert {*kept.share.devices, *other.share.devices} == {0, 1}


@in_virtual_time
async def test_a_component_without_room_fails_in_the_services_words_and_leaves_nothing() -> None:
    world = World()
    async with world.control():
        await world.host()
        await world.add(copies=3, memory=3000)
        described = await world.rests(status="Failed")
        assert described["FailureReason"].startswith("There is not enough hardware resources on the instances")
        await asyncio.sleep(60)
        assert world.engine.containers == {}
        with pytest.raises(ValidationException, match="Failed, so it can only be deleted"):
            await world.scale(1)
        await world.call("DeleteInferenceComponent", InferenceComponentName="c")
        await world.rests(status=None)


@in_virtual_time
async def test_a_component_whose_copies_keep_exiting_fails_and_says_why() -> None:
    world = World(FakeEngine(default=DEAD))
    async with world.control():
        await world.host()
        await world.add()
        described = await world.rests(status="Failed")
        assert "exited with 3 (3 starts)" in described["FailureReason"]
        assert "Traceback: no such model" in described["FailureReason"]
        await until(lambda: not world.engine.containers)


@in_virtual_time
async def test_a_component_that_cannot_be_launched_fails_at_once() -> None:
    world = World(FakeEngine(default=Script(launch_error=LaunchFailure("image", "no such image"))))
    async with world.control():
        await world.host()
        await world.add()
        assert "image: no such image" in (await world.rests(status="Failed"))["FailureReason"]


@in_virtual_time
async def test_copies_go_to_zero_and_come_back() -> None:
    world = World()
    async with world.control():
        await world.host()
        await world.add(copies=2)
        await world.rests()
        await world.scale(0)
        assert (await world.describe())["InferenceComponentStatus"] == "Updating"
        described = await world.rests()
        assert described["RuntimeConfig"] == {"DesiredCopyCount": 0, "CurrentCopyCount": 0}
        await until(lambda: not world.engine.containers)
        route = world.route()
        assert route is not None
        assert (route.status, route.copies, world.targets()) == ("InService", 0, ())
        await world.scale(1)
        await world.rests()
        assert len(world.targets()) == 1


@in_virtual_time
async def test_scaling_up_restarts_nothing_and_scaling_down_keeps_what_serves() -> None:
    world = World()
    async with world.control():
        await world.host(InitialInstanceCount=2)
        await world.add(copies=2)
        await world.rests()
        before = set(world.engine.containers)
        await world.scale(4)
        await world.rests()
        assert before < set(world.engine.containers)
        assert [len(each) for each in world.running().values()] == [2, 2]
        dead, *_ = world.engine.containers
        world.engine.scripts["c"] = Script(ready_after=None)
        world.engine.crash(dead)
        await until(lambda: len(world.targets()) == 3)
        await world.scale(3)
        await world.rests()
        assert dead not in {target.id for target in world.targets()}
        assert len(world.targets()) == 3


@in_virtual_time
async def test_more_copies_than_fit_run_as_far_as_they_do_and_the_rest_when_there_is_room() -> None:
    world = World()
    async with world.control():
        await world.host()
        await world.add("other", memory=3000)
        await world.add(memory=3000)
        await world.rests("other")
        await world.rests()
        await world.scale(2)
        described = await world.rests()
        assert described["FailureReason"].startswith("There is not enough hardware")
        assert described["RuntimeConfig"] == {"DesiredCopyCount": 2, "CurrentCopyCount": 1}
        await world.call("DeleteInferenceComponent", InferenceComponentName="other")
        await until(lambda: len(world.targets()) == 2)


@in_virtual_time
async def test_an_update_replaces_copies_in_batches_and_never_has_fewer_that_serve() -> None:
    world = World(FakeEngine(default=Script(ready_after=5)))
    async with world.control():
        await world.host()
        await world.add(copies=4)
        await world.rests()
        await world.update(DeploymentConfig=rolling(1, wait=60))
        seen, began = set(), now()
        while (described := await world.describe())["InferenceComponentStatus"] == "Updating":
            assert len(world.targets()) >= 4
            assert described["Specification"]["Container"]["DeployedImage"]["SpecifiedImage"] == "img:1"
            seen.add(world.images()["img:2"])
            assert world.images()["img:1"] + world.images()["img:2"] <= 6, "four, one that comes, one that goes"
            await asyncio.sleep(0.5)
        assert seen == {0, 1, 2, 3, 4}
        assert now() - began >= 4 * 60
        assert described["InferenceComponentStatus"] == "InService"
        assert described["Specification"]["Container"]["DeployedImage"]["SpecifiedImage"] == "img:2"
        assert described["LastDeploymentConfig"] == rolling(1, wait=60)
        await until(lambda: world.images() == {"img:2": 4})


@in_virtual_time
async def test_an_update_makes_do_with_the_room_that_there_is() -> None:
    world = World()
    async with world.control():
        await world.host()
        await world.add(copies=3, memory=2000)
        await world.rests()
        await world.update(memory=2000)
        while (await world.describe())["InferenceComponentStatus"] == "Updating":
            assert len(world.engine.containers) <= 4
            assert len(world.targets()) >= 3
            await asyncio.sleep(0.1)
        assert "FailureReason" not in await world.rests()
        await until(lambda: world.images() == {"img:2": 3})


@in_virtual_time
async def test_an_update_without_room_for_one_copy_is_rolled_back_and_nothing_was_touched() -> None:
    world = World()
    async with world.control():
        await world.host()
        await world.add(copies=2, memory=4096)
        await world.rests()
        before = dict(world.engine.containers)
        await world.update(memory=4096)
        described = await world.rests()
        assert described["FailureReason"].startswith("There is not enough hardware")
        assert world.engine.containers == before
        assert described["Specification"]["Container"]["DeployedImage"]["SpecifiedImage"] == "img:1"
        await world.scale(1)
        described = await world.rests()
        assert "FailureReason" not in described
        await world.update(memory=4096)
        assert "FailureReason" not in await world.rests()
        await until(lambda: world.images() == {"img:2": 1})


@in_virtual_time
async def test_an_update_that_fails_midway_is_rolled_back_while_everything_serves() -> None:
    world = World(FakeEngine(default=Script(ready_after=5)))
    async with world.control():
        await world.host()
        await world.add(copies=3)
        await world.rests()
        await world.update(DeploymentConfig=rolling(1))
        await until(lambda: world.images()["img:2"] >= 1 and len(world.targets()) >= 3)
        world.engine.scripts["img:2"] = DEAD
        least = 9
        while (await world.describe())["InferenceComponentStatus"] == "Updating":
            least = min(least, len(world.targets()))
            await asyncio.sleep(0.05)
        described = await world.rests()
        assert "The update was rolled back" in described["FailureReason"]
        assert "exited with 3" in described["FailureReason"]
        assert least >= 3
        assert described["Specification"]["Container"]["DeployedImage"]["SpecifiedImage"] == "img:1"
        assert described["RuntimeConfig"] == {"DesiredCopyCount": 3, "CurrentCopyCount": 3}
        await until(lambda: world.images() == {"img:1": 3})


@in_virtual_time
async def test_an_update_that_takes_too_long_is_rolled_back() -> None:
    world = World(FakeEngine(scripts={"img:2": Script(ready_after=None)}))
    async with world.control():
        await world.host()
        await world.add()
        await world.rests()
        policy = rolling(1, MaximumExecutionTimeoutInSeconds=600)
        specification = {"ContainerStartupHealthCheckTimeoutInSeconds": 3600}
        wanted = (await world.describe())["Specification"]
        wanted = {
            "Container": {"Image": "img:2"},
            "StartupParameters": specification,
            "ComputeResourceRequirements": wanted["ComputeResourceRequirements"],
        }
        began = now()
        await world.call(
            "UpdateInferenceComponent", InferenceComponentName="c", Specification=wanted, DeploymentConfig=policy
        )
        described = await world.rests()
        assert 600 <= now() - began < 700
        assert "took longer than 600 s" in described["FailureReason"]
        await until(lambda: world.images() == {"img:1": 1})


@in_virtual_time
async def test_an_update_to_other_requirements_and_another_number_of_copies() -> None:
    world = World()
    async with world.control():
        await world.host(InitialInstanceCount=2)
        await world.add(copies=4)
        await world.rests()
        await world.update(memory=4000, RuntimeConfig={"CopyCount": 2})
        described = await world.rests()
        assert described["RuntimeConfig"] == {"DesiredCopyCount": 2, "CurrentCopyCount": 2}
        assert described["Specification"]["ComputeResourceRequirements"] == {"MinMemoryRequiredInMb": 4000}
        await until(lambda: world.images() == {"img:2": 2})


@in_virtual_time
async def test_a_component_in_the_middle_of_something_is_not_updated_but_deleted() -> None:
    world = World(FakeEngine(default=Script(ready_after=30)))
    async with world.control():
        await world.host()
        await world.add()
        for change in (world.scale(2), world.update()):
            with pytest.raises(ValidationException, match="Cannot update in-progress inference component"):
                await change
        await world.call("DeleteInferenceComponent", InferenceComponentName="c")
        with pytest.raises(ValidationException, match="DELETE_IN_PROGRESS"):
            await world.call("DeleteInferenceComponent", InferenceComponentName="c")
        await world.rests(status=None)
        assert world.engine.containers == {}
        with pytest.raises(ValidationException, match="Could not find inference component"):
            await world.describe()


@in_virtual_time
async def test_a_copy_that_dies_is_restarted_where_it_was_and_the_others_serve() -> None:
    world = World()
    async with world.control():
        await world.host(InitialInstanceCount=2)
        await world.add(copies=2)
        await world.rests()
        dead, other = world.engine.containers
        place = world.engine.containers[dead].instance_id
        world.engine.crash(dead)
        await until(lambda: [target.id for target in world.targets()] == [other])
        await until(lambda: len(world.targets()) == 2)
        assert world.engine.containers[dead].instance_id == place
        assert (await world.describe())["InferenceComponentStatus"] == "InService"


@in_virtual_time
async def test_instances_are_added_for_copies_and_go_when_they_are_empty() -> None:
    world = World()
    scaling = {"Status": "ENABLED", "MinInstanceCount": 1, "MaxInstanceCount": 3}
    async with world.control():
        await world.host(ManagedInstanceScaling=scaling)
        await world.add(copies=3, memory=5000)
        described = await world.rests()
        assert described["RuntimeConfig"]["CurrentCopyCount"] == 3
        assert len(world.running()) == 3

        async def counts() -> tuple[int, int]:
            (variant,) = (await world.call("DescribeEndpoint", EndpointName="ep"))["ProductionVariants"]
            return variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]

        assert await counts() == (3, 3)
        await world.scale(4)
        assert (await world.rests())["FailureReason"].startswith("There is not enough hardware")
        await world.scale(0)
        await world.rests()
        await asyncio.sleep(40)
        assert await counts() == (1, 1)


@in_virtual_time
async def test_an_endpoint_is_deleted_with_the_components_that_are_being_deleted() -> None:
    world = World()
    async with world.control():
        await world.host()
        await world.add("one")
        await world.add("two")
        await world.rests("one")
        await world.rests("two")
        with pytest.raises(ValidationException, match="delete its inference components first: one, two"):
            await world.call("DeleteEndpoint", EndpointName="ep")
        for name in ("one", "two"):
            await world.call("DeleteInferenceComponent", InferenceComponentName=name)
        await world.call("DeleteEndpoint", EndpointName="ep")
        async with asyncio.timeout(600):
            while await world.endpoint() is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await world.rests("one", None)
        await world.rests("two", None)
        assert world.engine.containers == {}
        assert world.routes.table.endpoints == {}


@in_virtual_time
async def test_components_are_adopted_by_the_next_life_of_the_control_plane() -> None:
    world = World()
    async with world.control():
        await world.host(InitialInstanceCount=2)
        await world.add(copies=3)
        await world.rests()
    before = dict(world.engine.containers)
    async with world.control():
        await until(lambda: len(world.targets()) == 3)
        await asyncio.sleep(120)
        assert world.engine.containers == before
        assert world.engine.stopped == []


@in_virtual_time
async def test_an_update_goes_on_in_the_next_life_of_the_control_plane() -> None:
    world = World(FakeEngine(default=Script(ready_after=20)))
    async with world.control():
        await world.host()
        await world.add(copies=3)
        await world.rests()
        await world.update(DeploymentConfig=rolling(1, wait=10))
        await until(lambda: world.images()["img:2"] == 2)
    async with world.control():
        await until(lambda: len(world.targets()) >= 3)
        assert "FailureReason" not in await world.rests()
        await until(lambda: world.images() == {"img:2": 3})


@in_virtual_time
async def test_what_the_api_cannot_have_a_component_on_is_refused_in_its_words() -> None:
    world = World()
    async with world.control():
        with pytest.raises(ValidationException, match='Could not find endpoint "arn:aws'):
            await world.add()
        await world.host()
        await world.add()
        with pytest.raises(ValidationException, match="Cannot create already existing inference component"):
            await world.add()
        with pytest.raises(ValidationException, match="copy count an integer larger than 0"):
            await world.add("d", copies=0)
