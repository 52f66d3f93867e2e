"""One inference component's copies: how many of which revision there are to be next.

It comes in two parts, for copies of all components compete for the same instances: `begin` says what is kept and what
is to be placed, `finish` what follows from where it was placed. An update is a rolling one: as many new copies as the
policy allows and as there is room for, then the old ones that they replace go; what fails is rolled back the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from clary.core.component import Bench, Component, Copy, Memory, Revision
from clary.core.containers import Container
from clary.core.deployment import Action, Attempts, Judgement, LaunchFailed, Observed, Sighting
from clary.core.describe import ready_before
from clary.core.failure import LONGEST, Scene, failure_reason, shorten
from clary.core.judgement import View, is_hopeless, judge, stop_all
from clary.core.memory import attempts_of, with_attempts
from clary.core.placement import surplus

NO_HARDWARE = (
    "There is not enough hardware resources on the instances for this endpoint to create a copy of the inference "
    "component."
)

ROOM_PAUSE = 1.0
"""Seconds after which a copy that waits for room is looked at again, should nobody tell of the room."""

Phase = Literal["over", "create", "steady", "update", "rollback"]


@dataclass(frozen=True, slots=True)
class Judged:
    """A copy with its place, and how its container is."""

    copy: Copy
    judgement: Judgement

    @property
    def ready(self) -> bool:
        return self.judgement.ready


@dataclass(frozen=True, slots=True)
class Draft:
    """A component in between: what it has, and the copies that are to be placed."""

    component: Component
    bench: Bench
    memory: Memory
    phase: Phase
    view: View
    retired: tuple[Copy, ...]
    """These take room until they are gone."""
    revision: Revision | None = None
    """The one of which there are to be more."""
    arriving: tuple[Judged, ...] = ()
    leaving: tuple[Judged, ...] = ()
    """Copies of the other revision that are kept for now."""
    proposed: tuple[Copy, ...] = ()

    @property
    def kept(self) -> Iterator[Copy]:
        """Give what takes room: what stays, and what is on its way out."""
        yield from (each.copy for each in (*self.arriving, *self.leaving))
        yield from self.retired


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to say of a component and to do about it."""

    component: Component
    status: Mapping[str, object]
    """Empty: nothing is left of it, and its record can go."""
    copies: tuple[Copy, ...]
    """All that there are, on their way out or in."""
    actions: tuple[Action, ...] = ()
    ready: tuple[Judged, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    wake_at: float | None = None


def begin(component: Component, bench: Bench, observed: Observed, now: float) -> Draft:
    """Look at a component: at its own status, not at the endpoint's, which `observed` has."""
    memory = Memory.of(component.status)
    there = [c for c in memory.copies if not c.retired or _seen(observed.containers.get(component.id_of(c)))]
    phase, revision = _course(component, memory, there)
    view = View(
        observed.containers,
        attempts_of(component.status),
        ready_before(component.status),
        now,
        on_trial=phase in ("create", "update"),
    )
    if revision is None:
        return Draft(component, bench, memory, phase, view, tuple(replace(each, retired=True) for each in there))
    # A copy whose instance is gone, or of which nobody knows any more what it ran, is none.
    known = [
        c for c in there if not c.retired and c.instance in bench.instance_ids and c.revision in component.revisions
    ]
    arriving = [_judged(component, bench, each, view, memory) for each in known if each.revision == revision.number]
    others = replace(view, on_trial=False)
    leaving = [_judged(component, bench, each, others, memory) for each in known if each.revision != revision.number]
    limit = _limit(component, memory, phase, revision, arriving)
    arriving = _without_surplus(component, arriving, limit)
    leaving = _staying(component, memory, phase, arriving, leaving)
    kept = {each.copy for each in (*arriving, *leaving)}
    return Draft(
        component,
        bench,
        memory,
        phase,
        view,
        tuple(replace(each, retired=True) for each in there if each not in kept),
        revision,
        tuple(arriving),
        tuple(leaving),
        tuple(_new(memory, revision, limit - len(arriving))),
    )


def _without_surplus(component: Component, copies: Sequence[Judged], number: int) -> list[Judged]:
    """Give up copies until there are so many: those that do not serve first."""
    places = [(component.item(each.copy), str(each.copy.instance)) for each in copies]
    idle = [place for place, each in zip(places, copies, strict=True) if not each.ready]
    serving = [place for place, each in zip(places, copies, strict=True) if each.ready]
    dropped = surplus(idle, len(copies) - number)
    dropped += surplus(serving, len(copies) - number - len(dropped))
    gone = {item.id for item in dropped}
    return [each for each in copies if component.id_of(each.copy) not in gone]


def _seen(sighting: Sighting | None) -> bool:
    return sighting is not None and not isinstance(sighting, LaunchFailed)


def _course(component: Component, memory: Memory, there: Sequence[Copy]) -> tuple[Phase, Revision | None]:
    """Say what a component is in the middle of, and which revision there are to be copies of; None: of none."""
    if component.deleting or component.status.get("InferenceComponentStatus") == "Failed":
        return "over", None
    if not memory.serving:
        return ("create", component.revisions.get(component.wanted)) if component.refusal is None else ("over", None)
    number = memory.serving if component.wanted in (memory.abandoned, memory.serving) else component.wanted
    revision = component.revisions.get(number)
    if number != memory.serving:
        return "update", revision
    back = any(not each.retired and each.revision != number for each in there)
    return ("rollback" if back else "steady"), revision


def _limit(component: Component, memory: Memory, phase: Phase, revision: Revision, arriving: Sequence[Judged]) -> int:
    """Give how many copies of the revision there may be now."""
    if phase == "update":
        return min(revision.copies, memory.baked + component.rolling.batch.of(revision.copies))
    if phase == "rollback":
        ready = sum(each.ready for each in arriving)
        return min(revision.copies, ready + component.rolling.rollback.of(revision.copies))
    return revision.copies


def _staying(
    component: Component, memory: Memory, phase: Phase, arriving: Sequence[Judged], leaving: Sequence[Judged]
) -> list[Judged]:
    """Give the copies of the other revision that are kept: as many as are not replaced yet, those that serve first."""
    ordered = sorted(leaving, key=lambda each: (not each.ready, each.copy.number))
    if phase == "update":
        new, old = component.revisions[component.wanted].copies, component.revisions[memory.serving].copies
        # Also in an update to fewer copies none goes before its successor serves.
        return ordered[: max(0, max(new, old) - memory.baked) if memory.baked < new or not new else 0]
    if phase == "rollback":
        missing = component.revisions[memory.serving].copies - sum(each.ready for each in arriving)
        return [each for each in ordered if each.ready][: max(0, missing)]
    return []


def _new(memory: Memory, revision: Revision, number: int) -> Iterator[Copy]:
    taken = {each.number for each in memory.copies if each.revision == revision.number}
    free = (n for n in range(len(taken) + max(0, number)) if n not in taken)
    for _ in range(number):
        yield Copy(revision.number, next(free), revision.needs)


def _judged(component: Component, bench: Bench, copy: Copy, view: View, memory: Memory) -> Judged:
    revision = component.revisions[copy.revision]
    if image := memory.images.get(copy.revision):
        view = replace(view, pinned={(bench.variant, ""): image[0]})
    spec = bench.spec(component, revision, copy)
    return Judged(copy, judge(spec, revision.startup_timeout, view))


# -- what follows ------------------------------------------------------------------------------------------------------


class Seat(NamedTuple):
    """A place for a copy: an instance by its number, and which of its accelerators."""

    instance: int
    devices: tuple[int, ...] = ()


def _all(copies: list[Container]) -> set[str]:
    return {box.id for box in copies}


@dataclass(slots=True)
class _Next:
    """What `finish` works at."""

    memory: Memory
    status: str
    wakes: list[float] = field(default_factory=list)

    def settle(self, generation: int, **changes: object) -> None:
        self.memory = replace(self.memory, settled=generation, baked=0, baking_since=None, began=None, **changes)  # type: ignore[arg-type]
        self.status = "InService"


def finish(
    draft: Draft, places: Mapping[str, Seat], *, hindered: bool, furnished: Callable[[list[Container]], set[str]] = _all
) -> Outcome:
    """Decide. `places` has those of the proposed copies that were placed, by their containers' ids.

    `hindered`: others are just leaving the instances, and there may be room once they have. `furnished` tells which of
    the copies that are ready have the adapters that the old ones have: only these may take their place.
    """
    component = draft.component
    if draft.revision is None:
        return _end(draft)
    seats = ((copy, places.get(component.id_of(copy))) for copy in draft.proposed)
    placed = [replace(copy, instance=seat.instance, devices=seat.devices) for copy, seat in seats if seat is not None]
    fresh = (_judged(component, draft.bench, each, draft.view, draft.memory) for each in placed)
    arriving = (*draft.arriving, *fresh)
    leaving = draft.leaving
    lacks_room = len(placed) < len(draft.proposed) and not hindered
    waits = len(placed) < len(draft.proposed) and hindered
    step = _Next(replace(draft.memory, images=_images(draft, arriving)), "Updating")
    if waits:
        step.wakes.append(draft.view.now + ROOM_PAUSE)
    if draft.phase == "update":
        boxes = [box for each in arriving if each.ready and (box := each.judgement.container) is not None]
        waits = waits or len(furnished(boxes)) < len(boxes)
        leaving = _update(draft, step, arriving, lacks_room=lacks_room, waits=waits)
    elif draft.phase == "rollback":
        leaving = _go_back(draft, step, arriving, lacks_room=lacks_room and not placed)
    else:
        _fill(draft, step, arriving, lacks_room=lacks_room, waits=waits)
    if step.status == "Failed":
        copies = tuple(replace(each, retired=True) for each in draft.kept)
        step.memory = replace(step.memory, copies=copies)
        ends = {component.id_of(each) for each in copies}
        return Outcome(component, _status(component, step, ()), copies, _stops(draft.view, ends, "delete"))
    return _outcome(draft, step, arriving, leaving)


def _outcome(draft: Draft, step: _Next, arriving: tuple[Judged, ...], leaving: tuple[Judged, ...]) -> Outcome:
    component, stays = draft.component, (*arriving, *leaving)
    kept = {each.copy for each in stays}
    retired = (
        *draft.retired,
        *(replace(each.copy, retired=True) for each in draft.leaving if each.copy not in kept),
    )
    step.memory = replace(step.memory, copies=(*(each.copy for each in stays), *retired))
    judgements = tuple(each.judgement for each in stays)
    step.wakes += [each.wake_at for each in judgements if each.wake_at is not None]
    return Outcome(
        component,
        _status(component, step, stays),
        step.memory.copies,
        (
            *(each.action for each in judgements if each.action is not None),
            *_stops(draft.view, {component.id_of(each) for each in retired}, "replace"),
        ),
        tuple(each for each in stays if each.ready),
        judgements,
        min(step.wakes, default=None),
    )


def _fill(draft: Draft, step: _Next, arriving: Sequence[Judged], *, lacks_room: bool, waits: bool) -> None:
    """Go on with a component of one revision: it is created, or has as many copies as it should, or soon will."""
    component, memory = draft.component, step.memory
    assert draft.revision is not None
    creating = draft.phase == "create"
    hopeless = _hopeless(draft, arriving)
    reason = hopeless or (NO_HARDWARE if lacks_room else None)
    if creating and reason:
        step.memory, step.status = replace(memory, reason=reason), "Failed"
    elif memory.settled == component.generation:
        step.status = "InService"
    elif reason:
        step.settle(component.generation, reason=reason)
    elif not waits and all(each.ready for each in arriving):
        kept = memory.reason if component.wanted == memory.abandoned else None
        step.settle(component.generation, serving=draft.revision.number, reason=kept)
    elif creating:
        step.status = "Creating"


def _update(
    draft: Draft, step: _Next, arriving: Sequence[Judged], *, lacks_room: bool, waits: bool
) -> tuple[Judged, ...]:
    """Go on with an update; give the old copies that stay."""
    component, now, policy = draft.component, draft.view.now, draft.component.rolling
    assert draft.revision is not None
    began = now if step.memory.began is None else step.memory.began
    step.memory = replace(step.memory, began=began)
    reason = _hopeless(draft, arriving)
    if lacks_room and len(arriving) <= step.memory.baked:
        reason = reason or NO_HARDWARE
    if policy.limit is not None and now >= began + policy.limit:
        reason = reason or f"The update took longer than {policy.limit:.0f} s (MaximumExecutionTimeoutInSeconds)."
    if reason:
        text = shorten(f"{reason} The update was rolled back.", LONGEST)
        step.memory = replace(step.memory, abandoned=component.wanted, reason=text, baked=0, baking_since=None)
        step.wakes.append(now)
        return draft.leaving
    if policy.limit is not None:
        step.wakes.append(began + policy.limit)
    if waits or not all(each.ready for each in arriving):
        step.memory = replace(step.memory, baking_since=None)
        return draft.leaving
    since = now if step.memory.baking_since is None else step.memory.baking_since
    if now < since + policy.wait:
        step.memory = replace(step.memory, baking_since=since)
        step.wakes.append(since + policy.wait)
        return draft.leaving
    if len(arriving) == draft.revision.copies:
        step.settle(component.generation, serving=component.wanted, reason=None)
        return ()
    step.memory = replace(step.memory, baked=len(arriving), baking_since=None)
    step.wakes.append(now)
    return draft.leaving


def _go_back(draft: Draft, step: _Next, arriving: Sequence[Judged], *, lacks_room: bool) -> tuple[Judged, ...]:
    """Go on with the way back from an update that failed; give the copies of its revision that stay for now."""
    leaving = draft.leaving
    if lacks_room:
        leaving = leaving[:-1]  # what serves of the failed revision makes room for the one to go back to
    if not leaving:
        step.wakes.append(draft.view.now)  # what is left to do is what is always done
    elif _hopeless(draft, arriving):  # what served once does so no more: whoever is to help must be let
        step.settle(draft.component.generation)
    return leaving


def _end(draft: Draft) -> Outcome:
    """Stop everything: the component is deleted, has failed, or is none that Clary can run."""
    component = draft.component
    ids = {component.id_of(each) for each in draft.retired}
    stops = _stops(draft.view, ids, "delete")
    memory = replace(draft.memory, copies=draft.retired)
    if component.deleting:
        left = any(_seen(draft.view.containers.get(id)) for id in ids)
        status = _status(component, _Next(memory, "Deleting"), ()) if left else {}
        return Outcome(component, status, draft.retired, stops)
    memory = replace(memory, reason=memory.reason or component.refusal)
    return Outcome(component, _status(component, _Next(memory, "Failed"), ()), draft.retired, stops)


def _stops(view: View, ids: set[str], grace: Literal["replace", "delete"]) -> tuple[Action, ...]:
    return stop_all({id: seen for id, seen in view.containers.items() if id in ids}, grace)


def _hopeless(draft: Draft, arriving: Sequence[Judged]) -> str | None:
    """Explain why a copy will not come; None where all may yet."""
    component, revision = draft.component, draft.revision
    assert revision is not None
    for each in arriving:
        if is_hopeless(each.judgement, revision.startup_timeout):
            attempts: Attempts = each.judgement.attempts
            assert attempts.last is not None
            data = revision.template.model_data
            began = draft.memory.began or component.created_at
            scene = Scene(
                component.endpoint,
                component.variant,
                "model",
                1,
                revision.template.image,
                data[0].url if data else None,
                attempts.failures,
                max(0.0, draft.view.now - began),
            )
            return failure_reason(attempts.last, scene)
    return None


def _images(draft: Draft, arriving: Sequence[Judged]) -> Mapping[int, tuple[str, float]]:
    found = {n: image for n, image in draft.memory.images.items() if n in draft.component.revisions}
    for each in arriving:
        box = each.judgement.container
        if box is not None and box.resolved_image:
            found.setdefault(each.copy.revision, (box.resolved_image, box.started_at))
    return found


def _status(component: Component, step: _Next, stays: Sequence[Judged]) -> dict[str, object]:
    memory = step.memory
    shown = memory.serving or component.wanted
    wanted = shown if component.wanted == memory.abandoned else component.wanted
    revision = component.revisions.get(wanted)
    ready = sum(each.ready for each in stays)
    status = {
        "InferenceComponentStatus": step.status,
        "RuntimeConfig": {"DesiredCopyCount": revision.copies if revision else 0, "CurrentCopyCount": ready},
        **memory.members(),
        "_Shown": shown,
        "_Ready": sorted(each.judgement.spec.id for each in stays if each.ready),
    }
    return with_attempts(status, {each.judgement.spec.id: each.judgement.attempts for each in stays})
