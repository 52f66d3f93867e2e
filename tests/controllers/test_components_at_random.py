"""Random interleavings of what users, models and machines do, on the real controller: bounds are kept at every moment,
everything comes to rest, and in the end nothing is left over.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from clary.core.containers import Container, ContainerSpec, Progress
from clary.core.placement import Compute
from clary.core.resources import INFERENCE_COMPONENT
from clary.errors import LaunchFailure, Transient, ValidationException
from clary.testing import FakeEngine, Script, virtual_runner
from tests.controllers.components import MIB, World, rolling

CPUS, MEMORY = 4.0, 8192
"""What an instance of the fake engine has."""

SIZES = ((512, 0.25), (1024, 0.5), (2048, 1.0), (4096, 2.0), (8192, 4.0), (9000, 0.25))
SCRIPTS = (
    Script(),
    Script(launch_takes=3, ready_after=2),
    Script(ready_after=40),
    Script(ready_after=None, exits_after=0.3),
    Script(launch_error=LaunchFailure("image", "no such image")),
    Script(launch_takes=1, launch_error=Transient("the registry is away")),
    Script(ready_after=1, exits_after=300),
)


@dataclass
class StrictEngine(FakeEngine):
    """Refuses, for good, to be over capacity. An image's name says what is set aside for its copies."""

    over: list[str] = field(default_factory=list)

    async def launch(self, spec: ContainerSpec, progress: Progress) -> Container:
        launched = await super().launch(spec, progress)
        taken = Compute()
        for each in self.containers.values():
            if each.instance_id == spec.instance_id:
                taken += needs_of(each.image)
        if not taken.fits(Compute(CPUS, MEMORY * MIB)):
            self.over.append(f"{taken} on {spec.instance_id}")
        return launched


def image(script: int, size: int) -> str:
    return f"img:{script}-{size}"


def needs_of(name: str) -> Compute:
    memory, cpus = SIZES[int(name.rpartition("-")[2])]
    return Compute(cpus, memory * MIB)


def specification(script: int, size: int, strategy: str) -> dict[str, Any]:
    memory, cpus = SIZES[size]
    return {
        "Container": {"Image": image(script, size)},
        "ComputeResourceRequirements": {"MinMemoryRequiredInMb": memory, "NumberOfCpuCoresRequired": cpus},
        "SchedulingConfig": {"PlacementStrategy": strategy},
    }


SPECIFICATIONS = st.builds(
    specification,
    st.integers(0, len(SCRIPTS) - 1),
    st.integers(0, len(SIZES) - 1),
    st.sampled_from(["SPREAD", "BINPACK"]),
)


ARTIFACTS = st.sampled_from(["s3://b/a.tar.gz", "s3://b/b.tar.gz", "s3://b/broken.tar.gz", "s3://b/missing.tar.gz"])


class Interleavings(RuleBasedStateMachine):
    components = Bundle("components")
    adapters = Bundle("adapters")

    def __init__(self) -> None:
        super().__init__()
        self.runner = virtual_runner()
        self.number = 0

    @initialize(count=st.integers(1, 3), managed=st.booleans())
    def start(self, count: int, managed: bool) -> None:
        self.runner.run(self._start(count, managed=managed))

    async def _start(self, count: int, *, managed: bool) -> None:
        scripts = {image(n, size): script for n, script in enumerate(SCRIPTS) for size in range(len(SIZES))}
        self.count = count
        self.engine = StrictEngine(scripts=scripts)
        self.world = World(self.engine)
        self.control = self.world.control()
        await self.control.__aenter__()
        scaling = {"Status": "ENABLED", "MinInstanceCount": 1, "MaxInstanceCount": count}
        more = {"ManagedInstanceScaling": scaling} if managed else {"InitialInstanceCount": count}
        await self.world.host(**more)

    def call(self, operation: str, **members: Any) -> None:
        """Ask for something; a refusal is an answer too."""
        try:
            self.runner.run(self.world.call(operation, **members))
        except ValidationException as refused:
            words = (
                "Cannot update",
                "DELETE_IN_PROGRESS",
                "Could not find",
                "must be InService",
                "is a base inference",
            )
            assert any(each in refused.message for each in words), refused.message

    @rule(target=components, wanted=SPECIFICATIONS, copies=st.integers(1, 5))
    def create(self, wanted: dict[str, Any], copies: int) -> str:
        self.number += 1
        name = f"c{self.number}"
        self.call(
            "CreateInferenceComponent",
            InferenceComponentName=name,
            EndpointName="ep",
            Specification=wanted,
            RuntimeConfig={"CopyCount": copies},
        )
        return name

    @rule(name=components, copies=st.integers(0, 5))
    def scale(self, name: str, copies: int) -> None:
        runtime = {"CopyCount": copies}
        self.call("UpdateInferenceComponentRuntimeConfig", InferenceComponentName=name, DesiredRuntimeConfig=runtime)

    @rule(
        name=components,
        wanted=SPECIFICATIONS,
        copies=st.none() | st.integers(0, 4),
        policy=st.none() | st.builds(rolling, st.integers(1, 3), st.sampled_from([0, 30])),
    )
    def update(self, name: str, wanted: dict[str, Any], copies: int | None, policy: dict[str, Any] | None) -> None:
        more: dict[str, Any] = {} if copies is None else {"RuntimeConfig": {"CopyCount": copies}}
        if policy is not None:
            more["DeploymentConfig"] = policy
        self.call("UpdateInferenceComponent", InferenceComponentName=name, Specification=wanted, **more)

    @rule(name=consumes(components))
    def delete(self, name: str) -> None:
        self.call("DeleteInferenceComponent", InferenceComponentName=name)

    @rule(target=adapters, base=components, url=ARTIFACTS)
    def adapt(self, base: str, url: str) -> tuple[str, str]:
        self.number += 1
        name = f"c{self.number}"
        self.call(
            "CreateInferenceComponent",
            InferenceComponentName=name,
            EndpointName="ep",
            Specification={"BaseInferenceComponentName": base, "Container": {"ArtifactUrl": url}},
        )
        return name, base

    @rule(adapter=adapters, url=ARTIFACTS)
    def update_adapter(self, adapter: tuple[str, str], url: str) -> None:
        wanted = {"BaseInferenceComponentName": adapter[1], "Container": {"ArtifactUrl": url}}
        self.call("UpdateInferenceComponent", InferenceComponentName=adapter[0], Specification=wanted)

    @rule(adapter=consumes(adapters))
    def delete_adapter(self, adapter: tuple[str, str]) -> None:
        self.call("DeleteInferenceComponent", InferenceComponentName=adapter[0])

    @rule(which=st.integers(0, 30))
    def crash(self, which: int) -> None:
        self.runner.run(self._crash(which))

    async def _crash(self, which: int) -> None:
        running = [each for each in self.engine.containers.values() if each.phase == "running"]
        if running:
            self.engine.crash(running[which % len(running)].id)

    @rule(seconds=st.sampled_from([0.0, 0.05, 1.0, 5.0, 60.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.runner.run(asyncio.sleep(seconds))

    @rule()
    def kill_the_control_plane(self) -> None:
        self.runner.run(self._next_life())

    async def _next_life(self) -> None:
        await self.control.__aexit__(None, None, None)
        self.control = self.world.control()
        await self.control.__aenter__()

    @invariant()
    def no_instance_was_ever_over_capacity(self) -> None:
        assert self.engine.over == []

    @invariant()
    def only_what_runs_is_routed_to(self) -> None:
        route = self.world.routes.table.endpoints.get("ep")
        for component in (route.components or {}).values() if route else ():
            for target in component.variants[0].targets:
                if component.adapter:
                    container = self.engine.containers.get(target.id)
                    there = self.world.adapters.loaded
                    if container is not None and (container.id, container.started_at) in there:
                        assert component.adapter in there[container.id, container.started_at]
                else:
                    assert self.world.spec(target.id).component == component.component

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.runner.run(self._wind_down())
        finally:
            self.runner.run(self.control.__aexit__(None, None, None))
            self.runner.close()

    async def _wind_down(self) -> None:
        world, engine = self.world, self.engine
        names = [f"c{n}" for n in range(1, self.number + 1)]
        there = [name for name in names if await world.store.get(INFERENCE_COMPONENT, name) is not None]
        for name in there:
            async with asyncio.timeout(36_000):
                while (await self._status(name)) in ("Creating", "Updating", "Deleting"):  # noqa: ASYNC110
                    await asyncio.sleep(1)
        # What is at rest has what was asked for, as far as it can run and there is room for it.
        engine.scripts.clear()
        await asyncio.sleep(1000)
        for name in there:
            if await self._status(name) == "InService":
                described = await world.describe(name)
                runtime = described["RuntimeConfig"]
                if "BaseInferenceComponentName" in described["Specification"]:
                    base = described["Specification"]["BaseInferenceComponentName"]
                    assert len(world.speaks(name)) == len(world.targets(base)), name
                    continue
                assert runtime["CurrentCopyCount"] == len(world.targets(name)), name
                if runtime["CurrentCopyCount"] < runtime["DesiredCopyCount"]:
                    needs = described["Specification"]["ComputeResourceRequirements"]
                    self._has_no_room(Compute(needs["NumberOfCpuCoresRequired"], needs["MinMemoryRequiredInMb"] * MIB))
        for name in sorted(there, key=lambda name: int(name[1:]), reverse=True):  # adapters come after their bases
            if await self._status(name) is not None:
                await world.call("DeleteInferenceComponent", InferenceComponentName=name)
        await world.call("DeleteEndpoint", EndpointName="ep")
        await asyncio.sleep(100)
        assert engine.containers == {}
        assert world.routes.table.endpoints == {}
        assert await world.endpoint() is None
        assert [name for name in names if await world.store.get(INFERENCE_COMPONENT, name) is not None] == []
        assert engine.over == []

    def _has_no_room(self, needs: Compute) -> None:
        running = self.world.running()
        assert len(running) >= self.count or not needs.fits(Compute(CPUS, MEMORY * MIB)), "an instance is empty"
        for specs in running.values():
            taken = Compute()
            for spec in specs:
                taken += needs_of(spec.image)
            assert not needs.fits(Compute(CPUS, MEMORY * MIB) - taken), "there is room"

    async def _status(self, name: str) -> str | None:
        resource = await self.world.store.get(INFERENCE_COMPONENT, name)
        return None if resource is None else str(resource.status["InferenceComponentStatus"])


Interleavings.TestCase.settings = settings(max_examples=10, stateful_step_count=30, deadline=None)
TestInterleavings = Interleavings.TestCase
