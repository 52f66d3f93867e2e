"""The models that an endpoint's multi-model containers have loaded, as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clary.cli.packing import put
from clary.core.residency import Shelved

PATH = "/_clary/models"
MB = 1_000_000


def ask(control_socket: Path, endpoint: str) -> list[Shelved]:
    """Ask what each multi-model container of an endpoint has; empty where there is none, or nobody can tell now."""
    answer = put(control_socket, PATH, {"do": "tell", "endpoint": endpoint}) or {}
    return [Shelved(**each) for each in answer.get("shelves", ())]


def text(shelves: Sequence[Shelved]) -> list[str]:
    """Say it in lines: one for each container, and one for the models that were used last."""
    lines = []
    for shelf in shelves:
        loading = f", {shelf.loading} being loaded" if shelf.loading else ""
        files = f"files of {shelf.placed} on the disk ({shelf.size / MB:.1f} MB)"
        lines.append(f"{shelf.instance}  variant {shelf.variant}: {shelf.loaded} loaded{loading}, {files}")
        if shelf.recent:
            more = ", ..." if shelf.loaded > len(shelf.recent) else ""
            lines.append(f"  used last: {', '.join(shelf.recent)}{more}")
    return lines
