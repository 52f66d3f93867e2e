"""What DescribeEndpoint says while an endpoint comes up, serves, or has failed.

Which members there are in which state is AWS's (recorded fixtures): no ProductionVariants before the first InService
and none when Failed. What begins with an underscore is Clary's own memory and never leaves the store. Values are JSON's
own (lists, not tuples), so that a status read back equals the one that was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from clary.core.deployment import Instance, Variant
from clary.core.failure import LONGEST, shorten

Group = tuple[Variant, Sequence[Instance]]
"""A variant and its judged instances."""


def creating_status(config: str, since: float, groups: Iterable[Group]) -> dict[str, object]:
    """Describe an endpoint that has not served yet, with what each variant is doing."""
    groups = list(groups)
    return {
        "EndpointStatus": "Creating",
        "EndpointConfigName": config,
        "PendingDeploymentSummary": {
            "EndpointConfigName": config,
            "ProductionVariants": [
                {
                    **_counts(variant, instances),
                    "InstanceType": variant.instance_type,
                    "VariantStatus": [_doing("Creating", instances, since)],
                }
                for variant, instances in groups
            ],
            "StartTime": since,
        },
        "_Ready": _ready(groups),
    }


def serving_status(config: str, groups: Iterable[Group], before: Mapping[str, object]) -> dict[str, object]:
    """Describe an endpoint in service. `before` is the last status: it knows the images of what is down just now."""
    groups = list(groups)
    return {
        "EndpointStatus": "InService",
        "EndpointConfigName": config,
        "ProductionVariants": [
            {
                **_counts(variant, instances),
                "DeployedImages": _deployed(variant, instances, before),
                **_disturbance(instances),
            }
            for variant, instances in groups
        ],
        "_Ready": _ready(groups),
    }


def failed_status(config: str, reason: str) -> dict[str, object]:
    """Describe an endpoint that could not be created."""
    return {
        "EndpointStatus": "Failed",
        "EndpointConfigName": config,
        "FailureReason": shorten(reason, LONGEST),
        "_Ready": [],
    }


def _ready(groups: Iterable[Group]) -> list[str]:
    return [instance.spec.id for _, instances in groups for instance in instances if instance.ready]


def _counts(variant: Variant, instances: Sequence[Instance]) -> dict[str, object]:
    return {
        "VariantName": variant.name,
        "CurrentWeight": variant.weight,
        "DesiredWeight": variant.weight,
        "CurrentInstanceCount": sum(instance.ready for instance in instances),
        "DesiredInstanceCount": variant.count,
    }


def _doing(status: str, instances: Sequence[Instance], since: float) -> dict[str, object]:
    ready = sum(instance.ready for instance in instances)
    messages = dict.fromkeys(instance.message for instance in instances if not instance.ready)
    text = "; ".join((f"{ready} of {len(instances)} instances ready", *messages))
    return {"Status": status, "StatusMessage": shorten(text, LONGEST), "StartTime": since}


def _disturbance(instances: Sequence[Instance]) -> dict[str, object]:
    """VariantStatus is there only while something happens."""
    failures = [i.attempts.last.at for i in instances if not i.ready and i.attempts.last is not None]
    if all(instance.ready for instance in instances) or not failures:
        return {}
    return {"VariantStatus": [_doing("Updating", instances, min(failures))]}


def _deployed(variant: Variant, instances: Sequence[Instance], before: Mapping[str, object]) -> list[object]:
    for instance in instances:
        if instance.ready and instance.container is not None:
            box = instance.container
            resolved = {"ResolvedImage": box.resolved_image} if box.resolved_image else {}
            return [{"SpecifiedImage": variant.image, **resolved, "ResolutionTime": box.started_at}]
    variants = before.get("ProductionVariants")
    for summary in variants if isinstance(variants, list) else ():
        if summary.get("VariantName") == variant.name and "DeployedImages" in summary:
            return list(summary["DeployedImages"])
    return [{"SpecifiedImage": variant.image}]
