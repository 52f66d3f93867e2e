"""Which containers of one data folder there are: listed by Docker, and asked about one by one where there is news."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence

from aiodocker import Docker
from aiodocker.containers import DockerContainer

from clary.engines.docker import labels, lost
from clary.engines.docker.daemon import gone_is_fine, translated
from clary.engines.docker.labels import Inspected
from clary.errors import LaunchFailure, Transient
from clary.telemetry import logger

_log = logger("docker")


class Census:
    """What the last look found. `launching` gives our ids of those that a launch is making."""

    def __init__(self, owner: str, launching: Callable[[], set[str]]) -> None:
        self._owner = owner
        self._launching = launching
        self._seen: dict[str, Inspected] = {}
        """By Docker's id, as of the last look."""
        self._news: set[str] = set()
        """Our ids of those that an event has told of since."""
        self._gone: set[str] = set()
        """Docker's ids of those that we have removed: a look that began before may still tell of them."""
        self._strangers: set[str] = set()
        """Docker's ids of those that bear our labels and are not ours."""

    @property
    def seen(self) -> list[Inspected]:
        """Give those that were there."""
        return list(self._seen.values())

    async def take(self, docker: Docker) -> tuple[list[Inspected], set[str]]:
        """Look: give every container of ours that was started, and our ids of those that have vanished.

        What was created and never started is removed. Raises Transient where Docker does not answer.
        """
        launching = self._launching()  # before Docker is asked: what these make is theirs
        with translated("looking at the containers"):
            boxes = await self.boxes(docker)
            self._gone &= {box.id for box in boxes}
            looked = [each for each in await asyncio.gather(*map(self._look_at, boxes)) if each is not None]
        launching |= self._launching()
        await self.clear(docker, [each for each in looked if labels.id_of(each) not in launching])
        found = [each for each in looked if labels.phase(each) == "started" and each["Id"] not in self._gone]
        vanished = ids(self._seen.values()) - ids(found) - self._launching()
        self._seen = {each["Id"]: each for each in found}
        return found, vanished

    async def boxes(self, docker: Docker) -> list[DockerContainer]:
        """Give what we made. What only bears our labels is told of once, and left alone."""
        labelled = [f"{labels.OWNER}={self._owner}", labels.ID]
        boxes = await docker.containers.list(all=True, filters=json.dumps({"label": labelled}))
        strangers = [box for box in boxes if not labels.is_ours(self._owner, box)]
        for box in strangers:
            if box.id not in self._strangers and box["Names"]:  # one that is half removed has no name any more
                _log.warning("a container has Clary's labels and is not Clary's: left alone", names=box["Names"])
        self._strangers = {box.id for box in strangers}
        return [box for box in boxes if box.id not in self._strangers]

    async def clear(self, docker: Docker, found: Sequence[Inspected]) -> None:
        """Remove what was created and never started: its launch has died, or Docker has in the middle of it."""
        for inspected in found:
            if labels.phase(inspected) == "created":
                try:
                    with translated(f"removing {inspected['Name']}"):
                        # Not by force: what has been started after all is refused.
                        await docker.containers.container(inspected["Id"]).delete(v=True)
                except (Transient, LaunchFailure) as trouble:  # the next look tries again
                    _log.warning("a container that was never started stays", reason=trouble.message)
                    continue
                if killed := await asyncio.to_thread(lost.end, inspected["Id"]):
                    _log.warning("Docker had lost sight of a container that ran", name=inspected["Name"], killed=killed)

    async def _look_at(self, box: DockerContainer) -> Inspected | None:
        """Ask about one container if there is news of it: the list does not say when it began and how it ended."""
        known = self._seen.get(box.id)
        if known is not None and known["State"]["Status"] == box["State"] and labels.id_of(known) not in self._news:
            return known
        if known is not None:
            self._news.discard(labels.id_of(known))  # before asking: what happens from here on is news again
        return await shown(box)

    def note(self, inspected: Inspected) -> None:
        """Know of a container, as it was shown just now."""
        self._seen[inspected["Id"]] = inspected

    def changed(self, id: str) -> None:
        """Ask about it at the next look."""
        self._news.add(id)

    def removed(self, id: str) -> None:
        """Forget a container that we have removed."""
        for container_id, inspected in list(self._seen.items()):
            if labels.id_of(inspected) == id:
                del self._seen[container_id]
                self._gone.add(container_id)

    def forget(self, id: str) -> None:
        """Take no news of it for news any more."""
        self._news.discard(id)

    def reconnected(self) -> None:
        """Count on no removal: Docker may have been about to finish it when it died."""
        self._gone.clear()


async def shown(box: DockerContainer) -> Inspected | None:
    """Give what Docker says of a container; None where it is gone."""
    with gone_is_fine():
        return await box.show()
    return None


def ids(found: Iterable[Inspected]) -> set[str]:
    """Give our ids."""
    return {labels.id_of(each) for each in found}
