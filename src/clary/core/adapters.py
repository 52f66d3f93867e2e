"""What to do next for an adapter: a component that has no copies of its own, but is loaded into those of its base.

A pure function again. An adapter is wanted on every copy of its base that is ready; requests for it go where it is
loaded. What a container was told last is remembered with the run of the container: a copy that was started anew has
nothing loaded. Each revision has an identifier of its own, so an update loads the new one beside the old.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from clary.core.component import Adapter, Component, Memory
from clary.core.containers import Container
from clary.core.failure import LONGEST, shorten
from clary.core.routing import EndpointRoute

RETRY = 10.0
"""Seconds before what failed is tried again, where trying again may help."""
PATIENCE = 300.0
"""Seconds for which that is done for an adapter that never served, and for which a copy of its base is waited for."""


@dataclass(frozen=True, slots=True)
class Load:
    """Load a revision into a container."""

    container: Container
    identifier: str
    adapter: Adapter


@dataclass(frozen=True, slots=True)
class Unload:
    """Unload a revision from a container, and remove its files."""

    container: Container
    identifier: str


@dataclass(frozen=True, slots=True)
class LoadSeen:
    """How the last thing goes that was to be done with a revision in a container. Times since the epoch."""

    run: float
    """When the container was started to which it was done."""
    state: Literal["loading", "loaded", "failed", "unloading", "unloaded"]
    at: float
    words: str = ""
    final: bool = False
    """It would fail again."""


Loads = Mapping[tuple[str, str], LoadSeen]
"""By container and identifier."""


@dataclass(frozen=True, slots=True)
class Tended:
    """What to say of an adapter and to do about it."""

    component: Component
    status: Mapping[str, object]
    """Empty: it is nowhere any more, and its record can go."""
    works: tuple[Load | Unload, ...] = ()
    route: EndpointRoute | None = None
    wake_at: float | None = None


def identifier(component: Component, revision: int) -> str:
    """Give what containers call a revision of an adapter; safe as a file name."""
    seed = f"{component.arn}\n{component.created_at:.6f}\n{revision}"
    return f"{component.name[:40]}-{hashlib.sha256(seed.encode()).hexdigest()[:8]}"


def loaded_on(component: Component, copies: Sequence[Container], loads: Loads) -> set[tuple[str, str]]:
    """Give the containers, of those there are, and the identifiers that they have loaded."""
    runs = {box.id: box.started_at for box in copies}
    written = cast("Sequence[tuple[str, float, str]]", component.status.get("_Loaded", ()))
    known = {(id, name) for id, run, name in written if runs.get(id) == run}
    names = {identifier(component, number) for number in component.adapters} | {name for _, _, name in written}
    for (id, name), seen in loads.items():
        if name in names and runs.get(id) == seen.run:
            if seen.state == "loaded":
                known.add((id, name))
            elif seen.state == "unloaded":
                known.discard((id, name))
    return known


def furnished(adapters: Sequence[Component], loads: Loads, copies: Sequence[Container]) -> set[str]:
    """Give the containers that have what serves of all these adapters, or that will never have it."""
    found = {box.id for box in copies}
    for adapter in adapters:
        serving = Memory.of(adapter.status).serving
        if not serving or adapter.deleting:
            continue
        name = identifier(adapter, serving)
        known = loaded_on(adapter, copies, loads)
        for box in copies:
            seen = loads.get((box.id, name))
            failed = seen is not None and seen.run == box.started_at and seen.state == "failed" and seen.final
            if (box.id, name) not in known and not failed:
                found.discard(box.id)
    return found


@dataclass(frozen=True, slots=True)
class Base:
    """What an adapter is loaded into. The route is None where the base is gone."""

    route: EndpointRoute | None
    copies: Sequence[Container]
    """The containers that are ready."""


@dataclass(frozen=True, slots=True)
class _Scene:
    adapter: Component
    memory: Memory
    base: Base
    loads: Loads
    known: frozenset[tuple[str, str]]
    """What is loaded where."""
    now: float

    def last(self, box: Container, name: str) -> LoadSeen | None:
        """Give what was last done with a revision in this run of a container."""
        seen = self.loads.get((box.id, name))
        return seen if seen is not None and seen.run == box.started_at else None

    def unloads(self, kept: str) -> list[Load | Unload]:
        """Unload every revision but one; what failed to load has no more than files, which go with the container."""
        there = [(box, name) for box in self.base.copies for id, name in sorted(self.known) if id == box.id]
        idle = ((box, name) for box, name in there if (seen := self.last(box, name)) is None or seen.state == "loaded")
        return [Unload(box, name) for box, name in idle if name != kept]


def tend(adapter: Component, base: Base, loads: Loads, now: float) -> Tended:
    """Decide."""
    memory = Memory.of(adapter.status)
    scene = _Scene(adapter, memory, base, loads, frozenset(loaded_on(adapter, base.copies, loads)), now)
    if adapter.deleting or adapter.status.get("InferenceComponentStatus") == "Failed" or adapter.refusal:
        return _end(scene)
    on_trial = adapter.wanted not in (memory.serving, memory.abandoned)
    target = adapter.wanted if on_trial else memory.serving
    name = identifier(adapter, target)
    works, wake_at, reason = _spread(scene, target)
    if not on_trial:
        loaded = any(there == name for _, there in scene.known)
        if memory.unproven and not loaded and reason is not None and reason[1]:
            return _fail(scene, reason[0])
        memory = replace(memory, settled=adapter.generation, unproven=memory.unproven and not loaded)
        scene = replace(scene, memory=memory)
        return _tended(scene, "InService", (*works, *scene.unloads(name)), wake_at)
    began = memory.began if memory.began is not None else now
    if reason is not None and (reason[1] or now - began >= PATIENCE):
        return _give_up(scene, reason[0])
    arrived = all((box.id, name) in scene.known for box in base.copies)
    if arrived and (base.copies or (base.route is not None and not base.route.copies)):
        unproven = not base.copies
        settled = replace(
            memory, serving=target, settled=adapter.generation, reason=None, began=None, unproven=unproven
        )
        return _tended(replace(scene, memory=settled), "InService", works, now)  # again, to unload what it replaces
    if not base.copies:
        if now - began >= PATIENCE:
            return _give_up(scene, f"No copy of the base component was ready within {PATIENCE:.0f} s.")
        wake_at = began + PATIENCE
    scene = replace(scene, memory=replace(memory, began=began))
    return _tended(scene, "Updating" if memory.serving else "Creating", works, wake_at)


def _spread(scene: _Scene, target: int) -> tuple[tuple[Load, ...], float | None, tuple[str, bool] | None]:
    """Give the loads to begin now, when to look again, and a failure with whether it is final."""
    name = identifier(scene.adapter, target)
    works: list[Load] = []
    wakes: list[float] = []
    reason: tuple[str, bool] | None = None
    for box in scene.base.copies:
        seen = scene.last(box, name)
        if (box.id, name) in scene.known or (seen is not None and seen.state == "loading"):
            continue
        if seen is not None and seen.state == "failed":
            reason = (seen.words, seen.final) if reason is None or seen.final else reason
            if scene.now < seen.at + RETRY:
                wakes.append(seen.at + RETRY)
                continue
        works.append(Load(box, name, scene.adapter.adapters[target]))
    return tuple(works), min(wakes, default=None), reason


def _give_up(scene: _Scene, words: str) -> Tended:
    adapter, memory = scene.adapter, scene.memory
    if not memory.serving:
        return _fail(scene, words)
    text = shorten(f"{words} The update was rolled back.", LONGEST)
    memory = replace(memory, abandoned=adapter.wanted, settled=adapter.generation, reason=text, began=None)
    return _tended(replace(scene, memory=memory), "InService", (), scene.now)


def _fail(scene: _Scene, words: str) -> Tended:
    text = shorten(f"{words} Next: clary doctor {scene.adapter.endpoint}", LONGEST)
    return _tended(replace(scene, memory=replace(scene.memory, reason=text)), "Failed", (), scene.now)


def _end(scene: _Scene) -> Tended:
    """Unload it everywhere: it is deleted, has failed, or is none that Clary can run."""
    adapter, memory = scene.adapter, scene.memory
    works = tuple(scene.unloads(""))
    if adapter.deleting:
        names = {identifier(adapter, number) for number in adapter.adapters}
        runs = {box.id: box.started_at for box in scene.base.copies}
        busy = any(
            name in names and seen.run == runs.get(id) and seen.state in ("loading", "unloading")
            for (id, name), seen in scene.loads.items()
        )
        return _tended(scene, "Deleting", works) if scene.known or busy else Tended(adapter, {})
    reason = memory.reason or adapter.refusal
    return _tended(replace(scene, memory=replace(memory, reason=reason)), "Failed", works)


def _tended(scene: _Scene, state: str, works: Sequence[Load | Unload], wake_at: float | None = None) -> Tended:
    adapter, memory, base = scene.adapter, scene.memory, scene.base
    name = identifier(adapter, memory.serving)
    serving = {id for id, loaded in scene.known if memory.serving and loaded == name}
    runs = {box.id: box.started_at for box in base.copies}
    wanted = base.route.copies if base.route is not None else 0
    status = {
        "InferenceComponentStatus": state,
        "RuntimeConfig": {"DesiredCopyCount": wanted, "CurrentCopyCount": len(serving)},
        **memory.members(),
        "_Shown": memory.serving or adapter.wanted,
        "_Loaded": sorted([id, runs[id], loaded] for id, loaded in scene.known),
    }
    route = EndpointRoute(adapter.endpoint, state, (), component=adapter.name, copies=0)
    if base.route is not None:
        variants = (replace(v, targets=tuple(t for t in v.targets if t.id in serving)) for v in base.route.variants)
        route = replace(base.route, status=state, variants=tuple(variants), component=adapter.name, adapter=name)
    return Tended(adapter, status, tuple(works), route, wake_at)
