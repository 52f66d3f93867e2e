"""What DescribeEndpoint says while an endpoint comes up, serves, or has failed.

Which members there are in which state is AWS's (recorded fixtures): no ProductionVariants before the first InService
and none when Failed. What begins with an underscore is Clary's own memory and never leaves the store. Values are JSON's
own (lists, not tuples), so that a status read back equals the one that was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from clary.core.deployment import ContainerTemplate, Judgement, VariantGroup
from clary.core.failure import LONGEST, shorten


def creating_status(config: str, since: float, groups: Sequence[VariantGroup]) -> dict[str, object]:
    """Describe an endpoint that has not served yet, with what each variant is doing."""
    summaries = {
        member: [
            {
                **_counts(group),
                "InstanceType": group.variant.instance_type,
                "VariantStatus": [_doing("Creating", group, since)],
            }
            for group in kind
        ]
        for member, kind in _kinds(groups)
    }
    return {
        "EndpointStatus": "Creating",
        "EndpointConfigName": config,
        "PendingDeploymentSummary": {"EndpointConfigName": config, **summaries, "StartTime": since},
        "_Ready": _ready(groups),
        "_Images": images_of(_containers(groups), {}),
    }


def serving_status(config: str, groups: Sequence[VariantGroup], before: Mapping[str, object]) -> dict[str, object]:
    """Describe an endpoint in service. `before` is the last status: it knows the images of what is down just now."""
    images = images_of(_containers(groups), pinned_images(before))
    summaries = {
        member: [{**_counts(group), **_deployed(group, images), **_disturbance(group)} for group in kind]
        for member, kind in _kinds(groups)
    }
    return {
        "EndpointStatus": "InService",
        "EndpointConfigName": config,
        **summaries,
        "_Ready": _ready(groups),
        "_Images": images,
    }


def failed_status(config: str, reason: str) -> dict[str, object]:
    """Describe an endpoint that could not be created."""
    return {
        "EndpointStatus": "Failed",
        "EndpointConfigName": config,
        "FailureReason": shorten(reason, LONGEST),
        "_Ready": [],
    }


Resolution = tuple[str, float]
"""What an image was resolved to, and when."""


def pinned_images(status: Mapping[str, object]) -> dict[tuple[str, str], Resolution]:
    """Give what a status remembers of its images, by variant and the container's name in a pipeline."""
    entries = cast("Sequence[tuple[str, str, str, float]]", status.get("_Images", ()))
    return {(variant, hostname): (resolved, at) for variant, hostname, resolved, at in entries}


def ready_before(status: Mapping[str, object]) -> frozenset[str]:
    """Give the ids of the containers that were ready when a status was written."""
    ready = status.get("_Ready", ())
    return frozenset(ready) if isinstance(ready, (list, tuple)) else frozenset()


def images_of(containers: Iterable[Judgement], before: Mapping[tuple[str, str], Resolution]) -> list[list[object]]:
    """Give what is to be remembered of images: those of before, and those of the containers that there are now."""
    known = dict(before)
    for judged in containers:
        if (box := judged.container) is not None and box.resolved_image:
            known.setdefault((judged.spec.variant, judged.spec.hostname), (box.resolved_image, box.started_at))
    return [[*key, *resolution] for key, resolution in sorted(known.items())]


def _kinds(groups: Iterable[VariantGroup]) -> Iterable[tuple[str, list[VariantGroup]]]:
    """Give the members for production and shadow variants, each with its own; no empty list, like the service."""
    groups = list(groups)
    yield "ProductionVariants", [group for group in groups if not group.variant.shadow]
    if shadows := [group for group in groups if group.variant.shadow]:
        yield "ShadowProductionVariants", shadows


def _containers(groups: Iterable[VariantGroup]) -> list[Judgement]:
    return [container for group in groups for container in group.containers]


def _ready(groups: Iterable[VariantGroup]) -> list[str]:
    return [container.spec.id for container in _containers(groups) if container.ready]


def _counts(group: VariantGroup) -> dict[str, object]:
    variant = group.variant
    return {
        "VariantName": variant.name,
        "CurrentWeight": variant.weight,
        "DesiredWeight": variant.weight,
        "CurrentInstanceCount": sum(instance.ready for instance in group.instances),
        "DesiredInstanceCount": variant.count,
    }


def _doing(status: str, group: VariantGroup, since: float) -> dict[str, object]:
    ready = sum(instance.ready for instance in group.instances)
    messages = dict.fromkeys(_message(container) for container in group.containers if not container.ready)
    text = "; ".join((f"{ready} of {len(group.instances)} instances ready", *messages))
    return {"Status": status, "StatusMessage": shorten(text, LONGEST), "StartTime": since}


def _message(judged: Judgement) -> str:
    return f"{judged.spec.hostname}: {judged.message}" if judged.spec.hostname else judged.message


def _disturbance(group: VariantGroup) -> dict[str, object]:
    """VariantStatus is there only while something happens."""
    failures = [c.attempts.last.at for c in group.containers if not c.ready and c.attempts.last is not None]
    return {"VariantStatus": [_doing("Updating", group, min(failures))]} if failures else {}


def _deployed(group: VariantGroup, images: Iterable[Sequence[object]]) -> dict[str, object]:
    if group.variant.packed:
        return {}
    known = {(variant, hostname): (resolved, at) for variant, hostname, resolved, at in images}
    name = group.variant.name
    return {
        "DeployedImages": [_deployed_image(each, known.get((name, each.hostname))) for each in group.variant.containers]
    }


def _deployed_image(template: ContainerTemplate, resolution: tuple[object, object] | None) -> dict[str, object]:
    if resolution is None:
        return {"SpecifiedImage": template.image}
    return {"SpecifiedImage": template.image, "ResolvedImage": resolution[0], "ResolutionTime": resolution[1]}
