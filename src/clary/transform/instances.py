"""Where the containers of each instance answer, as the controller says it in the job's folder."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from clary.core.routing import Hop
from clary.jobfolder import JobFolder

LOOK = 0.02
"""Seconds between looks."""


class Places:
    """The instances of a job. One that is away is waited for: the controller decides when that is in vain."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._hops: Mapping[str, tuple[Hop, ...]] = {}
        self._news = asyncio.Event()
        self.started = 0.0
        """When the job was started, in seconds since the epoch; 0 before that."""

    async def run(self) -> None:
        """Keep looking, until cancelled."""
        stamp = None
        while True:
            newer = self._folder.instances_stamp()
            if newer != stamp and (found := self._folder.instances()) is not None:
                stamp, self._hops, self.started = newer, found.hops, found.started
                news, self._news = self._news, asyncio.Event()
                news.set()
            await asyncio.sleep(LOOK)

    def now(self, instance: str) -> tuple[Hop, ...] | None:
        """Give the containers of an instance, if all of them answer."""
        return self._hops.get(instance)

    async def of(self, instance: str) -> tuple[Hop, ...]:
        """Give the containers of an instance, once all of them answer."""
        while (hops := self._hops.get(instance)) is None:
            await self._news.wait()
        return hops

    async def first(self) -> tuple[Hop, ...]:
        """Give the containers of an instance that answers, once there is one."""
        while not self._hops:
            await self._news.wait()
        return next(iter(self._hops.values()))
