"""The API by which a multi-model container's models are loaded and unloaded, as multi-model servers have it.

Servers differ in what they say and agree in their status: 200 done, 409 loaded already, 507 no memory for it, 404 not
there. MMS lists pages of `models`; TensorFlow Serving's container answers with an object that has the models' names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import aiohttp

from clary.core.ports import Container
from clary.errors import Transient

LOAD_TIMEOUT = 360.0
"""Seconds that loading or unloading may take (AWS's documentation)."""
_LOOK = aiohttp.ClientTimeout(total=10)
_WORK = aiohttp.ClientTimeout(total=LOAD_TIMEOUT)
_KEPT_BODY = 64 * 1024


class Said(NamedTuple):
    """What a container answered: its status, and the body as text."""

    status: int
    body: str = ""


class Unreachable(Transient):
    """The container does not listen: nothing was sent, and no model is to blame."""


class ModelApi(Protocol):
    """Asks a multi-model container. All raise Transient where it does not answer, of which Unreachable is one."""

    async def load(self, container: Container, model: str, path: str) -> Said: ...

    async def unload(self, container: Container, model: str) -> Said: ...

    async def has(self, container: Container, model: str) -> bool:
        """Tell whether the container has a model loaded."""
        ...

    async def loaded(self, container: Container) -> list[str]:
        """Give the models that are loaded."""
        ...


class HttpModelApi:
    """Implements ModelApi over HTTP/1.1."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def load(self, container: Container, model: str, path: str) -> Said:
        return await self._ask(container, "POST", "/models", json={"model_name": model, "url": path})

    async def unload(self, container: Container, model: str) -> Said:
        return await self._ask(container, "DELETE", f"/models/{model}")

    async def has(self, container: Container, model: str) -> bool:
        return (await self._ask(container, "GET", f"/models/{model}", timeout=_LOOK)).status == 200

    async def loaded(self, container: Container) -> list[str]:
        found: list[str] = []
        page: str | None = ""
        while page is not None:
            said = await self._ask(
                container, "GET", "/models", timeout=_LOOK, params={"next_page_token": page} if page else {}
            )
            if said.status != 200:
                raise Transient(f"{container.id}: GET /models answered {said.status}")
            names, page = _page(said.body, container)
            if not set(names) - set(found):
                break  # a server that pays no heed to the token
            found += names
        return found

    async def _ask(
        self,
        container: Container,
        method: str,
        path: str,
        *,
        timeout: aiohttp.ClientTimeout = _WORK,
        **more: Any,
    ) -> Said:
        if self._session is None:
            # No connection is kept: to repeat what was sent over one that had gone stale could load a model twice.
            connector = aiohttp.TCPConnector(force_close=True, limit=0)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        url = f"http://{container.host}:{container.port}{path}"
        try:
            async with self._session.request(method, url, timeout=timeout, allow_redirects=False, **more) as answer:
                body = await answer.content.read() if answer.status == 200 else await answer.content.read(_KEPT_BODY)
                return Said(answer.status, body.decode("utf-8", "replace"))
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(f"{container.id}: {method} {path}: {error}") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            why = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
            raise Transient(f"{container.id}: {method} {path}: {why}") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _page(body: str, container: Container) -> tuple[list[str], str | None]:
    """Read one page of a list of models. Raises Transient for what is none."""
    try:
        document = json.loads(body)
    except ValueError as error:
        raise Transient(f"{container.id}: GET /models answered what is no JSON") from error
    if not isinstance(document, Mapping):
        return [], None
    models = document.get("models")
    if not isinstance(models, list):  # TensorFlow Serving's: an object with the models' names
        return [str(name) for name in document if name != "nextPageToken"], None
    token = document.get("nextPageToken")
    return [str(each["modelName"]) for each in models if "modelName" in each], str(token) if token else None
