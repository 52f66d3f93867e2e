"""What to do next for an endpoint: `plan(desired, observed, now)`.

A pure function over frozen values. It is called after every change and looks at everything anew, so nothing depends
on having seen an event: a lost notification costs time and nothing else. Ids follow from what an endpoint is, so
actions can be repeated and containers of an earlier life of the control plane are recognised.
"""

from __future__ import annotations

from clary.core.deployment import (
    Action,
    Attempts,
    Desired,
    Instance,
    Judgement,
    LaunchFailed,
    Observed,
    Plan,
    Remove,
    Slot,
    Variant,
    VariantGroup,
)
from clary.core.describe import creating_status, failed_status, pinned_images, ready_before, serving_status
from clary.core.failure import Scene, failure_reason
from clary.core.judgement import View, is_hopeless, judge, stop_all
from clary.core.routing import EndpointRoute, Hop, Target, VariantRoute


def plan(desired: Desired, observed: Observed, now: float) -> Plan:
    """Decide. `now` in seconds since the epoch, like all times here."""
    status = observed.status.get("EndpointStatus", "Creating")
    if desired.deleting:
        return _delete(desired, observed)
    if status == "Failed":
        return _stay_failed(desired, observed)
    creating = status == "Creating"
    if desired.refusal is not None:
        # What serves is never given up, not even when a newer Clary no longer understands its description.
        return _fail(desired, observed, desired.refusal) if creating else Plan(observed.status)
    view = View(
        observed.containers,
        observed.attempts,
        ready_before(observed.status),
        now,
        on_trial=creating,
        pinned={place: resolved for place, (resolved, _) in pinned_images(observed.status).items()},
    )
    judged = [(slot, judge(slot.spec, slot.variant.startup_timeout, view)) for slot in desired.slots()]
    if creating:
        for slot, judgement in judged:
            if is_hopeless(judgement, slot.variant.startup_timeout):
                return _fail(desired, observed, _explain(desired, slot, judgement.attempts, now))
    return _serve(desired, observed, judged, creating and not all(judgement.ready for _, judgement in judged))


def _serve(desired: Desired, observed: Observed, judged: list[tuple[Slot, Judgement]], creating: bool) -> Plan:
    judgements = [judgement for _, judgement in judged]
    groups = [
        VariantGroup(
            variant,
            _empty_instances(desired, variant)
            if variant.packed
            else instances_of([judgement for slot, judgement in judged if slot.variant is variant]),
        )
        for variant in desired.variants
    ]
    instances = tuple(instance.id for group in groups for instance in group.instances)
    strays: tuple[Action, ...] = ()
    if not desired.packed:  # what runs on a packed endpoint's instances is its components' business
        strays = stop_all(observed.containers, "replace", keep={judgement.spec.id for judgement in judgements})
    wakes = [judgement.wake_at for judgement in judgements if judgement.wake_at is not None]
    if creating:
        status = creating_status(desired.config_name, desired.created_at, groups)
        route = EndpointRoute(desired.name, "Creating", (), instances=instances)
    else:
        status = serving_status(desired.config_name, groups, observed.status)
        route = EndpointRoute(
            desired.name,
            "InService",
            tuple(_variant_route(group) for group in groups if not group.variant.shadow),
            tuple(_variant_route(group) for group in groups if group.variant.shadow),
            desired.capture,
            instances,
            asynchronous=desired.asynchronous,
        )
    return Plan(
        status,
        (*(judgement.action for judgement in judgements if judgement.action is not None), *strays),
        route,
        min(wakes, default=None),
        tuple(judgements),
    )


def _empty_instances(desired: Desired, variant: Variant) -> tuple[Instance, ...]:
    return tuple(Instance(desired.instance_id(variant.name, number), ()) for number in range(variant.count))


def instances_of(judgements: list[Judgement]) -> tuple[Instance, ...]:
    """Put the containers of each instance together, in their order."""
    by_instance: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        by_instance.setdefault(judgement.spec.instance_id, []).append(judgement)
    return tuple(Instance(id, tuple(containers)) for id, containers in by_instance.items())


def _variant_route(group: VariantGroup) -> VariantRoute:
    variant = group.variant
    serving = (each for each in group.instances if each.ready or variant.direct)
    targets = (Target(instance.id, _hops(variant, instance)) for instance in serving)
    return VariantRoute(
        variant.name,
        variant.weight,
        tuple(target for target in targets if target.hops),
        tuple(template.name for template in variant.containers) if variant.direct else (),
        variant.strategy,
        variant.role_arn or "",
        next((template.name for template in variant.containers if template.models), ""),
    )


def _hops(variant: Variant, instance: Instance) -> tuple[Hop, ...]:
    places = zip(instance.containers, variant.containers, strict=True)
    ready = ((judged.container, template.name) for judged, template in places if judged.ready)
    return tuple(Hop(box.id, box.host, box.port, name) for box, name in ready if box is not None)


def _delete(desired: Desired, observed: Observed) -> Plan:
    status = {**observed.status, "EndpointStatus": "Deleting", "_Ready": []}
    if any(not isinstance(seen, LaunchFailed) for seen in observed.containers.values()):
        # Known and without targets until the last container is gone; then unknown.
        return Plan(status, stop_all(observed.containers, "delete"), EndpointRoute(desired.name, "Deleting", ()))
    return Plan(status, (Remove(),))


def _stay_failed(desired: Desired, observed: Observed) -> Plan:
    return Plan(observed.status, stop_all(observed.containers, "delete"), EndpointRoute(desired.name, "Failed", ()))


def _fail(desired: Desired, observed: Observed, reason: str) -> Plan:
    status = failed_status(desired.config_name, reason)
    return Plan(status, stop_all(observed.containers, "delete"), EndpointRoute(desired.name, "Failed", ()))


def _explain(desired: Desired, slot: Slot, attempts: Attempts, now: float) -> str:
    assert attempts.last is not None
    return failure_reason(attempts.last, scene_of(desired, slot, attempts, now))


def scene_of(desired: Desired, slot: Slot, attempts: Attempts, now: float) -> Scene:
    """Say where a container failed."""
    return Scene(
        endpoint=desired.name,
        variant=slot.variant.name,
        container=slot.template.name,
        position=slot.variant.containers.index(slot.template) + 1,
        image=slot.spec.image,
        model_data_url=slot.spec.model_data[0].url if slot.spec.model_data else None,
        starts=attempts.failures,
        elapsed=max(0.0, now - desired.created_at),
    )
