"""Which models of multi-model containers are loaded where, as this gateway knows it: asked for each request, fed by the
control plane.

A request for a model that is loaded costs a look into a table. For one that is not, the control plane is asked, once
for all requests that want it; while it is away, they wait. The protocol is `core.residency`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import uuid4

import aiohttp

from clary.core.residency import Held, HeldKey, News, Report, Return, Use, Wish
from clary.core.routing import Hop
from clary.errors import AwsError
from clary.gateway.answers import RuntimeFailure
from clary.gateway.questions import Questions
from clary.gateway.routes import RECONNECT
from clary.gateway.upstream import Pool
from clary.telemetry import logger

TARGET_MODEL = b"x-amzn-sagemaker-target-model"
WAIT = 60.0
"""Seconds that a request waits for its model to be loaded (AWS's documentation)."""
INTERVAL = 1.0
"""Seconds between reports of use."""
_PATH = "/_clary/models"
_NO_MODELS: Mapping[str, Resident] = {}


class Resident:
    """One load of one model on one instance."""

    __slots__ = ("granted", "held", "listed", "target_model", "under_way", "used_at", "uses")

    def __init__(self, held: Held) -> None:
        self.held = held
        self.target_model = ""
        """As callers name it; known once one has."""
        self.granted = 0
        """Grants that were not given back."""
        self.listed = False
        """It is in the table: requests are sent to it until the control plane says that it leaves."""
        self.under_way = 0
        self.uses = 0
        """Since the last report."""
        self.used_at = 0.0

    def beginning(self, hop: Hop) -> bytes:
        """Give the first lines of a request to its container, without the last one's end."""
        return f"POST /models/{self.held.model}/invoke HTTP/1.1\r\nHost: {hop.host}:{hop.port}".encode()


class NotLoaded(Exception):
    """The container did not take the model; what it said is the model's error."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(body)
        self.status = status
        self.body = body


Found = Callable[[Resident | AwsError | NotLoaded], None]
"""Hears where a wanted model is, or why it is nowhere."""


class Residency:
    """The table, the questions, and what is said of use. Everything happens on the event loop."""

    def __init__(self, control_socket: Path, pool: Pool) -> None:
        self._socket = control_socket
        self._questions = Questions(pool, control_socket, _PATH)
        self._name = uuid4().hex
        self._table: dict[tuple[str, str, str], dict[str, Resident]] = {}
        self._known: dict[HeldKey, Resident] = {}
        self._used: set[Resident] = set()
        self._returns: list[Return] = []
        self._due = asyncio.Event()
        self._wishes: dict[Wish, set[Found]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = logger("models")

    # -- for requests --------------------------------------------------------------------------------------------------

    def find(self, endpoint: str, variant: str, model: str) -> Mapping[str, Resident]:
        """Give where a model is loaded, by the instance."""
        return self._table.get((endpoint, variant, model), _NO_MODELS)

    def take(self, resident: Resident, target_model: str) -> None:
        """Note that a request is about to be sent to it."""
        resident.target_model = target_model
        resident.under_way += 1
        resident.uses += 1
        resident.used_at = perf_counter()
        self._used.add(resident)

    def release(self, resident: Resident) -> None:
        """Note that a request has ended."""
        resident.under_way -= 1
        if not resident.under_way and not resident.listed:
            self._give_back(resident)

    def want(self, wish: Wish, found: Found) -> None:
        """Have a model loaded; `found` is called once, unless it is withdrawn."""
        waiting = self._wishes.get(wish)
        if waiting is None:
            waiting = self._wishes[wish] = set()
            self._spawn(self._load(wish, waiting))
        waiting.add(found)

    def wish(self, wish: Wish) -> None:
        """Have a model loaded for whoever comes next: it is asked for once, and nobody waits."""
        if wish not in self._wishes:
            waiting = self._wishes[wish] = set()
            self._spawn(self._load(wish, waiting))

    def withdraw(self, wish: Wish, found: Found) -> None:
        """Want it no more. The load goes on."""
        self._wishes.get(wish, set()).discard(found)

    def lose(self, resident: Resident) -> None:
        """Send nothing to it any more: it is not there."""
        self._unlist([resident])

    async def is_held(self, resident: Resident, *, spent: bool) -> bool:
        """Ask whether a model is loaded that its container answered 404 for (507, if it is `spent`).

        While the control plane is away nothing is unloaded, so then it is; that its container has just dropped it by
        itself is not worth letting every 404 of a model's own wait.
        """
        try:
            answer = await self._ask({"do": "doubt", "key": resident.held.key, "spent": spent})
        except (OSError, TimeoutError):
            return True
        return bool(answer["held"])

    # -- for the process -----------------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Take in what the control plane tells, for ever; keep what is known while it is away."""
        headers = {"x-clary-gateway": self._name}
        while True:
            # Its lines may be long: all models at once.
            connector = aiohttp.UnixConnector(str(self._socket))
            try:
                async with aiohttp.ClientSession(connector=connector, read_bufsize=2**20) as session:
                    timeout = aiohttp.ClientTimeout(total=None)
                    async with session.get(f"http://control{_PATH}", headers=headers, timeout=timeout) as answer:
                        answer.raise_for_status()
                        await self._read(answer.content)
            except (aiohttp.ClientError, OSError, ValueError, TypeError) as error:
                self._log.debug("no news of models", error=str(error))
            await asyncio.sleep(RECONNECT)

    async def report(self) -> None:
        """Say how models are used once a second, and at once what is given back, for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await self._due.wait()
            self._due.clear()
            if not (self._used or self._returns):
                continue
            report = self._draw_up()
            try:
                await self._ask({"do": "report", **report._asdict()})
            except (OSError, TimeoutError):
                self._returns = [*report.returns, *self._returns]
                await asyncio.sleep(RECONNECT)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    # -- the control plane's side --------------------------------------------------------------------------------------

    async def _read(self, content: aiohttp.StreamReader) -> None:
        rest = b""
        async for chunk in content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._hear(News.from_json(json.loads(line)))

    def _hear(self, news: News) -> None:
        if news.all:
            self._begin_anew(news.add)
        for held in news.add:
            resident = self._resident(held)
            resident.listed = True
            self._table.setdefault((held.endpoint, held.variant, held.model), {})[held.instance] = resident
        for key in news.drop:
            leaving = self._known.get(key)
            if leaving is None:
                self._return(Return(key, 0, aware=True))
                continue
            self._unlist([leaving])
            if not leaving.under_way:
                self._give_back(leaving)

    def _begin_anew(self, there: Iterable[Held]) -> None:
        """Take over what a new life of the control plane knows. It has granted nothing yet, and counts loads anew.

        While it was away nothing was unloaded: what has the same name in the same container is the same.
        """
        before = {(key.container, key.model): resident for key, resident in self._known.items()}
        self._unlist(before.values())
        self._known.clear()
        for held in there:
            if (resident := before.get((held.container, held.model))) is not None:
                resident.held = held
                self._known[held.key] = resident
        for resident in before.values():
            resident.granted = 0

    def _unlist(self, residents: Iterable[Resident]) -> None:
        for resident in residents:
            resident.listed = False
            held = resident.held
            place = (held.endpoint, held.variant, held.model)
            by_instance = self._table.get(place, {})
            if by_instance.get(held.instance) is resident:
                del by_instance[held.instance]
                if not by_instance:
                    del self._table[place]

    def _give_back(self, resident: Resident) -> None:
        """Nothing is under way to it, and nothing more will be sent."""
        self._known.pop(resident.held.key, None)
        self._return(Return(resident.held.key, resident.granted, aware=True))

    def _return(self, back: Return) -> None:
        self._returns.append(back)
        self._due.set()

    def _resident(self, held: Held) -> Resident:
        resident = self._known.get(held.key)
        if resident is None:
            resident = self._known[held.key] = Resident(held)
        return resident

    def _draw_up(self) -> Report:
        now = perf_counter()
        uses = []
        for resident in self._used:
            age = 0.0 if resident.under_way else now - resident.used_at
            uses.append(Use(resident.held.key, resident.target_model, resident.uses, age))
            resident.uses = 0
        # What is under way is in use until it ends.
        self._used = {resident for resident in self._used if resident.under_way}
        returns, self._returns = self._returns, []
        return Report(self._name, uses, returns)

    # -- questions -----------------------------------------------------------------------------------------------------

    async def _load(self, wish: Wish, waiting: set[Found]) -> None:
        answer: Mapping[str, Any] = {}
        try:
            while not answer:  # an empty one: it is still being loaded
                try:
                    answer = await self._ask({"do": "load", "gateway": self._name, "wish": wish})
                except (OSError, TimeoutError):
                    await asyncio.sleep(RECONNECT)  # the control plane is away; to ask twice does no harm
                if not waiting:
                    break
        finally:
            del self._wishes[wish]
        if "held" in answer:
            resident = self._resident(Held(*answer["held"]))
            resident.granted += 1
            for found in waiting:
                found(resident)
            if not resident.under_way and not resident.listed:
                self._give_back(resident)
            return
        failure: AwsError | NotLoaded
        if "said" in answer:
            failure = NotLoaded(*answer["said"])
        elif "error" in answer:
            error = answer["error"]
            failure = RuntimeFailure(error["code"], error["status"], error["message"])
        for found in waiting:
            found(failure)

    async def _ask(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self._questions.ask(question, WAIT + 10)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
