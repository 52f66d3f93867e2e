"""Endpoints: observe, plan, act. The plan is `core.endpoint`'s; the order of what follows from it is here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, assert_never

from clary.controllers.adapters import AdapterHands
from clary.controllers.components import Components, state
from clary.controllers.desired import desired
from clary.controllers.fleet import Fleet, Surroundings
from clary.controllers.health import Ask, Prober
from clary.controllers.loop import Loop
from clary.controllers.residency import Residency
from clary.controllers.routes import Routes, key_of
from clary.core.deployment import Action, Desired, Launch, Observed, Plan, Remove, Stop, Stopping
from clary.core.describe import ready_before
from clary.core.endpoint import plan
from clary.core.memory import attempts_of, with_attempts
from clary.core.occupancy import Occupied
from clary.core.packing import Packed, adjusted, joined
from clary.core.ports import Engine, HoldsModels, ListQuery, ResourceStore
from clary.core.resources import ENDPOINT, Resource
from clary.errors import SerializationException
from clary.telemetry import logger


@dataclass(frozen=True, slots=True)
class Grace:
    """Seconds between SIGTERM and SIGKILL."""

    replace: float = 30.0
    """Of a container that is replaced: it may end what it is doing (AWS's number)."""
    delete: float = 3.0
    """Of a container whose endpoint is deleted, or never came into service."""


class EndpointController:
    """Makes endpoints be what was asked for. Also the place to be told that something has changed."""

    def __init__(
        self,
        store: ResourceStore,
        engine: Engine,
        routes: Routes,
        grace: Grace,
        ask: Ask | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.residency: Residency | None = None
        """Is told which multi-model containers are ready; None: the engine runs none. To be set before `run`."""
        self._store = store
        self._components = Components(store, engine, clock)
        self._routes = routes
        self._grace = grace
        self._clock = clock
        self._phases: dict[str, dict[str, tuple[str, float]]] = {}
        self._loop = Loop(self._reconcile, self._keys, clock)
        around = Surroundings(clock, self._loop.notify, routes.delivered)
        self._fleet = Fleet(engine, Prober(self.container_changed, ask), around)
        holder = engine if isinstance(engine, HoldsModels) else None
        self.adapters = AdapterHands(holder, clock, self._loop.notify)
        self._log = logger("endpoints")

    async def run(self) -> None:
        """Work until cancelled. Containers run on; the first route table comes after a look at every endpoint."""
        try:
            await self._loop.run(self._open)
        finally:
            await self.adapters.close()
            await self._fleet.close()

    def _open(self) -> None:
        self._routes.open()
        if self.residency is not None:
            self.residency.open()

    def notify(self, name: str) -> None:
        """Look at this endpoint soon: it was created, changed or marked for deletion."""
        self._loop.notify(key_of(name))

    def container_changed(self, id: str) -> None:
        """Look at the endpoint of this container soon. For the engine's `on_change` and the prober."""
        key = self._fleet.endpoint_of(id)
        if key is not None:
            self._loop.notify(key)

    async def packing(self, document: Any) -> list[dict[str, object]]:
        """Tell what is on each instance of the endpoint that a document names; nothing, where it has no components.

        Raises SerializationException for a document that names none.
        """
        if not isinstance(document, dict) or not isinstance(name := document.get("EndpointName"), str):
            raise SerializationException("This does not name an endpoint.")
        return [each.to_json() for each in await self._occupancy(name)]

    async def occupancies(self) -> list[tuple[str, Occupied]]:
        """Give the instances that components share, each with its endpoint."""
        packed = [name for name, route in self._routes.table.endpoints.items() if route.components is not None]
        return [(name, instance) for name in packed for instance in await self._occupancy(name)]

    async def _occupancy(self, name: str) -> list[Occupied]:
        resource = await self._store.get(ENDPOINT, name)
        if resource is None or not (wanted := desired(resource)).packed:
            return []
        return await self._components.occupancy(resource, wanted, await self._components.of(key_of(name)))

    async def _keys(self) -> set[str]:
        # Containers and routes without an endpoint are found here: the former are stopped, the latter go.
        keys = await self._fleet.endpoints() | self._routes.keys() | await self._components.endpoints()
        after = None
        while True:
            page = await self._store.list(ENDPOINT, ListQuery(sort_by="Name", limit=100, after=after))
            keys |= {key_of(resource.name) for resource in page.resources}
            after = page.next
            if after is None:
                return keys

    async def _reconcile(self, key: str) -> float | None:
        resource = await self._store.get(ENDPOINT, key)
        if resource is None:
            await self._stop_orphans(key)
            return None
        wanted = desired(resource)
        components = await self._components.of(key) if wanted.packed else []
        decided, packed = await self._plan(key, resource, wanted, components)
        self._report(key, resource, decided)
        # What serves is routed to before it is said to be in service, and out of the routes before it is stopped.
        self._routes.put(key, decided.route)
        if self.residency is not None:
            self.residency.put(key, decided.model_hosts)
        if self._routes.is_open and _comes_into_service(resource, decided, components, packed):
            await self._routes.delivered()
        written = await self._write(resource, decided.status)
        if not written or (packed is not None and not await self._components.write(components, packed)):
            self._loop.notify(key)  # something was changed or deleted meanwhile: decide again, act then
            return None
        for action in decided.actions:
            await self._act(key, resource, action)
        for work in (work for each in (packed.tended if packed else ()) for work in each.works):
            self.adapters.do(key, work)
        return decided.wake_at

    async def _plan(
        self, key: str, resource: Resource, wanted: Desired, components: Sequence[Resource]
    ) -> tuple[Plan, Packed | None]:
        ready = ready_before(resource.status)
        on_trial = any(state(each.status) in ("Creating", "Updating") for each in (resource, *components))
        ready = ready.union(*(ready_before(each.status) for each in components))
        sightings = await self._fleet.sightings(key, ready, with_logs=on_trial)
        observed = Observed(resource.status, sightings, attempts_of(resource.status))
        packed = None
        if wanted.packed and not wanted.deleting:
            packed = await self._components.pack(resource, wanted, components, observed, self.adapters.seen(key))
            wanted = adjusted(wanted, packed)
        decided = plan(wanted, observed, self._clock())
        decided = replace(decided, status=with_attempts(decided.status, decided.attempts))
        return (decided, None) if packed is None else (joined(decided, packed, wanted), packed)

    async def _write(self, resource: Resource, status: Mapping[str, object]) -> bool:
        if status == resource.status:
            return True
        # LastModifiedTime moves with the status, not with what an instance is just doing.
        touch = state(status) != state(resource.status)
        return await self._store.set_status(resource, status, touch=touch)

    async def _act(self, key: str, resource: Resource, action: Action) -> None:
        match action:
            case Launch(spec):
                self._fleet.launch(spec)
            case Stop(id, grace):
                self._fleet.stop(id, grace, self._grace.delete if grace == "delete" else self._grace.replace)
            case Remove():
                await self._components.remove(await self._components.of(key))
                await self._store.remove(ENDPOINT, resource.name)
                self._forget(key)
                self._log.info("endpoint", endpoint=resource.name, phase="removed", seconds=self._age(resource))
            case _:
                assert_never(action)

    async def _stop_orphans(self, key: str) -> None:
        self._routes.put(key, None)
        if self.residency is not None:
            self.residency.put(key, ())
        for id, seen in (await self._fleet.sightings(key, (), with_logs=False)).items():
            if not isinstance(seen, Stopping):
                self._log.warning("container without an endpoint", endpoint=key, container=id, phase="stopping")
                self._fleet.stop(id, "delete", self._grace.delete)
        await self._components.remove(await self._components.of(key))
        self._forget(key)

    def _forget(self, key: str) -> None:
        self._phases.pop(key, None)
        self._fleet.forget(key)
        self.adapters.forget(key)

    def _age(self, resource: Resource) -> float:
        return round(self._clock() - resource.created_at, 3)

    def _report(self, key: str, resource: Resource, decided: Plan) -> None:
        """Log each transition, once: of the endpoint with its age, of a container with the time of its last phase."""
        status = decided.status.get("EndpointStatus")
        if status != resource.status.get("EndpointStatus"):
            reason = {"reason": decided.status["FailureReason"]} if "FailureReason" in decided.status else {}
            self._log.info("endpoint", endpoint=resource.name, phase=status, seconds=self._age(resource), **reason)
        now = self._clock()
        known = self._phases.setdefault(key, {})
        for judged in decided.judgements:
            id, phase = judged.spec.id, judged.phase
            before, since = known.get(id, ("", now))
            if phase != before:
                known[id] = (phase, now)
                fields = {"phase": phase, "seconds": round(now - since, 3), "detail": judged.message}
                self._log.info("container", endpoint=resource.name, container=id, **fields)


def _comes_into_service(
    resource: Resource, decided: Plan, components: Sequence[Resource], packed: Packed | None
) -> bool:
    """Tell whether somebody may be about to be told that something serves which did not before."""
    after = packed.statuses if packed else {}
    changes = [(resource.status, decided.status), *((each.status, after.get(each.name, {})) for each in components)]
    return any(state(was) != "InService" and state(becomes) == "InService" for was, becomes in changes)
