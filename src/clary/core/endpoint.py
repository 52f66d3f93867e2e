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
    Launch,
    LaunchFailed,
    Launching,
    Observed,
    Plan,
    Present,
    Remove,
    Stop,
    Stopping,
    Variant,
)
from clary.core.describe import creating_status, failed_status, serving_status
from clary.core.failure import Failure, Scene, Severity, failure_reason
from clary.core.ports import ContainerSpec
from clary.core.routing import EndpointRoute, Target, VariantRoute

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
    judged = [(variant, _judge(variant, spec, _Context(observed, creating, now))) for variant, spec in desired.slots()]
    if creating:
        for variant, instance in judged:
            if _is_hopeless(instance.attempts, variant):
                return _fail(desired, observed, _explain(desired, variant, instance.attempts, now))
    return _serve(desired, observed, judged, creating and not all(instance.ready for _, instance in judged))


def _serve(desired: Desired, observed: Observed, judged: list[tuple[Variant, Instance]], creating: bool) -> Plan:
    instances = [instance for _, instance in judged]
    by_variant = {v.name: (v, [i for w, i in judged if w is v]) for v in desired.variants}
    strays = _stop_all(observed, "replace", keep={instance.spec.id for instance in instances})
    wakes = [instance.wake_at for instance in instances if instance.wake_at is not None]
    if creating:
        status = creating_status(desired.config_name, desired.created_at, by_variant.values())
        route = EndpointRoute(desired.name, "Creating", ())
    else:
        status = serving_status(desired.config_name, by_variant.values(), observed.status)
        variants = (VariantRoute(v.name, v.weight, _targets(own)) for v, own in by_variant.values())
        route = EndpointRoute(desired.name, "InService", tuple(variants))
    return Plan(
        status,
        (*(instance.action for instance in instances if instance.action is not None), *strays),
        route,
        min(wakes, default=None),
        tuple(instances),
    )


def _targets(instances: list[Instance]) -> tuple[Target, ...]:
    ready = (i.container for i in instances if i.ready and i.container is not None)
    return tuple(Target(c.id, c.host, c.port) for c in ready)


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


def _explain(desired: Desired, variant: Variant, attempts: Attempts, now: float) -> str:
    assert attempts.last is not None
    elapsed = max(0.0, now - desired.created_at)
    scene = Scene(desired.name, variant.name, variant.image, variant.model_data_url, attempts.failures, elapsed)
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


def _judge(variant: Variant, spec: ContainerSpec, context: _Context) -> Instance:
    attempts = context.observed.attempts.get(spec.id, Attempts())
    match context.observed.containers.get(spec.id):
        case None:
            return _start(spec, attempts, context)
        case Stopping():
            return Instance(spec, "stopping", attempts, "stopping")
        case LaunchFailed() as seen:
            severity: Severity = "transient" if seen.transient else "final"
            detail = f"{seen.step}: {seen.message}"
            return _start(
                spec, attempts.after(Failure(seen.step, detail, seen.at, seen.at, severity, seen.log)), context
            )
        case Launching() as seen:
            return _launching(variant, spec, attempts, seen, context)
        case Present() as seen if seen.container.deployment != spec.deployment:
            return Instance(spec, "stale", Attempts(), "replacing", None, Stop(spec.id, "replace"))
        case Present() as seen if seen.container.phase == "exited":
            box = seen.container
            detail = box.exit_reason or "exited"
            failure = Failure("exit", detail, box.started_at, box.exited_at or context.now, "counted", seen.log)
            return Instance(spec, "exited", attempts.after(failure), detail, box, Stop(spec.id, "replace"))
        case Present() as seen:
            return _running(variant, spec, attempts, seen, context)


def _start(spec: ContainerSpec, attempts: Attempts, context: _Context) -> Instance:
    if attempts.failures and attempts.last is not None:
        delays = CREATING_DELAYS if context.creating else SERVING_DELAYS
        due = attempts.last.at + delays[min(attempts.failures, len(delays)) - 1]
        if context.now < due:
            return Instance(spec, "waiting", attempts, f"restarting after: {attempts.last.detail}", wake_at=due)
    return Instance(spec, "launching", attempts, "launching", action=Launch(spec))


def _launching(
    variant: Variant, spec: ContainerSpec, attempts: Attempts, seen: Launching, context: _Context
) -> Instance:
    deadline = seen.since + variant.download_timeout + variant.startup_timeout
    if context.now < deadline:
        return Instance(spec, "launching", attempts, seen.progress or "launching", wake_at=deadline)
    detail = f"launch took longer than {deadline - seen.since:.0f} s; last: {seen.progress or 'nothing reported'}"
    failed = attempts.after(Failure("launch", detail, seen.since, context.now, "final"))
    return Instance(spec, "overdue", failed, detail, None, Stop(spec.id, "replace"))


def _running(variant: Variant, spec: ContainerSpec, attempts: Attempts, seen: Present, context: _Context) -> Instance:
    box, ping, now = seen.container, seen.ping, context.now
    was_ready = context.was_ready(spec.id)
    if was_ready and ping is not None and ping.failures >= UNHEALTHY_AFTER:
        detail = f"{ping.failures} pings in a row failed; last: {ping.words}"
        failed = attempts.after(Failure("unhealthy", detail, box.started_at, now, "counted", seen.log))
        return Instance(spec, "unhealthy", failed, detail, box, Stop(spec.id, "replace"))
    if was_ready or (ping is not None and ping.answer == "ok"):
        since = now if attempts.ready_since is None else attempts.ready_since
        return Instance(spec, "ready", replace(attempts, ready_since=since), container=box)
    deadline = box.started_at + variant.startup_timeout
    words = "not pinged yet" if ping is None else ping.words
    if now < deadline:
        return Instance(spec, "starting", attempts, words, box, wake_at=deadline)
    detail = f"{words}, for {variant.startup_timeout:.0f} s"
    failed = attempts.after(Failure("ping", detail, box.started_at, now, "final", seen.log))
    return Instance(spec, "overdue", failed, detail, box, Stop(spec.id, "replace"))
