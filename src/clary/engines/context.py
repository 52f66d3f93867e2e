"""What an engine is given by the composition root."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clary.core.ports import ContainerSpec
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
    role_variables: Callable[[ContainerSpec], Mapping[str, str]] = lambda spec: {}
    """Gives the variables by which a container finds the credentials of its role."""
