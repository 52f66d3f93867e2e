"""What containers write, copied from Docker into the log folder: each line once, over restarts of Docker and of Clary.

It is read from Docker's files where that is allowed, else asked for.

How far each container has been copied lies in a small file beside the engine's own, written after the lines; copying
goes on behind it. What a container writes while Clary is away waits in Docker's log, up to its bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import aiohttp
from aiodocker import Docker, DockerError

from clary.engines.docker.labels import Kept
from clary.engines.docker.logfiles import LogFiles
from clary.engines.docker.transcript import Page, Transcript
from clary.logs.folder import LogFolder
from clary.telemetry import logger

_KEPT = 1000
"""Containers whose logs can still be asked for by id; the logs themselves are not removed."""
_PIECE = 256 * 1024
"""Bytes that wait to be written before Docker has to."""
_THREADS = 2
_AGAIN = 0.5
_LOOK = 0.1
"""Seconds between looks at a file for more."""
_LAST_LINES = 5.0
"""Seconds that copying may go on after a container has ended."""
_log = logger("docker")

P = ParamSpec("P")
T = TypeVar("T")


class Followers:
    """One copying task for each container, in the loop that made this. `root`: for the pages.

    `dropped` is told how often Docker has left out lines.
    """

    def __init__(self, docker: Docker, folder: LogFolder, root: Path, dropped: Callable[[int], object]) -> None:
        self._docker = docker
        self._dropped = dropped
        self._folder = folder
        self._root = root
        self._threads = ThreadPoolExecutor(_THREADS, "docker-logs")  # downloads keep the others
        self._tasks: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self._ended: set[str] = set()
        """Docker's ids of those that write no more."""
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def follow(self, id: str, kept: Kept, *, ended: bool = False) -> None:
        """Copy from now on, or go on copying, until there is no more of it. Idempotent.

        `ended`: the container has, so the end of what there is is the end.
        """
        if ended:
            self._ended.add(kept.container_id)
        known = self._tasks.get(id)
        if known is None or known[0] != kept.container_id:
            if known is None:
                self._tidy()
            else:
                known[1].cancel()
            task = asyncio.create_task(self._follow(id, kept), name=f"log of {id}")
            self._tasks[id] = kept.container_id, task

    async def finish(self, id: str) -> None:
        """Wait until what an ended container wrote has been copied; not for ever."""
        if (known := self._tasks.get(id)) is not None:
            self._ended.add(known[0])
            await asyncio.wait({known[1]}, timeout=_LAST_LINES)

    async def forget(self, id: str) -> None:
        """Stop copying: the container is gone. The log stays."""
        if (known := self._tasks.pop(id, None)) is not None:
            known[1].cancel()
            await asyncio.wait({known[1]})
            self._ended.discard(known[0])

    async def tail(self, id: str, lines: int) -> list[str]:
        """Give the last lines of a container, also of one that is gone."""
        names = Page(self._root / id).names()
        return [] if names is None else await asyncio.to_thread(self._folder.tail, *names, lines)

    async def close(self) -> None:
        for id in list(self._tasks):
            await self.forget(id)
        self._threads.shutdown(wait=False)

    def _tidy(self) -> None:
        pages = list(self._root.iterdir())
        if len(pages) > _KEPT:
            for old in sorted(pages, key=lambda file: file.stat().st_mtime)[:-_KEPT]:
                if old.name not in self._tasks:
                    old.unlink()

    async def _follow(self, id: str, kept: Kept) -> None:
        transcript = Transcript(self._root / id, kept, self._folder)
        troubled, follow = False, True
        try:
            while True:
                try:
                    async for piece in self._source(id, kept, transcript, follow=follow):
                        returns = transcript.returns
                        await self._in_thread(transcript.take, piece)
                        if lost := transcript.returns - returns:
                            self._lost(id, lost)
                        troubled = False
                    if transcript.is_whole and not follow:
                        await self._in_thread(transcript.finish)
                        return
                    # Docker ends its answer with the container, though there be another file: that is asked for then.
                    follow = await self._runs(kept.container_id)
                    if follow:
                        self._ended.discard(kept.container_id)
                except _Gone:
                    return
                except (aiohttp.ClientError, OSError) as error:
                    if not troubled:
                        _log.warning("a log cannot be copied; trying again", id=id, reason=str(error))
                    troubled = True
                    await asyncio.sleep(_AGAIN)
                transcript.rewind()
        finally:
            transcript.close()

    def _lost(self, id: str, times: int) -> None:
        _log.warning("a container writes faster than Docker reads its log: lines are missing", id=id, times=times)
        self._dropped(times)

    async def _in_thread(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Do what waits for a disk; what is cancelled has ended all the same."""
        doing = partial(work, *arguments, **named)
        working = asyncio.get_running_loop().run_in_executor(self._threads, doing)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait({working})
            raise

    async def _runs(self, container_id: str) -> bool:
        """Tell whether the log ended before its container, as when Docker itself is restarted."""
        try:
            state = (await self._docker.containers.container(container_id).show())["State"]
        except DockerError as error:
            if error.status == 404:
                return False
            raise OSError(error.message) from error
        return bool(state["Running"])

    async def _source(self, id: str, kept: Kept, transcript: Transcript, *, follow: bool) -> AsyncIterator[bytes]:
        """Read the log where Docker writes it, if that is here and we may; else ask Docker for it."""
        with closing(LogFiles(Path(kept.log_path), transcript.oldest)) as files:
            try:
                first = await self._in_thread(files.open)
            except OSError:
                pieces = self._pieces(kept.container_id, transcript.since, follow=follow)
            else:
                if first is not None and 0 < transcript.newest < first:
                    self._lost(id, 1)  # whatever was between: Docker keeps so much and no more
                pieces = self._read(id, kept, files, follow=follow)
            async for piece in pieces:
                yield piece

    async def _read(self, id: str, kept: Kept, files: LogFiles, *, follow: bool) -> AsyncIterator[bytes]:
        skipped = 0
        while True:
            last = not follow or kept.container_id in self._ended  # before reading: what it has written is there
            if piece := await self._in_thread(files.read):
                yield piece
            elif last:
                return
            else:
                await asyncio.sleep(_LOOK)
            if files.skipped > skipped:
                self._lost(id, files.skipped - skipped)
                skipped = files.skipped

    async def _pieces(self, container_id: str, since: str, *, follow: bool) -> AsyncIterator[bytes]:
        """Read Docker's log, as much as there is at once; to its end, or, to `follow` it, to the container's."""
        docker = self._docker
        query = {"stdout": "1", "stderr": "1", "follow": str(int(follow)), "timestamps": "1", "since": since}
        url = f"{docker.docker_host}/{docker.api_version}/containers/{container_id}/logs"
        # Not by aiodocker's own method, which decodes the bytes and cannot tell a lost connection from the end.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with docker.session.get(url, params=query, timeout=timeout, read_bufsize=_PIECE) as answer:
            if answer.status == 404:
                raise _Gone
            answer.raise_for_status()
            async for piece in answer.content.iter_any():
                yield piece


class _Gone(Exception):
    """Docker has no such container any more."""
