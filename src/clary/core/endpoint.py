"""What to do next for an endpoint: `plan(desired, observed, now)`.

A pure function over frozen values. It is called after every change and looks at everything anew, so nothing depends
on having seen an event: a lost notification costs time and nothing else. Ids follow from what an endpoint is, so
actions can be repeated and containers of an earlier life of the control plane are recognised.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clary.core.deployment import (
    Action,
    Attempts,
    Desired,
    GraceKind,
    Instance,
    Judgement,
    Launch,
    LaunchFailed,
    Launching,
    Observed,
    Plan,
    Present,
    Remove,
    Slot,
    Stop,
    Stopping,
    Variant,
    VariantGroup,
)
from clary.core.describe import creating_status, failed_status, pinned_images, serving_status
from clary.core.failure import Failure, Scene, Severity, failure_reason
from clary.core.ports import ContainerSpec
from clary.core.routing import EndpointRoute, Hop, Target, VariantRoute

UNHEALTHY_AFTER = 3
"""Failed pings in a row that end a ready container. AWS publishes no number."""
CREATING_STARTS = 3
"""Starts that a container gets before its endpoint is given up."""
CREATING_DELAYS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
SERVING_DELAYS = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds before the next start, by the number of failures; the last one stays."""


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
    context = _Context(observed, creating, now)
    judged = [(slot, _judge(slot, context)) for slot in desired.slots()]
    if creating:
        for slot, judgement in judged:
            if _is_hopeless(judgement.attempts, slot.variant):
                return _fail(desired, observed, _explain(desired, slot, judgement.attempts, now))
    return _serve(desired, observed, judged, creating and not all(judgement.ready for _, judgement in judged))


def _serve(desired: Desired, observed: Observed, judged: list[tuple[Slot, Judgement]], creating: bool) -> Plan:
    judgements = [judgement for _, judgement in judged]
    groups = [
        VariantGroup(variant, _instances([judgement for slot, judgement in judged if slot.variant is variant]))
        for variant in desired.variants
    ]
    instances = tuple(instance.id for group in groups for instance in group.instances)
    strays = _stop_all(observed, "replace", keep={judgement.spec.id for judgement in judgements})
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
        )
    return Plan(
        status,
        (*(judgement.action for judgement in judgements if judgement.action is not None), *strays),
        route,
        min(wakes, default=None),
        tuple(judgements),
    )


def _instances(judgements: list[Judgement]) -> tuple[Instance, ...]:
    by_instance: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        by_instance.setdefault(judgement.spec.instance_id, []).append(judgement)
    return tuple(Instance(id, tuple(containers)) for id, containers in by_instance.items())


def _variant_route(group: VariantGroup) -> VariantRoute:
    variant = group.variant
    serving = (each for each in group.instances if each.ready or variant.direct)
    targets = (Target(instance.id, _hops(variant, instance)) for instance in serving)
    names = tuple(template.name for template in variant.containers) if variant.direct else ()
    return VariantRoute(
        variant.name, variant.weight, tuple(target for target in targets if target.hops), names, variant.strategy
    )


def _hops(variant: Variant, instance: Instance) -> tuple[Hop, ...]:
    places = zip(instance.containers, variant.containers, strict=True)
    ready = ((judged.container, template.name) for judged, template in places if judged.ready)
    return tuple(Hop(box.id, box.host, box.port, name) for box, name in ready if box is not None)


def _delete(desired: Desired, observed: Observed) -> Plan:
    status = {**observed.status, "EndpointStatus": "Deleting", "_Ready": []}
    if any(not isinstance(seen, LaunchFailed) for seen in observed.containers.values()):
        # Known and without targets until the last container is gone; then unknown.
        return Plan(status, _stop_all(observed, "delete"), EndpointRoute(desired.name, "Deleting", ()))
    return Plan(status, (Remove(),))


def _stay_failed(desired: Desired, observed: Observed) -> Plan:
    return Plan(observed.status, _stop_all(observed, "delete"), EndpointRoute(desired.name, "Failed", ()))


def _fail(desired: Desired, observed: Observed, reason: str) -> Plan:
    status = failed_status(desired.config_name, reason)
    return Plan(status, _stop_all(observed, "delete"), EndpointRoute(desired.name, "Failed", ()))


def _stop_all(observed: Observed, grace: GraceKind, keep: set[str] | None = None) -> tuple[Action, ...]:
    actions: list[Action] = []
    for id, seen in observed.containers.items():
        if id in (keep or ()) or isinstance(seen, LaunchFailed):
            continue
        # A deletion does not wait for the longer grace of a replacement that is under way.
        if not isinstance(seen, Stopping) or (grace == "delete" and seen.grace == "replace"):
            actions.append(Stop(id, grace))
    return tuple(actions)


def _explain(desired: Desired, slot: Slot, attempts: Attempts, now: float) -> str:
    assert attempts.last is not None
    scene = Scene(
        endpoint=desired.name,
        variant=slot.variant.name,
        container=slot.template.name,
        position=slot.variant.containers.index(slot.template) + 1,
        image=slot.spec.image,
        model_data_url=slot.spec.model_data[0].url if slot.spec.model_data else None,
        starts=attempts.failures,
        elapsed=max(0.0, now - desired.created_at),
    )
    return failure_reason(attempts.last, scene)


def _is_hopeless(attempts: Attempts, variant: Variant) -> bool:
    last = attempts.last
    if last is None or not attempts.failures:
        return False
    if last.severity == "transient":
        return last.at - attempts.first_at >= variant.startup_timeout
    return last.severity == "final" or attempts.failures >= CREATING_STARTS


@dataclass(frozen=True, slots=True)
class _Context:
    observed: Observed
    creating: bool
    now: float

    def was_ready(self, id: str) -> bool:
        ready = self.observed.status.get("_Ready", ())
        return isinstance(ready, (list, tuple)) and id in ready


def _judge(slot: Slot, context: _Context) -> Judgement:
    variant, spec = slot.variant, slot.spec
    attempts = context.observed.attempts.get(spec.id, Attempts())
    match context.observed.containers.get(spec.id):
        case None:
            return _start(spec, attempts, context)
        case Stopping():
            return Judgement(spec, "stopping", attempts, "stopping")
        case LaunchFailed() as seen:
            severity: Severity = "transient" if seen.transient else "final"
            detail = f"{seen.step}: {seen.message}"
            return _start(
                spec, attempts.after(Failure(seen.step, detail, seen.at, seen.at, severity, seen.log)), context
            )
        case Launching() as seen:
            return _launching(variant, spec, attempts, seen, context)
        case Present() as seen if seen.container.deployment != spec.deployment:
            return Judgement(spec, "stale", Attempts(), "replacing", None, Stop(spec.id, "replace"))
        case Present() as seen if seen.container.phase == "exited":
            box = seen.container
            detail = box.exit_reason or "exited"
            failure = Failure("exit", detail, box.started_at, box.exited_at or context.now, "counted", seen.log)
            return Judgement(spec, "exited", attempts.after(failure), detail, box, Stop(spec.id, "replace"))
        case Present() as seen:
            return _running(variant, spec, attempts, seen, context)


def _start(spec: ContainerSpec, attempts: Attempts, context: _Context) -> Judgement:
    if attempts.failures and attempts.last is not None:
        delays = CREATING_DELAYS if context.creating else SERVING_DELAYS
        due = attempts.last.at + delays[min(attempts.failures, len(delays)) - 1]
        if context.now < due:
            return Judgement(spec, "waiting", attempts, f"restarting after: {attempts.last.detail}", wake_at=due)
    # What was resolved once stays: an image that was pushed anew does not mix two builds behind one endpoint.
    pinned = pinned_images(context.observed.status).get((spec.variant, spec.hostname))
    wanted = spec if pinned is None else replace(spec, resolved_image=pinned[0])
    return Judgement(spec, "launching", attempts, "launching", action=Launch(wanted))


def _launching(
    variant: Variant, spec: ContainerSpec, attempts: Attempts, seen: Launching, context: _Context
) -> Judgement:
    deadline = seen.since + variant.download_timeout + variant.startup_timeout
    if context.now < deadline:
        return Judgement(spec, "launching", attempts, seen.progress or "launching", wake_at=deadline)
    detail = f"launch took longer than {deadline - seen.since:.0f} s; last: {seen.progress or 'nothing reported'}"
    failed = attempts.after(Failure("launch", detail, seen.since, context.now, "final"))
    return Judgement(spec, "overdue", failed, detail, None, Stop(spec.id, "replace"))


def _running(variant: Variant, spec: ContainerSpec, attempts: Attempts, seen: Present, context: _Context) -> Judgement:
    box, ping, now = seen.container, seen.ping, context.now
    was_ready = context.was_ready(spec.id)
    if was_ready and ping is not None and ping.failures >= UNHEALTHY_AFTER:
        detail = f"{ping.failures} pings in a row failed; last: {ping.words}"
        failed = attempts.after(Failure("unhealthy", detail, box.started_at, now, "counted", seen.log))
        return Judgement(spec, "unhealthy", failed, detail, box, Stop(spec.id, "replace"))
    if was_ready or (ping is not None and ping.answer == "ok"):
        since = now if attempts.ready_since is None else attempts.ready_since
        return Judgement(spec, "ready", replace(attempts, ready_since=since), container=box)
    deadline = box.started_at + variant.startup_timeout
    words = "not pinged yet" if ping is None else ping.words
    if now < deadline:
        return Judgement(spec, "starting", attempts, words, box, wake_at=deadline)
    detail = f"{words}, for {variant.startup_timeout:.0f} s"
    failed = attempts.after(Failure("ping", detail, box.started_at, now, "final", seen.log))
    return Judgement(spec, "overdue", failed, detail, box, Stop(spec.id, "replace"))
