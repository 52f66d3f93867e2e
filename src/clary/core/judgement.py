"""How one container is, and what to do about it, whoever wants it: an endpoint's variant or an inference component."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from clary.core.containers import ContainerSpec
from clary.core.deployment import (
    Action,
    Attempts,
    GraceKind,
    Judgement,
    Launch,
    LaunchFailed,
    Launching,
    Present,
    Sighting,
    Stop,
    Stopping,
)
from clary.core.failure import Failure, Severity

UNHEALTHY_AFTER = 3
"""Failed pings in a row that end a ready container. AWS publishes no number."""
TRIAL_STARTS = 3
"""Starts that a container gets before what was to be created or updated with it is given up."""
TRIAL_DELAYS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
SERVING_DELAYS = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds before the next start, by the number of failures; the last one stays."""


@dataclass(frozen=True, slots=True)
class View:
    """What a judgement looks at."""

    containers: Mapping[str, Sighting]
    attempts: Mapping[str, Attempts]
    """Both by container id."""
    ready: Collection[str]
    """The ids of those that were ready the last time."""
    now: float
    on_trial: bool = False
    """It has never served: what keeps failing is given up."""
    pinned: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """What images were resolved to, by variant and the container's name in a pipeline."""


def judge(spec: ContainerSpec, startup_timeout: float, view: View) -> Judgement:
    """Say how a container is and what is to be done; `startup_timeout` in seconds, from its start to a good ping."""
    attempts = view.attempts.get(spec.id, Attempts())
    seen = view.containers.get(spec.id)
    if isinstance(seen, Launching):
        return _launching(spec, startup_timeout, attempts, seen, view)
    if seen is None:
        if attempts.begun >= TRIAL_STARTS and view.now >= (due := attempts.begun_at + _longest(spec, startup_timeout)):
            return _overdue(spec, attempts, Launching(attempts.begun_at), due, view)
        return _start(spec, attempts, view)
    attempts = attempts.launched()
    match seen:
        case Stopping():
            return Judgement(spec, "stopping", attempts, "stopping")
        case LaunchFailed() as seen:
            severity: Severity = "transient" if seen.transient else "final"
            detail = f"{seen.step}: {seen.message}"
            return _start(spec, attempts.after(Failure(seen.step, detail, seen.at, seen.at, severity, seen.log)), view)
        case Present() as seen if seen.container.deployment != spec.deployment:
            return Judgement(spec, "stale", Attempts(), "replacing", None, Stop(spec.id, "replace"))
        case Present() as seen if seen.container.phase == "exited":
            box = seen.container
            detail = box.exit_reason or "exited"
            failure = Failure("exit", detail, box.started_at, box.exited_at or view.now, "counted", seen.log)
            return Judgement(spec, "exited", attempts.after(failure), detail, box, Stop(spec.id, "replace"))
        case Present() as seen:
            return _running(spec, startup_timeout, attempts, seen, view)


def is_hopeless(judged: Judgement, startup_timeout: float) -> bool:
    """Tell whether it need not be tried again."""
    attempts = judged.attempts
    last = attempts.last
    if last is None or not attempts.failures:
        return False
    if last.severity == "transient":
        return last.at - attempts.first_at >= startup_timeout
    return last.severity == "final" or attempts.failures >= TRIAL_STARTS


def stop_all(
    containers: Mapping[str, Sighting], grace: GraceKind, keep: Collection[str] = frozenset()
) -> tuple[Action, ...]:
    """Stop what is there and not to be kept."""
    actions: list[Action] = []
    for id, seen in containers.items():
        if id in keep or isinstance(seen, LaunchFailed):
            continue
        # A deletion does not wait for the longer grace of a replacement that is under way.
        if not isinstance(seen, Stopping) or (grace == "delete" and seen.grace == "replace"):
            actions.append(Stop(id, grace))
    return tuple(actions)


def _start(spec: ContainerSpec, attempts: Attempts, view: View) -> Judgement:
    if attempts.failures and attempts.last is not None:
        delays = TRIAL_DELAYS if view.on_trial else SERVING_DELAYS
        due = attempts.last.at + delays[min(attempts.failures, len(delays)) - 1]
        if view.now < due:
            return Judgement(spec, "waiting", attempts, f"restarting after: {attempts.last.detail}", wake_at=due)
    # What was resolved once stays: an image that was pushed anew does not mix two builds behind one endpoint.
    pinned = view.pinned.get((spec.variant, spec.hostname))
    wanted = spec if pinned is None else replace(spec, resolved_image=pinned)
    return Judgement(spec, "launching", attempts.beginning(view.now), "launching", action=Launch(wanted))


def _launching(
    spec: ContainerSpec, startup_timeout: float, attempts: Attempts, seen: Launching, view: View
) -> Judgement:
    # One that was cut off has its whole time again, but not for ever: the next ones have what the first has left.
    since = attempts.begun_at if attempts.begun >= TRIAL_STARTS else seen.since
    deadline = since + _longest(spec, startup_timeout)
    if view.now < deadline:
        return Judgement(spec, "launching", attempts, seen.progress or "launching", wake_at=deadline)
    return _overdue(spec, attempts, replace(seen, since=since), deadline, view)


def _longest(spec: ContainerSpec, startup_timeout: float) -> float:
    """Give how long a launch may take, in seconds."""
    return spec.download_timeout + startup_timeout


def _overdue(spec: ContainerSpec, attempts: Attempts, seen: Launching, deadline: float, view: View) -> Judgement:
    cut = f", and was begun {attempts.begun} times" if attempts.begun > 1 else ""
    last = seen.progress or "nothing reported"
    detail = f"launch took longer than {deadline - seen.since:.0f} s{cut}; last: {last}"
    failed = attempts.after(Failure("launch", detail, seen.since, view.now, "final"))
    stop = Stop(spec.id, "replace") if spec.id in view.containers else None
    return Judgement(spec, "overdue", failed, detail, None, stop)


def _running(spec: ContainerSpec, startup_timeout: float, attempts: Attempts, seen: Present, view: View) -> Judgement:
    box, ping, now = seen.container, seen.ping, view.now
    was_ready = spec.id in view.ready
    if was_ready and ping is not None and ping.failures >= UNHEALTHY_AFTER:
        detail = f"{ping.failures} pings in a row failed; last: {ping.words}"
        failed = attempts.after(Failure("unhealthy", detail, box.started_at, now, "counted", seen.log))
        return Judgement(spec, "unhealthy", failed, detail, box, Stop(spec.id, "replace"))
    if was_ready or (ping is not None and ping.answer == "ok"):
        since = now if attempts.ready_since is None else attempts.ready_since
        return Judgement(spec, "ready", replace(attempts, ready_since=since), container=box)
    deadline = box.started_at + startup_timeout
    if now < deadline:
        return Judgement(spec, "starting", attempts, seen.words, box, wake_at=deadline)
    detail = f"{seen.words}, for {startup_timeout:.0f} s"
    failed = attempts.after(Failure("ping", detail, box.started_at, now, "final", seen.log))
    return Judgement(spec, "overdue", failed, detail, box, Stop(spec.id, "replace"))
