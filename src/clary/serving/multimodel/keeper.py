"""The list of models: which are loaded, which are on their way in or out, and what they take.

One thread, which no invocation ever waits for.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from . import memory
from .exchange import place
from .processes import Process, Processes

Answer = tuple[int, Mapping[str, Any]]
"""A status and what is written as JSON."""

WATCH = 0.1
"""Seconds between two looks at the memory of a model that is being loaded."""
LEAVE = 30.0
"""Seconds that an unloaded model has for what it is still answering."""
TURN = 3.0
"""Seconds after which a load no longer keeps others from theirs: it is likely to wait for something else than a CPU."""
BREATH = 1.0
"""Seconds between two starts of a process that crashes again and again."""
MEASURING = 0.01
"""The share of one CPU that measuring the loaded models may take."""
LARGEST_PAGE = 100


class Refused(Exception):
    """A model that cannot be loaded: the status and the text to say so with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Resident:
    """A model that is loaded or being loaded."""

    def __init__(self, name: str, url: str, address: str) -> None:
        self.name = name
        self.url = url
        self.processes: list[Process] = []
        self.loaded = False
        self.leaving = False
        self.outcome: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.work: set[asyncio.Task[None]] = set()
        # Made before there is a process, and there until the last has gone: invocations queue in it meanwhile.
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(address)
        self.listener.listen(socket.SOMAXCONN)
        self._address = address

    def hide(self) -> None:
        """Let no further invocation in."""
        if not self.leaving:
            self.leaving = True
            Path(self._address).unlink()


class Keeper:
    """Loads, unloads, lists and describes models. `folder` is that of the sockets, open."""

    def __init__(self, processes: Processes, folder: int, budget: memory.Budget, workers: int, loads: int) -> None:
        self._processes = processes
        self._folder = folder
        self._budget = budget
        self._workers = workers
        self._turns = asyncio.Semaphore(loads)
        self._residents: dict[str, Resident] = {}

    # -- what the front asks for --------------------------------------------------------------------------------------

    async def load(self, name: str, url: str) -> Answer:
        """Load a model and answer once it serves. Who asks for one that is on its way waits for that."""
        if (resident := self._residents.get(name)) is not None:
            status, said = await asyncio.shield(resident.outcome)
            return (status, said) if status != 200 else _error(409, f"Model {name} is already registered.")
        if not Path(url).is_dir():
            return _error(404, f"Model not found in model store: {url}")
        resident = self._residents[name] = Resident(name, url, place(self._folder, socket_name(name)))
        _do(resident, self._bring(resident))
        return await asyncio.shield(resident.outcome)

    async def unload(self, name: str) -> Answer:
        """Unload a model, also one that is still on its way, and answer once its memory is free."""
        resident = self._residents.pop(name, None)
        if resident is None:
            return _not_found(name)
        resident.hide()
        if resident.work:  # its load, or the return of a process that crashed
            for task in resident.work:
                task.cancel()
            await asyncio.wait(set(resident.work))
        for process in resident.processes:
            process.dismiss()
        if resident.processes:
            await asyncio.wait({process.ended for process in resident.processes}, timeout=LEAVE)
        await self._remove(resident)
        return 200, {"status": f'Model "{name}" unregistered'}

    def page(self, start: int, limit: int) -> Answer:
        """List the loaded models by name, from a position on."""
        names = sorted(name for name, resident in self._residents.items() if resident.loaded)
        end = start + limit
        page = [{"modelName": name, "modelUrl": self._residents[name].url} for name in names[start:end]]
        return 200, {"models": page, **({"nextPageToken": str(end)} if end < len(names) else {})}

    def describe(self, name: str) -> Answer:
        resident = self._residents.get(name)
        if resident is None or not resident.loaded:
            return _not_found(name)
        workers = [
            {
                "id": str(process.pid),
                "startTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(process.started)),
                "status": "READY",
                "gpu": False,
                "memoryUsage": memory.own(process.pid),
            }
            for process in resident.processes
        ]
        said = {"modelName": name, "modelUrl": resident.url, "runtime": "python", "batchSize": 1, "maxBatchDelay": 0}
        bounds = {"minWorkers": self._workers, "maxWorkers": self._workers, "loadedAtStartup": False}
        return 200, {**said, **bounds, "workers": workers}

    # -- a model's life -----------------------------------------------------------------------------------------------

    async def _bring(self, resident: Resident) -> None:
        """Load a model, and say what came of it. Where it fails nothing is left of it."""
        answer = _error(500, f"Model {resident.name} could not be loaded.")
        try:
            async with self._turn():
                if not self._budget.admit(resident, resident.name, memory.size_of(Path(resident.url))):
                    raise Refused(507, f"No memory for model {resident.name} beside those that are loaded.")
                for _ in range(self._workers):
                    await self._start(resident)
                self._budget.hold(resident, resident.name, self._require_room(resident))
            resident.loaded = True
            answer = 200, {"status": "Workers scaled"}
        except Refused as refusal:
            answer = _error(refusal.status, str(refusal))
        except asyncio.CancelledError:
            answer = _error(500, f"Model {resident.name} was unloaded while it was loading.")
        finally:
            if not resident.loaded:
                await self._remove(resident)
            resident.outcome.set_result(answer)

    async def _start(self, resident: Resident) -> None:
        """Start one process of a model and wait until it has loaded. Raises Refused; what it started stays listed."""
        try:
            process = await self._processes.start(resident.name, resident.url, resident.listener)
        except OSError as error:
            raise Refused(507, f"No process for model {resident.name}: {error}") from error
        resident.processes.append(process)
        said = asyncio.ensure_future(process.said())
        either: set[asyncio.Future[Any]] = {said, process.ended}
        try:
            while not said.done() and not process.ended.done():
                done, _ = await asyncio.wait(either, timeout=WATCH, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    self._require_room(resident)
            await asyncio.wait({said}, timeout=WATCH)  # its end may be known before its last word
            outcome = said.result() if said.done() else None
        finally:
            said.cancel()
            await asyncio.wait({said})  # until nothing listens to the line any more
        if outcome is None:
            raise _ended_early(resident, await process.end())
        if outcome["status"] != 200:
            raise Refused(outcome["status"], outcome["message"])
        _do(resident, self._watch(resident, process))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait until few enough others load."""
        await self._turns.acquire()
        kept = True

        def give_back() -> None:
            nonlocal kept
            if kept:
                kept = False
                self._turns.release()

        timer = asyncio.get_running_loop().call_later(TURN, give_back)
        try:
            yield
        finally:
            timer.cancel()
            give_back()

    async def _watch(self, resident: Resident, process: Process) -> None:
        """Bring a process back that ends although nobody unloaded its model; what asks for it waits in the queue."""
        status = await process.end()
        if resident.leaving:
            return
        _log(f"A process of model {resident.name} {_how(status)}; it is started again.")
        resident.processes.remove(process)
        process.dismiss()
        await asyncio.sleep(max(0.0, process.started + BREATH - time.time()))
        try:
            async with self._turn():
                if not resident.leaving:
                    await self._start(resident)
                    self._budget.hold(resident, resident.name, self._require_room(resident))
        except Refused as refusal:
            _log(f"Model {resident.name} does not come back and is no longer loaded: {refusal}")
            await self._remove(resident)

    async def _remove(self, resident: Resident) -> None:
        """End what is left of a model, and give back what it held."""
        resident.hide()
        if self._residents.get(resident.name) is resident:
            del self._residents[resident.name]
        for process in resident.processes:
            if not process.ended.done():
                await process.kill()
            process.dismiss()
        resident.processes.clear()
        resident.listener.close()
        self._budget.release(resident)

    # -- memory -------------------------------------------------------------------------------------------------------

    def _require_room(self, resident: Resident) -> int:
        """Measure a model that is being loaded. Raises Refused where there is no memory for what it takes."""
        measured = _measured(resident)
        self._budget.grow(resident, resident.name, measured)
        if self._budget.over:
            raise Refused(507, f"Model {resident.name} takes more memory than there is beside the others.")
        return measured

    async def measure_all(self) -> None:
        """Measure the loaded models again and again: they grow with what they are asked."""
        while True:
            for resident in list(self._residents.values()):
                if resident.loaded and not resident.leaving:
                    begun = time.thread_time()
                    self._budget.hold(resident, resident.name, _measured(resident))
                    await asyncio.sleep((time.thread_time() - begun) / MEASURING)
            await asyncio.sleep(1)


def _measured(resident: Resident) -> int:
    return sum(memory.own(process.pid) for process in resident.processes)


def _do(resident: Resident, work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(work)
    resident.work.add(task)
    task.add_done_callback(resident.work.discard)


@lru_cache(maxsize=10_000)
def socket_name(model: str) -> str:
    """Give the name of a model's socket: an id may be longer than a file's name may be."""
    return sha256(model.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _error(status: int, message: str) -> Answer:
    types = {404: "ModelNotFoundException", 409: "ConflictStatusException", 507: "InternalServerException"}
    return status, {"code": status, "type": types.get(status, "InternalServerException"), "message": message}


def _not_found(name: str) -> Answer:
    return _error(404, f"Model not found: {name}")


def _ended_early(resident: Resident, status: int) -> Refused:
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    why = "; the kernel does that where memory is short" if killed else ""
    return Refused(507 if killed else 500, f"Model {resident.name} {_how(status)} while it was loading{why}.")


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exited with {os.WEXITSTATUS(status)}"


def _log(text: str) -> None:
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the container's log is this process's stderr
