"""Endpoints to plan for, and what engines say of their containers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clary.core.containers import Container, ContainerSpec, ModelData
from clary.core.deployment import (
    ContainerTemplate,
    Desired,
    Observed,
    Ping,
    Present,
    Variant,
)
from clary.core.endpoint import plan
from clary.testing import running

T0 = 1_700_000_000.0


ARN = "arn:aws:sagemaker:us-east-1:000000000000:endpoint/ep"
CREATING: Mapping[str, object] = {"EndpointStatus": "Creating"}
OK, REFUSED = Ping("ok"), Ping("refused", 0, 1)


def variant(name: str, image: str = "i", *data: ModelData, **changes: Any) -> Variant:
    return Variant(name, (ContainerTemplate(image, model_data=data),), **changes)


def desired(count: int = 1, created_at: float = T0, **changes: object) -> Desired:
    variants = (Variant("blue", (ContainerTemplate("img:1"),), count=count),)
    return replace(Desired("ep", ARN, "cfg", created_at, "d1", variants), **changes)


def container(spec: ContainerSpec, started_at: float = T0, **changes: object) -> Container:
    return running(spec, started_at, **changes)


def specs(wanted: Desired) -> list[ContainerSpec]:
    return [slot.spec for slot in wanted.slots()]


def in_service(wanted: Desired, ready: list[str] | None = None) -> Mapping[str, object]:
    seen = {spec.id: Present(container(spec), OK) for spec in specs(wanted)}
    status = plan(wanted, Observed(CREATING, seen), T0 + 1).status
    return status if ready is None else {**status, "_Ready": ready}
