"""What containers use, as Docker counts it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aiodocker import Docker, DockerError

from clary.core.containers import Usage
from clary.engines.docker.daemon import translated

_AT_ONCE = 8
"""Questions to Docker at a time: it reads a dozen files of the kernel's for each."""


async def measure(docker: Docker, containers: Iterable[tuple[str, str]], disk: Path) -> dict[str, Usage]:
    """Give what running containers use, by our ids; `containers` are Docker's ids and ours, `disk` is on their disk.

    Raises Transient where Docker does not answer. One that is gone meanwhile is left out.
    """
    places = asyncio.Semaphore(_AT_ONCE)
    total, used, _ = shutil.disk_usage(disk)

    async def one(container_id: str, id: str) -> tuple[str, Usage] | None:
        async with places:
            try:
                # One shot: Docker would wait for a second look, to say how many percent it were since.
                asked = {"stream": "0", "one-shot": "1"}
                async with docker._query(f"containers/{container_id}/stats", params=asked) as response:
                    stats = await response.json(content_type=None)  # Podman gives none
            except DockerError as error:
                if error.status in (404, 409):
                    return None
                raise
        # What is just ending has none, and of Podman without root, with control groups of version 1, nothing has.
        is_whole = stats and stats.get("memory_stats", {}).get("usage")
        return (id, to_usage(stats, 100.0 * used / total)) if is_whole else None

    with translated("measuring containers"):
        found = await asyncio.gather(*(one(*each) for each in containers))
    return dict(each for each in found if each is not None)


def to_usage(stats: Mapping[str, Any], disk_percent: float) -> Usage:
    """Read one container's statistics. The file cache that the kernel would give away at once is not counted."""
    memory = stats["memory_stats"]
    kinds = memory.get("stats", {})
    cache = kinds.get("inactive_file", kinds.get("total_inactive_file", 0))
    return Usage(
        cpu_seconds=stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9,
        memory=max(0, memory["usage"] - cache),
        memory_limit=memory["limit"],
        disk_percent=disk_percent,
    )
