"""What to do next for the inference components of an endpoint: `pack(endpoint, components, around)`.

A pure function, like `core.endpoint.plan`, next to which it stands. All components of an endpoint are looked at
together, for they share its instances: what is being stopped takes room until it is gone, and whoever has waited longer
comes first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice

from clary.core.adapters import Base, Loads, Tended, furnished, tend
from clary.core.component import Bench, Component
from clary.core.deployment import Action, Desired, Observed, Plan, Variant
from clary.core.judgement import stop_all
from clary.core.placement import Compute, Item, Node, place
from clary.core.rollout import Draft, Judged, Outcome, Seat, begin, finish
from clary.core.routing import EndpointRoute, Hop, Target, VariantRoute

_RANKS = {"over": 0, "steady": 1, "rollback": 1, "update": 2, "create": 3}
"""What serves comes before what is to serve: a new component takes no room that an old one has lost."""


@dataclass(frozen=True, slots=True)
class Packed:
    """What to do, say and route now."""

    outcomes: tuple[Outcome, ...]
    tended: tuple[Tended, ...]
    """The adapters."""
    strays: tuple[Action, ...]
    routes: Mapping[str, EndpointRoute]
    instances: Mapping[str, tuple[int, ...]]
    """The numbers of the instances that each variant has now."""
    wake_at: float | None

    @property
    def statuses(self) -> Mapping[str, Mapping[str, object]]:
        """Give what is to be written of each component, by name; nothing where the record can go."""
        own = {each.component.name: each.status for each in self.outcomes}
        return own | {each.component.name: each.status for each in self.tended}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What there is beside the endpoint and its components."""

    observed: Observed
    """The containers of the endpoint, of all components."""
    capacities: Mapping[str, Compute]
    """By instance type."""
    loads: Loads
    now: float


def pack(endpoint: Desired, components: Sequence[Component], around: Surroundings) -> Packed:
    """Decide."""
    outcomes: list[Outcome] = []
    instances: dict[str, tuple[int, ...]] = {}
    routes: dict[str, EndpointRoute] = {}
    adapters = [each for each in components if each.base]
    for variant in endpoint.variants:
        bench = _bench(endpoint, variant, around.capacities[variant.instance_type])
        mine = [each for each in components if each.variant == variant.name and not each.base]
        drafts = sorted(
            (begin(each, bench, around.observed, around.now) for each in mine),
            key=lambda draft: (_RANKS[draft.phase], draft.component.created_at, draft.component.name),
        )
        found, instances[variant.name] = _place(variant, bench, drafts)
        hindered = any(
            draft.component.id_of(each) in around.observed.containers for draft in drafts for each in draft.retired
        )
        for draft in drafts:
            own = [each for each in adapters if each.base == draft.component.name]
            ended = finish(draft, found, hindered=hindered, furnished=partial(furnished, own, around.loads))
            outcomes.append(ended)
            if ended.status:
                routes[ended.component.name] = _route(endpoint, variant, ended)
    tended = _tend(adapters, outcomes, routes, around)
    routes |= {each.component.name: each.route for each in tended if each.route is not None}
    known = {each.component.id_of(copy) for each in outcomes for copy in each.copies}
    wakes = [*(each.wake_at for each in outcomes), *(each.wake_at for each in tended)]
    return Packed(
        tuple(outcomes),
        tended,
        stop_all(around.observed.containers, "replace", keep=known),
        routes,
        instances,
        min((at for at in wakes if at is not None), default=None),
    )


def _tend(
    adapters: Sequence[Component],
    outcomes: Sequence[Outcome],
    routes: Mapping[str, EndpointRoute],
    around: Surroundings,
) -> tuple[Tended, ...]:
    bases = {each.component.name: each for each in outcomes}
    found = []
    for adapter in adapters:
        base = bases.get(adapter.base)
        copies = [box for each in base.ready if (box := each.judgement.container) is not None] if base else []
        found.append(tend(adapter, Base(routes.get(adapter.base), copies), around.loads, around.now))
    return tuple(found)


def adjusted(endpoint: Desired, packed: Packed) -> Desired:
    """Give an endpoint with as many instances as its components have it have."""
    variants = (replace(each, count=len(packed.instances[each.name])) for each in endpoint.variants)
    return replace(endpoint, variants=tuple(variants))


def joined(decided: Plan, packed: Packed, endpoint: Desired) -> Plan:
    """Put an endpoint's own plan and that of its components together."""
    ids = (endpoint.instance_id(name, number) for name, numbers in packed.instances.items() for number in numbers)
    route = decided.route and replace(decided.route, components=packed.routes, instances=tuple(ids))
    wakes = [at for at in (decided.wake_at, packed.wake_at) if at is not None]
    return replace(
        decided,
        actions=(*decided.actions, *chain.from_iterable(each.actions for each in packed.outcomes), *packed.strays),
        route=route,
        wake_at=min(wakes, default=None),
        judgements=(*decided.judgements, *chain.from_iterable(each.judgements for each in packed.outcomes)),
    )


def _bench(endpoint: Desired, variant: Variant, capacity: Compute) -> Bench:
    most = variant.scaling[1] if variant.scaling else variant.count
    ids = {number: endpoint.instance_id(variant.name, number) for number in range(most)}
    return Bench(variant.name, variant.instance_type, capacity, ids)


def _place(variant: Variant, bench: Bench, drafts: Sequence[Draft]) -> tuple[dict[str, Seat], tuple[int, ...]]:
    """Give a place for each proposed copy that fits, by its id, and the numbers of all instances."""
    there = [(draft.component.item(each), str(each.instance)) for draft in drafts for each in draft.kept]
    wanted: list[Item] = [draft.component.item(each) for draft in drafts for each in draft.proposed]
    least = range(variant.scaling[0] if variant.scaling else variant.count)
    there_now = {int(number) for _, number in there if int(number) in bench.instance_ids}
    opened = {*least, *there_now} if variant.scaling else set(least)
    while True:
        found = place([Node(str(number), bench.capacity) for number in sorted(opened)], there, wanted)
        closed = [number for number in bench.instance_ids if number not in opened]
        if len(found) == len(wanted) or not closed:
            break
        opened.add(min(closed))
    places = {id: int(number) for id, number in found.items()}
    if variant.scaling:
        opened = {*least, *there_now, *places.values()}
    taken: defaultdict[int, set[int]] = defaultdict(set)
    for each in (copy for draft in drafts for copy in draft.kept):
        taken[each.instance].update(each.devices)
    seats = {}
    for item in (item for item in wanted if item.id in places):
        number = places[item.id]
        free = (device for device in range(int(bench.capacity.accelerators)) if device not in taken[number])
        devices = tuple(islice(free, int(item.needs.accelerators)))
        taken[number].update(devices)
        seats[item.id] = Seat(number, devices)
    return seats, tuple(sorted(opened))


def _route(endpoint: Desired, variant: Variant, outcome: Outcome) -> EndpointRoute:
    status, runtime = outcome.status["InferenceComponentStatus"], outcome.status["RuntimeConfig"]
    assert isinstance(status, str)
    assert isinstance(runtime, dict)
    targets = tuple(target for each in outcome.ready if (target := _target(each)) is not None)
    return EndpointRoute(
        endpoint.name,
        status,
        (VariantRoute(variant.name, 1.0, targets, strategy=variant.strategy),),
        capture=endpoint.capture,
        component=outcome.component.name,
        copies=runtime["DesiredCopyCount"],
    )


def _target(judged: Judged) -> Target | None:
    box = judged.judgement.container
    return None if box is None else Target(box.id, (Hop(box.id, box.host, box.port, "model"),))
