"""What the engine at the other end is, has and can: Docker or Podman, and what of the contract it does not keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiodocker import Docker

from clary.engines.docker import seccomp

_NO_LIMITS = "This Docker engine cannot limit memory: models may use all that there is."
_NO_WALLS = (
    "Podman does not keep containers of one network apart: models can connect to each other's ports, where nobody asks "
    "for a signature."
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What containers are made for. Sizes in bytes."""

    cpus: int
    memory: int
    shm: int
    podman: bool = False
    local: bool | None = None
    """Whether containers' addresses lead to them from here; None: each bridge shows it."""
    seccomp: str | None = None
    """What is asked for of isolated containers, as SecurityOpt takes it; None: the engine's own profile stays."""
    notes: tuple[str, ...] = ()
    """What it cannot enforce, as sentences."""


async def examine(docker: Docker, shm: int, folder: Path) -> Machine:
    """Ask an engine. `shm`: of each container; `folder`: for a file that the engine reads."""
    info, version = await docker.system.info(), await docker.version()
    podman = any("Podman" in part["Name"] for part in version.get("Components") or ())
    # Podman 4 tells in a member of its own what Docker has among its security options.
    rootless = bool(info.get("Rootless")) or "name=rootless" in (info.get("SecurityOptions") or ())
    obstacle = seccomp.obstacle(info)
    return Machine(
        cpus=int(info["NCPU"]),
        memory=int(info["MemTotal"]),
        shm=shm,
        podman=podman,
        # Its bridges are there as long as a container is, so they show nothing before.
        local=not rootless if podman else None,
        seccomp=_profile(podman, folder) if obstacle is None else None,
        notes=tuple(_notes(info, podman, rootless, obstacle)),
    )


def _profile(podman: bool, folder: Path) -> str:
    """Give the profile as the engine wants it: Docker as text, Podman as the path of a file."""
    if not podman:
        return f"seccomp={seccomp.profile()}"
    file, fresh = folder / "seccomp.json", folder / ".seccomp.json"
    fresh.write_text(seccomp.profile())
    fresh.rename(file)
    return f"seccomp={file.absolute()}"


def _notes(info: Mapping[str, Any], podman: bool, rootless: bool, obstacle: str | None) -> Iterator[str]:
    # Podman says what the kernel could do; without root it may only by control groups of version 2.
    if not info.get("MemoryLimit", True) or (podman and rootless and info.get("CgroupVersion") == "1"):
        yield _NO_LIMITS
    if podman:
        yield _NO_WALLS
    if obstacle is not None:
        yield obstacle
