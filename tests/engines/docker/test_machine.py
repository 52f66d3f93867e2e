"""What is concluded of an engine from what it says of itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clary.engines.docker.machine import Machine, examine

SECCOMP = "name=seccomp,profile=default"
DOCKER, PODMAN = {"Components": [{"Name": "Engine"}]}, {"Components": [{"Name": "Podman Engine"}]}


async def examined(folder: Path, version: dict[str, Any], **info: Any) -> Machine:
    """Examine an engine that answers with these."""
    whole = {"NCPU": 2, "MemTotal": 2**30, "MemoryLimit": True, "SecurityOptions": [SECCOMP], **info}

    async def say(answer: object) -> object:
        return answer

    docker: Any = SimpleNamespace(system=SimpleNamespace(info=lambda: say(whole)), version=lambda: say(version))
    return await examine(docker, 2**26, folder)


@pytest.mark.parametrize(
    ("version", "info", "local"),
    [
        (DOCKER, {}, None),
        (DOCKER, {"SecurityOptions": [SECCOMP, "name=rootless"]}, None),
        (PODMAN, {"Rootless": False}, True),
        (PODMAN, {"Rootless": True}, False),  # as version 4 says it
        (PODMAN, {"SecurityOptions": [SECCOMP, "name=rootless"]}, False),
    ],
)
async def test_the_addresses_of_containers_without_root_lead_nowhere_from_here(
    tmp_path: Path, version: dict[str, Any], info: dict[str, Any], local: bool | None
) -> None:
    assert (await examined(tmp_path, version, **info)).local is local


@pytest.mark.parametrize(
    ("version", "info", "told"),
    [
        (DOCKER, {}, False),
        (DOCKER, {"MemoryLimit": False}, True),
        (PODMAN, {"Rootless": True, "CgroupVersion": "1"}, True),
        (PODMAN, {"Rootless": True, "CgroupVersion": "2"}, False),
        (PODMAN, {"Rootless": False, "CgroupVersion": "1"}, False),
    ],
)
async def test_an_engine_that_cannot_limit_memory_is_told_of(
    tmp_path: Path, version: dict[str, Any], info: dict[str, Any], told: bool
) -> None:
    notes = (await examined(tmp_path, version, **info)).notes
    assert any("cannot limit memory" in note for note in notes) is told
