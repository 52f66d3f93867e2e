"""The route table that gateways follow: put together from the endpoints, published as a whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass
from pathlib import Path

from clary.core.routing import EndpointRoute, RouteTable
from clary.telemetry import logger

DELIVERY = 1.0
"""Longest wait for gateways to take a table, in seconds: one that hangs holds up nobody's deletion."""


def key_of(endpoint: str) -> str:
    """Give the key of an endpoint: its name in lower case, for names that differ only in case are one endpoint."""
    return endpoint.lower()


@dataclass(slots=True, eq=False)
class _Reader:
    taken: int = -1
    """The revision it was handed."""
    done: int = -1
    """The revision that it is through with: it came back for more."""


class Routes:
    """Keeps the newest table in memory and in a file, and hands it to every subscriber.

    Nothing is published before `open()`: after a restart of the control plane gateways serve from the table that they
    have, and a table made while half of the endpoints are not looked at yet would take the other half away from them.
    For the same reason it begins with what the file has: an endpoint that cannot be looked at keeps its routes.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self.is_open = False
        self._readers: set[_Reader] = set()
        self._moved = asyncio.Event()
        self.table = _read(file)
        self._jobs: dict[str, tuple[str, ...]] = {}
        self._routes = {key_of(name): route for name, route in self.table.endpoints.items()}

    def keys(self) -> set[str]:
        """Give the keys of the endpoints that have a route."""
        return set(self._routes)

    def owners(self) -> set[str]:
        """Give the names of all endpoints and inference components that there are."""
        endpoints = self.table.endpoints
        return {*endpoints, *(name for route in endpoints.values() for name in route.components or ())}

    def put(self, key: str, route: EndpointRoute | None) -> None:
        """Set the route of one endpoint (None: there is no such endpoint), and publish if that changes anything."""
        if self._routes.get(key) == route:
            return
        if route is None:
            del self._routes[key]
        else:
            self._routes[key] = route
        if self.is_open:
            self._publish()

    def put_job(self, key: str, instances: Collection[str]) -> None:
        """Set the instances of one transform job (none: it is over), and publish if that changes anything."""
        if self._jobs.get(key, ()) == tuple(instances):
            return
        self._jobs[key] = tuple(instances)
        if self.is_open:
            self._publish()

    def open(self) -> None:
        """Publish what was put so far, and from now on at once."""
        self.is_open = True
        self._publish()

    async def subscribe(self) -> AsyncGenerator[bytes, None]:
        """Give the newest table at once and each newer one as it comes, as lines of JSON; slow readers skip some."""
        reader = _Reader()
        self._readers.add(reader)
        try:
            while True:
                while not self.is_open or reader.taken == self.table.revision:
                    await self._moved.wait()
                reader.taken = self.table.revision
                yield json.dumps(self.table.to_json(), separators=(",", ":")).encode() + b"\n"
                reader.done = reader.taken
                self._wake()
        finally:
            self._readers.discard(reader)
            self._wake()

    async def newer(self, revision: int) -> RouteTable:
        """Give the newest table once it is another one than that of `revision`; not before `open()`."""
        while not self.is_open or self.table.revision == revision:
            await self._moved.wait()
        return self.table

    async def delivered(self) -> None:
        """Return once every subscriber has taken the newest table, or after a second; not before `open()`."""
        while not self.is_open:
            await self._moved.wait()
        revision = self.table.revision
        try:
            async with asyncio.timeout(DELIVERY):
                while any(reader.done < revision for reader in self._readers):
                    await self._moved.wait()
        except TimeoutError:
            logger("routes").warning("a gateway does not take the routes", revision=revision)

    def _publish(self) -> None:
        # Gateways may outlive the control plane, so revisions go on where the last life ended.
        endpoints = {route.name: route for route in self._routes.values()}
        jobs = tuple(id for instances in self._jobs.values() for id in instances)
        self.table = RouteTable(self.table.revision + 1, endpoints, jobs)
        self._write()
        self._wake()

    def _wake(self) -> None:
        """Let everybody who waits look again: a new event for the next change, the old one set for this."""
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def _write(self) -> None:
        if self._file is None:
            return
        fresh = self._file.with_suffix(".new")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(json.dumps(self.table.to_json()))
            fresh.replace(self._file)
        except OSError as error:  # gateways that run get the table anyway; only a new one would start without
            logger("routes").error("cannot write the route table", file=str(self._file), error=str(error))


def _read(file: Path | None) -> RouteTable:
    if file is None or not file.exists():
        return RouteTable(0, {})
    try:
        return RouteTable.from_json(json.loads(file.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger("routes").warning("the last route table is unreadable; making a new one", error=str(error))
        return RouteTable(0, {})
