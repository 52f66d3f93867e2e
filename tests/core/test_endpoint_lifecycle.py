"""The endpoint planner: any order of events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from clary.core.containers import ContainerSpec
from clary.core.deployment import (
    Desired,
    Launch,
    LaunchFailed,
    Launching,
    Observed,
    Ping,
    Plan,
    Present,
    Remove,
    Sighting,
    Stop,
    Stopping,
)
from clary.core.endpoint import plan
from clary.core.memory import attempts_of, with_attempts
from tests.core.endpoints import ARN, CREATING, OK, T0, container, specs, variant

NEXT = {
    None: {"Creating", "Failed", "InService"},
    "Creating": {"Creating", "InService", "Failed", "Deleting", None},
    "InService": {"InService", "Deleting", None},
    "Failed": {"Failed", "Deleting", None},
    "Deleting": {"Deleting", None},
}
"""The status machine (api-semantics 4.2), without updates. None: there is no such endpoint."""


class Lifecycle(RuleBasedStateMachine):
    """One name, an engine that can do anything to it, and a control plane that forgets."""

    @initialize()
    def begin(self) -> None:
        self.now = T0
        self.wanted: Desired | None = None
        self.status: Mapping[str, object] = {}
        self.seen: dict[str, Sighting] = {}
        self.made: Plan | None = None
        self.half_stopped: dict[str, Present] = {}
        self.history: list[object] = [None]

    def settle(self) -> None:
        for _ in range(10):
            if self.wanted is None:
                return
            observed = Observed(self.status, dict(self.seen), attempts_of(self.status))
            self.made = plan(self.wanted, observed, self.now)
            self.status = json.loads(json.dumps(with_attempts(self.made.status, self.made.attempts)))
            self.note(self.status["EndpointStatus"])
            if not self.made.actions:
                return
            self.act(self.made)
        raise AssertionError(f"does not converge: {self.made}")

    def act(self, made: Plan) -> None:
        for action in made.actions:
            match action:
                case Launch(spec):
                    assert not isinstance(self.seen.get(spec.id), (Launching, Present, Stopping)), "launched twice"
                    self.seen[spec.id] = Launching(self.now)
                case Stop(id, grace):
                    if isinstance(it := self.seen[id], Present):
                        self.half_stopped[id] = it
                    self.seen[id] = Stopping(grace)
                case Remove():
                    assert all(isinstance(it, LaunchFailed) for it in self.seen.values()), "removed, but not stopped"
                    self.wanted, self.seen = None, {}
                    self.note(None)

    def note(self, status: object) -> None:
        assert status in NEXT[self.history[-1]], f"{self.history[-1]} -> {status}"
        self.history.append(status)

    def spec(self, id: str) -> ContainerSpec:
        assert self.wanted is not None
        return next(spec for spec in specs(self.wanted) if spec.id == id)

    def some(self, kind: type, pick: int) -> str | None:
        ids = [id for id, it in self.seen.items() if isinstance(it, kind)]
        return ids[pick % len(ids)] if ids else None

    @precondition(lambda self: self.wanted is None)
    @rule(blue=st.integers(1, 2), green=st.integers(0, 2))
    def create(self, blue: int, green: int) -> None:
        self.now += 0.001
        variants = (variant("blue", count=blue), *((variant("green", count=green),) if green else ()))
        self.wanted = Desired("ep", ARN, "cfg", self.now, "d1", variants)
        self.status = CREATING
        self.settle()

    @precondition(lambda self: self.wanted is not None)
    @rule()
    def delete(self) -> None:
        assert self.wanted is not None
        self.wanted = replace(self.wanted, deleting=True)
        self.settle()

    @rule(pick=st.integers(0, 9))
    def launch_ends(self, pick: int) -> None:
        if (id := self.some(Launching, pick)) is not None:
            self.seen[id] = Present(container(self.spec(id), self.now))
            self.settle()

    @rule(pick=st.integers(0, 9), transient=st.booleans())
    def launch_fails(self, pick: int, transient: bool) -> None:
        if (id := self.some(Launching, pick)) is not None:
            self.seen[id] = LaunchFailed(self.now, "create", "no", transient)
            self.settle()

    @rule(pick=st.integers(0, 9))
    def stop_ends(self, pick: int) -> None:
        if (id := self.some(Stopping, pick)) is not None:
            del self.seen[id]
            self.half_stopped.pop(id, None)
            self.settle()

    @rule(pick=st.integers(0, 9))
    def container_exits(self, pick: int) -> None:
        id = self.some(Present, pick)
        it = self.seen[id] if id is not None else None
        if id is not None and isinstance(it, Present):
            gone = replace(it.container, phase="exited", exit_reason="exited with 1", exited_at=self.now)
            self.seen[id] = Present(gone)
            self.settle()

    @rule(pick=st.integers(0, 9), good=st.booleans(), failures=st.integers(1, 5))
    def ping(self, pick: int, good: bool, failures: int) -> None:
        id = self.some(Present, pick)
        if id is not None:
            self.seen[id] = replace(self.seen[id], ping=OK if good else Ping("status", 500, failures))
            self.settle()

    @rule(seconds=st.sampled_from([0.1, 0.6, 2.0, 30.0, 301.0, 500.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    @rule(stops_had_ended=st.booleans())
    def control_restarts(self, stops_had_ended: bool) -> None:
        """Memory is lost, launches with it; containers, and those half stopped, are what the engine finds."""
        for id, it in list(self.seen.items()):
            if isinstance(it, Stopping) and not stops_had_ended and id in self.half_stopped:
                it = self.half_stopped[id]
            if isinstance(it, Present):
                self.seen[id] = replace(it, ping=None)
            else:
                del self.seen[id]
        self.settle()

    @invariant()
    def routes_hold_only_what_is_ready(self) -> None:
        if self.made is None or self.made.route is None:
            return
        for routed in self.made.route.variants:
            for hop in (hop for target in routed.targets for hop in target.hops):
                it = self.seen[hop.id]
                assert isinstance(it, Present)
                assert it.container.phase == "running"
                assert it.ping is None or it.ping.failures < 3
                assert it.ping is None or it.ping.answer == "ok" or hop.id in self.status["_Ready"]

    @invariant()
    def a_gone_endpoint_leaves_nothing(self) -> None:
        if self.wanted is None:
            assert self.seen == {}

    @invariant()
    def someone_will_look_again(self) -> None:
        """Whatever is not ready is waited for: by a task's end, or by the clock."""
        if self.wanted is None or self.made is None or self.status["EndpointStatus"] in ("Failed", "Deleting"):
            return
        for judged in self.made.judgements:
            pending = isinstance(self.seen.get(judged.spec.id), (Launching, Stopping))
            assert pending or judged.ready or judged.wake_at is not None

    def teardown(self) -> None:
        """From anywhere: a kind world ends in InService (unless it is Failed), and a deletion ends in nothing."""
        if not hasattr(self, "wanted") or self.wanted is None:
            return
        for _ in range(30):
            for id, it in list(self.seen.items()):
                if isinstance(it, Launching):
                    self.seen[id] = Present(container(self.spec(id), self.now), OK)
                elif isinstance(it, Stopping):
                    del self.seen[id]
                elif isinstance(it, Present) and it.container.phase == "running":
                    self.seen[id] = replace(it, ping=OK)
            self.now += 5
            self.settle()
        if self.wanted is None:
            return
        if not self.wanted.deleting:
            assert self.status["EndpointStatus"] in ("InService", "Failed")
            if self.status["EndpointStatus"] == "InService":
                assert len(self.status["_Ready"]) == len(specs(self.wanted))
        self.delete()
        while self.seen:
            self.stop_ends(0)
            self.settle()
            if self.wanted is None:
                break
        assert self.wanted is None


TestLifecycle = Lifecycle.TestCase


TestLifecycle.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
