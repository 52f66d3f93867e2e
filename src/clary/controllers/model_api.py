"""The API by which a multi-model container's models are loaded and unloaded, as multi-model servers have it.

Servers differ in what they say and agree in their status: 200 done, 409 loaded already, 507 no memory for it, 404 not
there. MMS lists pages of `models`; TensorFlow Serving's container answers with an object that has the models' names.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import NamedTuple, Protocol
from urllib.parse import quote

from clary.channel import Broken
from clary.controllers.channels import Channels
from clary.core.containers import Container
from clary.errors import Transient

LOAD_TIMEOUT = 360.0
"""Seconds that loading or unloading may take (AWS's documentation)."""
LOOK_TIMEOUT = 10.0
"""Seconds that a container may take to say what is loaded."""
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
        self._channels = Channels()

    async def load(self, container: Container, model: str, path: str) -> Said:
        body = json.dumps({"model_name": model, "url": path}).encode()
        return await self._ask(container, "POST", "/models", body)

    async def unload(self, container: Container, model: str) -> Said:
        return await self._ask(container, "DELETE", f"/models/{model}")

    async def has(self, container: Container, model: str) -> bool:
        return (await self._ask(container, "GET", f"/models/{model}", timeout=LOOK_TIMEOUT)).status == 200

    async def loaded(self, container: Container) -> list[str]:
        found: list[str] = []
        page: str | None = ""
        while page is not None:
            which = f"?next_page_token={quote(page, safe='')}" if page else ""
            said = await self._ask(container, "GET", f"/models{which}", timeout=LOOK_TIMEOUT)
            if said.status != 200:
                raise Transient(f"{container.id}: GET /models answered {said.status}")
            names, page = _page(said.body, container)
            if not set(names) - set(found):
                break  # a server that pays no heed to the token
            found += names
        return found

    async def _ask(
        self, container: Container, method: str, path: str, body: bytes = b"", *, timeout: float = LOAD_TIMEOUT
    ) -> Said:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {container.host}:{container.port}"]
        lines += ["Content-Type: application/json"] if body else []
        head = "\r\n".join([*lines, "Content-Length: "]).encode()
        try:
            async with asyncio.timeout(timeout):
                reply = await self._channels.ask((container.host, container.port), head, body)
        except TimeoutError as error:
            raise Transient(f"{container.id}: {method} {path}: no answer in time") from error
        except OSError as error:
            raise Unreachable(f"{container.id}: {method} {path}: {error}") from error
        except Broken as error:
            raise Transient(f"{container.id}: {method} {path}: {error}") from error
        kept = reply.body if reply.status == 200 else reply.body[:_KEPT_BODY]
        return Said(reply.status, kept.decode("utf-8", "replace"))

    def close(self) -> None:
        self._channels.close()


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
