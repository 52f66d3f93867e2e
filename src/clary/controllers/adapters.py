"""Adapters in containers: loaded and unloaded in the background, over the API that containers have for them.

`POST /adapters {"name", "src"}` loads what is in a directory, `DELETE /adapters/<name>` unloads it (AWS's model hosting
container standards, vLLM, DJL). Servers differ in what they say of a name that they have already: it is unloaded then,
and loaded anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Protocol

import aiohttp

from clary.controllers.model_api import Said
from clary.core.adapters import Load, LoadSeen, Unload
from clary.core.containers import Container
from clary.core.failure import printable, shorten
from clary.core.ports import HoldsModels
from clary.errors import LaunchFailure, Transient
from clary.telemetry import logger

_KEPT_BODY = 16 * 1024
_UNLOAD = 60.0
"""Seconds that an unload may take."""
_DRAIN = 2.0
"""Seconds between the moment from which gateways send nothing to what is unloaded and its unload."""


class AdapterApi(Protocol):
    """Asks a container. Raises Transient where it does not answer."""

    async def load(self, container: Container, name: str, path: str, timeout: float) -> Said: ...

    async def unload(self, container: Container, name: str) -> Said: ...


class HttpAdapterApi:
    """Implements AdapterApi over HTTP/1.1."""

    async def load(self, container: Container, name: str, path: str, timeout: float) -> Said:
        return await _ask(container, "POST", "/adapters", timeout, {"name": name, "src": path})

    async def unload(self, container: Container, name: str) -> Said:
        return await _ask(container, "DELETE", f"/adapters/{name}", _UNLOAD)


async def _ask(
    container: Container, method: str, path: str, timeout: float, document: dict[str, str] | None = None
) -> Said:
    url = f"http://{container.host}:{container.port}{path}"
    limit = aiohttp.ClientTimeout(total=timeout)
    try:
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,  # once in an adapter's life: no pool to keep
            session.request(method, url, json=document, timeout=limit, allow_redirects=False) as answer,
        ):
            return Said(answer.status, (await answer.content.read(_KEPT_BODY)).decode("utf-8", "replace"))
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        raise Transient(f"{method} {path}: {why}") from error


@dataclass(slots=True, eq=False)
class _Work:
    key: str
    seen: LoadSeen
    task: asyncio.Task[None] | None = None


class AdapterHands:
    """Loads and unloads, each in a task of its own. `notify` is told the key of an endpoint when one ends."""

    def __init__(
        self,
        engine: HoldsModels | None,
        clock: Callable[[], float],
        notify: Callable[[str], None],
        api: AdapterApi | None = None,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._notify = notify
        self._api = api or HttpAdapterApi()
        self._works: dict[tuple[str, str], _Work] = {}
        self._log = logger("adapters")

    def seen(self, key: str) -> dict[tuple[str, str], LoadSeen]:
        """Give how things go in the containers of an endpoint."""
        return {place: work.seen for place, work in self._works.items() if work.key == key}

    def do(self, key: str, work: Load | Unload) -> None:
        """Begin; what is under way goes on."""
        place, box = (work.container.id, work.identifier), work.container
        before = self._works.get(place)
        if before is not None and before.seen.run == box.started_at and before.seen.state in ("loading", "unloading"):
            return
        doing: Coroutine[Any, Any, LoadSeen]
        if isinstance(work, Load):
            begun, doing = _Work(key, LoadSeen(box.started_at, "loading", self._clock())), self._load(work)
        else:
            begun, doing = _Work(key, LoadSeen(box.started_at, "unloading", self._clock())), self._unload(work)
        self._works[place] = begun
        begun.task = asyncio.create_task(self._carry_out(doing, begun), name=f"adapter {work.identifier} {box.id}")

    def forget(self, key: str) -> None:
        """Drop what is remembered of an endpoint that is gone."""
        for place in [place for place, work in self._works.items() if work.key == key]:
            work = self._works.pop(place)
            if work.task is not None:
                work.task.cancel()

    async def close(self) -> None:
        """Let go. What was under way is done anew in the next life."""
        tasks = [work.task for work in self._works.values() if work.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry_out(self, doing: Coroutine[Any, Any, LoadSeen], work: _Work) -> None:
        try:
            work.seen = await doing
        except Exception as error:  # an adapter's trouble is its own
            self._log.exception("an adapter failed unexpectedly")
            work.seen = replace(work.seen, state="failed", at=self._clock(), words=f"{type(error).__name__}: {error}")
        self._notify(work.key)

    async def _load(self, work: Load) -> LoadSeen:
        box, name, adapter = work.container, work.identifier, work.adapter
        final, words = True, "download: the engine cannot show files to a container that runs"
        try:
            if self._engine is not None:
                async with asyncio.timeout(adapter.timeout):
                    placed = await self._engine.place(box.id, name, adapter.data, adapter.role_arn)
                said = await self._api.load(box, name, placed.path, adapter.timeout)
                if not _is_done(said):
                    await self._api.unload(box, name)  # it may be there from a life that ended in between
                    said = await self._api.load(box, name, placed.path, adapter.timeout)
                if _is_done(said):
                    self._log.info("adapter", container=box.id, adapter=name, phase="loaded")
                    return LoadSeen(box.started_at, "loaded", self._clock())
                words = _refusal(said)
        except LaunchFailure as error:
            words = f"Failed to download model data: {error.step}: {error.message}."
        except TimeoutError:
            words = f"Failed to download model data: not within {adapter.timeout:.0f} s."
        except Transient as trouble:
            final, words = False, f"The container does not take the adapter: {trouble.message}."
        if self._engine is not None:
            await self._engine.discard(box.id, name)
        self._log.warning("adapter", container=box.id, adapter=name, phase="failed", reason=words)
        return LoadSeen(box.started_at, "failed", self._clock(), words, final)

    async def _unload(self, work: Unload) -> LoadSeen:
        box, name = work.container, work.identifier
        await asyncio.sleep(_DRAIN)
        try:
            said = await self._api.unload(box, name)
            if not _is_done(said):
                self._log.warning("adapter", container=box.id, adapter=name, phase="unloading", reason=_refusal(said))
        except Transient as trouble:  # a container that is gone has nothing loaded
            self._log.warning("adapter", container=box.id, adapter=name, phase="unloading", reason=trouble.message)
        if self._engine is not None:
            await self._engine.discard(box.id, name)
        self._log.info("adapter", container=box.id, adapter=name, phase="unloaded")
        return LoadSeen(box.started_at, "unloaded", self._clock())


def _is_done(said: Said) -> bool:
    return 200 <= said.status < 300


def _refusal(said: Said) -> str:
    body = shorten(printable(said.body.strip()), 400)
    return f"The container answered {said.status} when the adapter was loaded: {body or 'nothing more'}."
