"""The volumes that an image asks for (VOLUME): one each for a container, and gone with it.

Docker would make them without being asked, and without a label: those that a dockerd loses count of, because it is
killed while it makes or removes a container, could never be told from anybody else's.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable
from typing import Any

from aiodocker import Docker, DockerError
from aiodocker.volumes import DockerVolume

from clary.engines.docker.daemon import translated
from clary.engines.docker.labels import OWNER


def mounts(paths: Iterable[str], taken: Collection[str], owner: str) -> list[dict[str, Any]]:
    """Give the volumes of one container, as members of Mounts; none where something else is shown (`taken`)."""
    options = {"Labels": {OWNER: owner}}
    return [
        {"Type": "volume", "Target": path, "VolumeOptions": options}
        for path in paths
        if posixpath.normpath(path) not in taken
    ]


async def remove_unused(docker: Docker, owner: str) -> None:
    """Remove every volume of an owner that no container has. Raises Transient where Docker does not answer."""
    filters = {"dangling": ["true"], "label": [f"{OWNER}={owner}"]}
    with translated("looking for volumes that nobody has"):
        # aiodocker has no types here.
        found = await docker.volumes.list(filters=filters)  # type: ignore[no-untyped-call]
        for volume in found["Volumes"] or ():
            try:
                await DockerVolume(docker, volume["Name"]).delete()  # type: ignore[no-untyped-call]
            except DockerError as error:
                if error.status not in (404, 409):  # gone, or in use after all
                    raise
