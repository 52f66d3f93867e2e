"""Random interleavings of requests, evictions, deletions and deaths on both sides of the protocol of models.

Whatever happens: no request is answered by another model than it named, none waits for ever, no model is loaded that is
loaded already or unloaded under a request, and the bounds of memory and disk hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from clary.controllers.residency import WAIT, Bounds
from clary.core.containers import ModelPrefix
from clary.testing import virtual_runner
from tests.controllers.many_models import PREFIX, Gateway, World

MODELS = st.sampled_from([f"m{number}" for number in range(6)])
DISK = 400
"""Bytes: the files of four models."""


Request = tuple[str, Gateway, asyncio.Task[tuple[int, str]]]
"""The model that is wanted, whom it was asked of, and the answer."""


class ManyModels(RuleBasedStateMachine):
    """Requests go on in the background from rule to rule; at the end all of them must have had an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = virtual_runner()
        self.requests: list[Request] = []
        self.dropped = self.killed = False

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize(containers=st.integers(1, 3), capacity=st.integers(1, 3), cached=st.booleans())
    def begin(self, containers: int, capacity: int, cached: bool) -> None:
        async def begin() -> None:
            self.world = World(bounds=Bounds(disk=DISK, loads_at_once=2))
            self.capacity, self.cached = capacity, cached
            self.world.machine.objects |= {f"{PREFIX}m{number}" for number in range(6)}
            self.world.ready(*[self.container(f"c{number}") for number in range(containers)])
            self.world.begin()
            self.gateways = [Gateway(self.world), Gateway(self.world)]
            await asyncio.sleep(0.1)

        self.do(begin())

    def container(self, id: str) -> Any:
        host = self.world.machine.start(id, capacity=self.capacity, load_takes=0.3, answer_takes=0.2)
        return replace(host, models=ModelPrefix(PREFIX, self.cached))

    @rule(model=MODELS, gateway=st.integers(0, 1), number=st.integers(1, 4))
    def invoke(self, model: str, gateway: int, number: int) -> None:
        async def begin() -> None:
            for _ in range(number):
                door = self.gateways[gateway]
                self.requests.append((model, door, asyncio.create_task(door.invoke(model))))

        self.do(begin())

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.05, 0.1, 0.5, 2.0, 15.0]))
    def wait(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    @rule(model=MODELS, there=st.booleans())
    def change_object(self, model: str, there: bool) -> None:
        (self.world.machine.objects.add if there else self.world.machine.objects.discard)(f"{PREFIX}{model}")

    @rule(model=MODELS, number=st.integers(0, 2))
    def forget(self, model: str, number: int) -> None:
        """A container drops a model by itself."""
        self.dropped = True
        hosts = self.world.hosts
        server = self.world.machine.servers[hosts[number % len(hosts)].container.port]
        for name, source in list(server.models.items()):
            if source == f"{PREFIX}{model}" and not server.under_way[name]:
                del server.models[name]

    @rule(number=st.integers(0, 2))
    def kill_container(self, number: int) -> None:
        """A container dies, with its disk, and another takes its place a moment later."""
        self.dropped = self.dropped or self.world.control is None  # what it had has gone, and nobody was told

        async def die_and_return() -> None:
            hosts = self.world.hosts
            killed = hosts[number % len(hosts)]
            self.world.machine.kill(killed)
            await asyncio.sleep(0.05)
            self.world.ready(*[each for each in hosts if each is not killed])
            await asyncio.sleep(0.2)
            fresh = self.container(killed.container.id)
            self.world.ready(*[fresh if each is killed else each for each in hosts])

        self.do(die_and_return())

    @rule()
    def kill_control(self) -> None:
        self.killed = True
        self.do(self.world.end())

    @precondition(lambda self: self.world.control is None)
    @rule()
    def start_control(self) -> None:
        async def start() -> None:
            self.world.begin()

        self.do(start())

    @rule(number=st.integers(0, 1))
    def kill_gateway(self, number: int) -> None:
        """A gateway dies, and what it had under way with it."""

        async def kill() -> None:
            gone = self.gateways[number]
            await gone.close()
            doomed = [task for _, gateway, task in self.requests if gateway is gone]
            for task in doomed:
                task.cancel()
            await asyncio.gather(*doomed, return_exceptions=True)
            self.requests = [each for each in self.requests if each[1] is not gone]
            self.gateways[number] = Gateway(self.world)

        self.do(kill())

    @invariant()
    def bounds_hold(self) -> None:
        if not hasattr(self, "world"):
            return
        for host in self.world.hosts:
            server = self.world.machine.servers[host.container.port]
            assert sum(source is not None for source in server.models.values()) <= self.capacity
            assert not server.wrongs
        for id, files in self.world.machine.files.items():
            # One more for each load that may be under way: the newest is kept anyway.
            assert len(files) * 100 <= DISK + 100 * (2 * 2 + self.capacity), id

    @invariant()
    def answers_are_right(self) -> None:
        self.check([each for each in self.requests if each[2].done()])

    def check(self, requests: list[Request]) -> None:
        for model, _, task in requests:
            status, said = task.result()
            if (status, said) == (404, "not loaded") and self.dropped and self.killed:
                continue  # both at once: nobody was there who could be asked whether the model says so
            assert status in (200, 400, 503, 0), (status, said)  # 0: its container died under it
            if status == 200:
                assert said == f"{PREFIX}{model}"
            if status == 400:
                assert "Failed to download" in said
            if status == 503:
                assert "cannot be loaded now" in said

    def teardown(self) -> None:
        async def end() -> None:
            if self.world.control is None:
                self.world.begin()
            tasks = [task for *_, task in self.requests]
            if tasks:
                _, lost = await asyncio.wait(tasks, timeout=20 * WAIT)
                assert not lost, "a request waits for ever"
            self.check(self.requests)
            for gateway in self.gateways:
                await gateway.close()
            await self.world.end()

        try:
            if hasattr(self, "world"):
                self.do(end())
        finally:
            self.runner.close()


ManyModels.TestCase.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
test_whatever_happens = ManyModels.TestCase
