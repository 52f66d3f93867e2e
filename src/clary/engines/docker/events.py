"""Docker's events: who is told that something happened to a container of ours, also after Docker was away."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

import aiohttp
from aiodocker import Docker, DockerError

from clary.engines.docker.labels import ID, OWNER, id_of_event
from clary.telemetry import logger

_PAUSES = (0.2, 0.5, 1.0, 2.0)
"""Seconds before Docker is asked again, by the number of failures in a row; the last one stays."""
_NEWS = frozenset(("start", "die", "oom", "destroy", "remove", "pause", "unpause"))
"""`remove` is Podman's for `destroy`. It has no `die` for who asks for nothing else, so they are chosen from here."""
_log = logger("docker")


class Events:
    """Follows the events of one owner's containers.

    `changed` is told our id of a container; `reconnected` is called whenever events may have been missed.
    """

    def __init__(
        self, docker: Docker, owner: str, changed: Callable[[str], object], reconnected: Callable[[], object]
    ) -> None:
        self._docker = docker
        self._filters = json.dumps({"type": ["container"], "label": [f"{OWNER}={owner}", ID]})
        self._changed = changed
        self._reconnected = reconnected
        self._task = asyncio.create_task(self._follow(), name="docker events")

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _follow(self) -> None:
        failures = 0
        while True:
            # aiodocker has no types here.
            subscriber: Any = self._docker.events.subscribe(create_task=False)  # type: ignore[no-untyped-call]
            running = asyncio.create_task(self._docker.events.run(filters=self._filters))
            try:
                while (event := await subscriber.get()) is not None:
                    if event["Action"] in _NEWS:
                        self._changed(id_of_event(event))
                    failures = 0
                await running
            except (DockerError, aiohttp.ClientError, OSError) as error:
                if not failures:
                    _log.warning("Docker is away; its containers are taken to be as they were", reason=str(error))
            finally:
                running.cancel()
                with contextlib.suppress(asyncio.CancelledError, DockerError, aiohttp.ClientError, OSError):
                    await running
            await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
            failures += 1
            if await self._answers():
                self._reconnected()

    async def _answers(self) -> bool:
        with contextlib.suppress(DockerError, aiohttp.ClientError, OSError):
            await self._docker.version()
            return True
        return False
