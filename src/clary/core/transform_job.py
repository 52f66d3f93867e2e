"""What to do next for a transform job: `plan(job, observed, outcome, now)`, as `core.endpoint` does it for endpoints.

A job's containers are judged like an endpoint's that is being created; but a container that has answered and then died
starts afresh: it may have been one record's doing, of which the job's agent knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from clary.core.deployment import (
    Action,
    Attempts,
    Desired,
    Instance,
    Judgement,
    LaunchFailed,
    Observed,
    Present,
    Sighting,
    Slot,
    Variant,
)
from clary.core.describe import images_of, pinned_images, ready_before
from clary.core.endpoint import instances_of, scene_of
from clary.core.failure import LONGEST, explained, shorten
from clary.core.judgement import View, is_hopeless, judge, stop_all
from clary.core.resources import TRANSFORM_JOB
from clary.core.routing import Hop
from clary.core.transform import Outcome

ALGORITHM = "AlgorithmError: See job logs for more information."
CLIENT = "ClientError: See job logs for more information."
_ON_THE_DATA = frozenset(("image", "download", "unpack", "size"))
"""Steps at which a launch fails by what it was given."""


@dataclass(frozen=True, slots=True)
class Job:
    """A transform job that is under way, in the planner's words."""

    name: str
    arn: str
    created_at: float
    deployment: str = ""
    """Fingerprint of what its containers are launched from."""
    variant: Variant | None = None
    """What runs on each of its instances; None where it is refused."""
    refusal: str = ""
    """A sentence that says why Clary cannot run this at all."""
    stopping: bool = False

    @property
    def wanted(self) -> Desired:
        """Give it in the words of endpoints."""
        variants = () if self.variant is None else (self.variant,)
        return Desired(self.name, self.arn, "", self.created_at, self.deployment, variants)

    def slots(self) -> Iterator[Slot]:
        """Give each container that there should be."""
        for slot in self.wanted.slots():
            yield replace(slot, spec=replace(slot.spec, kind=TRANSFORM_JOB.name, since=int(self.created_at)))

    @property
    def instances(self) -> list[str]:
        """Give the ids of its instances."""
        return list(dict.fromkeys(slot.spec.instance_id for slot in self.slots()))


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What to do and say now."""

    status: Mapping[str, object]
    actions: tuple[Action, ...] = ()
    instances: tuple[Instance, ...] = ()
    """Those that answer."""
    works: bool = False
    """Whether there should be an agent."""
    wake_at: float | None = None
    attempts: Mapping[str, Attempts] = field(default_factory=dict)
    """To be handed to the next plan."""
    is_gone: bool = False
    """Nothing of it is left but its record."""


def is_ended(status: Mapping[str, object]) -> bool:
    """Tell whether a job's status is one that stays."""
    return status.get("TransformJobStatus") in ("Completed", "Failed", "Stopped")


def plan(job: Job, observed: Observed, outcome: Outcome | None, now: float) -> JobPlan:
    """Decide. `outcome`: what the agent said, once it did; `now` in seconds since the epoch."""
    status = observed.status
    left = any(not isinstance(seen, LaunchFailed) for seen in observed.containers.values())
    stops = stop_all(observed.containers, "delete")
    if is_ended(status):
        return JobPlan(status, stops, is_gone=not left)
    if job.stopping:
        if left:
            return JobPlan({**status, "TransformJobStatus": "Stopping"}, stops)
        return JobPlan(_ended(status, "Stopped", "", now))
    if outcome is not None:
        return JobPlan(_ended(status, outcome.ending, outcome.reason, now), stops)
    if job.refusal:
        return JobPlan(_ended(status, "Failed", f"{CLIENT} {job.refusal}", now), stops)
    return _work(job, observed, now)


def _work(job: Job, observed: Observed, now: float) -> JobPlan:
    ready = ready_before(observed.status)
    view = View(
        {id: _working(seen) if id in ready else seen for id, seen in observed.containers.items()},
        observed.attempts,
        ready,
        now,
        on_trial=True,
        pinned={place: resolved for place, (resolved, _) in pinned_images(observed.status).items()},
    )
    judged = [(slot, judge(slot.spec, slot.variant.startup_timeout, view)) for slot in job.slots()]
    for slot, judgement in judged:
        if is_hopeless(judgement, slot.variant.startup_timeout):
            reason = _explain(job, slot, judgement.attempts, now)
            return JobPlan(_ended(observed.status, "Failed", reason, now), stop_all(observed.containers, "delete"))
    judgements = [judgement for _, judgement in judged]
    instances = tuple(instance for instance in instances_of(judgements) if instance.ready)
    strays = stop_all(observed.containers, "delete", keep={judgement.spec.id for judgement in judgements})
    status: dict[str, object] = {
        **observed.status,
        "TransformJobStatus": "InProgress",
        "_Ready": [judgement.spec.id for judgement in judgements if judgement.ready],
        "_Images": images_of(judgements, pinned_images(observed.status)),
    }
    if instances:
        status.setdefault("TransformStartTime", now)
    return JobPlan(
        status,
        (*(judgement.action for judgement in judgements if judgement.action is not None), *strays),
        instances,
        True,
        min((judgement.wake_at for judgement in judgements if judgement.wake_at is not None), default=None),
        {judgement.spec.id: _counted(judgement) for judgement in judgements},
    )


def _working(seen: Sighting) -> Sighting:
    """Leave out how a container answers pings that was ready: one that computes may have no time for them."""
    return replace(seen, ping=None) if isinstance(seen, Present) else seen


def _counted(judgement: Judgement) -> Attempts:
    return replace(judgement.attempts, failures=0) if judgement.ready else judgement.attempts


def _ended(status: Mapping[str, object], word: str, reason: str, now: float) -> dict[str, object]:
    why = {"FailureReason": shorten(reason, LONGEST)} if reason else {}
    return {**status, "TransformJobStatus": word, **why, "TransformEndTime": now}


def _explain(job: Job, slot: Slot, attempts: Attempts, now: float) -> str:
    assert attempts.last is not None, "something has failed"
    words = CLIENT if attempts.last.step in _ON_THE_DATA else ALGORITHM
    scene = scene_of(job.wanted, slot, attempts, now)
    advice = f"Next: clary transform logs {job.name}"
    return explained(f"{words} Container: {scene.container}.", attempts.last, scene, advice)


def hops_of(instances: Sequence[Instance]) -> dict[str, tuple[Hop, ...]]:
    """Give where the containers of each instance answer, in the order of the pipeline."""
    return {
        instance.id: tuple(
            Hop(box.id, box.host, box.port, judged.spec.hostname or "primary")
            for judged in instance.containers
            if (box := judged.container) is not None
        )
        for instance in instances
    }
