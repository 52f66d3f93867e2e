"""What an engine is given by the composition root."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clary.core.containers import ContainerSpec
from clary.engines.fetching import ReadRefusal
from clary.objects import Objects


@dataclass(frozen=True, slots=True)
class EngineContext:
    """Folders, sources and bounds. Sizes in bytes."""

    data: Path
    logs: Path
    objects: Objects
    catalogue: Path | None
    """The user's own image catalogue, asked before the shipped one."""
    artifact_cache_bytes: int
    max_artifact_bytes: int
    region: str
    on_change: Callable[[str], object]
    """Told the id of a container that exited."""
    registries: Mapping[str, Any] = field(default_factory=dict)
    """The table of that name in the settings file; only an engine that pulls images has a use for it."""
    lambda_endpoint: str = ""
    """Where functions are invoked that give a registry's credentials; empty: nowhere."""
    ignore_vpc: bool = False
    """Whether an engine without networks runs models that have a VpcConfig."""
    networks: Mapping[str, str] = field(default_factory=dict)
    """The table of that name: the Docker network that each subnet and security group stands for."""
    shm_bytes: int = 64 * 1024 * 1024
    """Size of /dev/shm, where the engine makes one."""
    read_refusal: ReadRefusal = lambda role_arn, action, url: None
    """Asked before each download."""
    role_variables: Callable[[ContainerSpec], Mapping[str, str]] = lambda spec: {}
    """Gives the variables by which a container finds the credentials of its role."""
    lines_dropped: Callable[[int], object] = lambda times: None
    """Told how often a container's output was left out because it came too fast."""
