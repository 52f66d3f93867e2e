"""What containers write, copied from Docker into the log folder: each line once, over restarts of Docker and of Clary.

Docker numbers lines by the nanosecond. How far each container has been copied lies in a small file beside the engine's
own, written after each line; copying goes on behind it. What a container writes while Clary is away waits in Docker's
log, up to its bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from aiodocker import Docker, DockerError

from clary.engines.docker.labels import Kept
from clary.logs.folder import LogFolder
from clary.telemetry import logger

_KEPT = 1000
"""Containers whose logs can still be asked for by id; the logs themselves are not removed."""
_LONGEST_LINE = 256 * 1024
"""Bytes after which a line is cut (CloudWatch Logs' own bound for an event)."""
_AGAIN = 0.5
_LAST_LINES = 5.0
"""Seconds that copying may go on after a container has ended."""
_HEADER = struct.Struct(">BxxxL")
_log = logger("docker")


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in Docker's log: the entry that is the `count`th with the time `at`, in nanoseconds since the epoch.

    The parts of a line that Docker has cut have one time.
    """

    at: int = 0
    count: int = 0

    def after(self, at: int) -> Cursor:
        return Cursor(at, self.count + 1) if at == self.at else Cursor(at, 1)

    @property
    def since(self) -> str:
        """As Docker's API takes it; that very moment is included."""
        return f"{self.at // 10**9}.{self.at % 10**9:09d}"


class Page:
    """The file that a container's cursor is in, and the names of its log: one line each."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def begin(self, kept: Kept) -> Cursor:
        """Give the cursor of this very container; that of a predecessor with its name does not count."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            cursor, container_id, *_ = self._file.read_text().splitlines()
            if container_id == kept.container_id:
                at, count = map(int, cursor.split())
                return Cursor(at, count)
        fresh = self._file.with_name(f".{self._file.name}")
        fresh.write_text(f"{_fixed(Cursor())}\n{kept.container_id}\n{kept.log_group}\n{kept.log_stream}\n")
        fresh.rename(self._file)
        return Cursor()

    def names(self) -> tuple[str, str] | None:
        """Give the log group and stream; None where this container was never followed."""
        try:
            _, _, group, stream = self._file.read_text().splitlines()
        except FileNotFoundError:
            return None
        return group, stream


def _fixed(cursor: Cursor) -> str:
    """Write a cursor so that the next one fits over it."""
    return f"{cursor.at:020d} {cursor.count:010d}"


class Followers:
    """One copying task for each container, in the loop that made this. `root`: for the pages."""

    def __init__(self, docker: Docker, folder: LogFolder, root: Path) -> None:
        self._docker = docker
        self._folder = folder
        self._root = root
        self._tasks: dict[str, tuple[str, asyncio.Task[None]]] = {}
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in sorted(root.iterdir(), key=lambda file: file.stat().st_mtime)[:-_KEPT]:
            old.unlink()

    def follow(self, id: str, kept: Kept) -> None:
        """Copy from now on, or go on copying, until Docker has no more of it. Idempotent."""
        known = self._tasks.get(id)
        if known is None or known[0] != kept.container_id:
            task = asyncio.create_task(self._follow(id, kept), name=f"log of {id}")
            self._tasks[id] = kept.container_id, task

    async def finish(self, id: str) -> None:
        """Wait until what an ended container wrote has been copied; not for ever."""
        if (known := self._tasks.get(id)) is not None:
            await asyncio.wait({known[1]}, timeout=_LAST_LINES)

    async def forget(self, id: str) -> None:
        """Stop copying: the container is gone. The log stays."""
        if (known := self._tasks.pop(id, None)) is not None:
            known[1].cancel()
            await asyncio.wait({known[1]})

    async def tail(self, id: str, lines: int) -> list[str]:
        """Give the last lines of a container, also of one that is gone."""
        names = Page(self._root / id).names()
        return [] if names is None else await asyncio.to_thread(self._folder.tail, *names, lines)

    async def close(self) -> None:
        for id in list(self._tasks):
            await self.forget(id)

    async def _follow(self, id: str, kept: Kept) -> None:
        file = self._root / id
        cursor = Page(file).begin(kept)
        writer = self._folder.writer(kept.log_group, kept.log_stream)
        page = os.open(file, os.O_WRONLY)
        troubled = False
        try:
            while True:
                try:
                    async for here, line in self._lines(kept.container_id, cursor):
                        writer.write(here.at // 1_000_000, line)
                        cursor = here
                        os.pwrite(page, _fixed(cursor).encode(), 0)
                        troubled = False
                    if not await self._runs(kept.container_id):
                        return
                except _Gone:
                    return
                except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
                    if not troubled:
                        _log.warning("a log cannot be copied; trying again", id=id, reason=str(error))
                    troubled = True
                    await asyncio.sleep(_AGAIN)
        finally:
            os.close(page)
            writer.close()

    async def _runs(self, container_id: str) -> bool:
        """Tell whether the log ended before its container, as when Docker itself is restarted."""
        try:
            state = (await self._docker.containers.container(container_id).show())["State"]
        except DockerError as error:
            if error.status == 404:
                return False
            raise OSError(error.message) from error
        return bool(state["Running"])

    async def _lines(self, container_id: str, cursor: Cursor) -> AsyncIterator[tuple[Cursor, bytes]]:
        """Give the lines behind the cursor as they come, each with its own; end when there will be no more."""
        here = Cursor()
        parts: dict[int, bytes] = {}
        async for channel, entry in self._entries(container_id, cursor):
            stamp, _, text = entry.partition(b" ")
            here = here.after(_nanoseconds(stamp.decode("ascii")))
            if here <= cursor:
                continue
            text = parts.pop(channel, b"") + text
            if not text.endswith(b"\n") and len(text) < _LONGEST_LINE:
                parts[channel] = text  # Docker cuts lines at 16 KiB; the rest follows as an entry of its own
                continue
            yield here, text.removesuffix(b"\n").removesuffix(b"\r")
        for text in parts.values():
            yield here, text

    async def _entries(self, container_id: str, cursor: Cursor) -> AsyncIterator[tuple[int, bytes]]:
        """Read Docker's log from the cursor on: entries of stdout (1) and stderr (2)."""
        docker = self._docker
        query = {"stdout": "1", "stderr": "1", "follow": "1", "timestamps": "1", "since": cursor.since}
        url = f"{docker.docker_host}/{docker.api_version}/containers/{container_id}/logs"
        # Not by aiodocker's own method, which decodes the bytes and cannot tell a lost connection from the end.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with docker.session.get(url, params=query, timeout=timeout) as answer:
            if answer.status == 404:
                raise _Gone
            answer.raise_for_status()
            while True:
                try:
                    header = await answer.content.readexactly(_HEADER.size)
                except asyncio.IncompleteReadError as error:
                    if error.partial:
                        raise
                    return
                channel, length = _HEADER.unpack(header)
                yield channel, await answer.content.readexactly(length)


class _Gone(Exception):
    """Docker has no such container any more."""


def _nanoseconds(stamp: str) -> int:
    """Turn Docker's RFC 3339 time, which is UTC with up to nine decimals, into nanoseconds since the epoch."""
    whole, _, rest = stamp.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * 10**9 + int(rest.ljust(9, "0") or 0)
