"""The agent of a job: finds the objects, hands them to the instances, and says how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator

from clary.channel import Broken
from clary.core.failure import LONGEST, printable, shorten
from clary.core.transform import Outcome, Pace, Progress, Work
from clary.errors import Fatal, Transient
from clary.jobfolder import JobFolder
from clary.logs.folder import LogFolder
from clary.objecterrors import ObjectNotFound, ObjectRefused
from clary.objects import Objects
from clary.transform import inputs
from clary.transform.calls import Caller, CallFailed, parameters_of
from clary.transform.captured import capture
from clary.transform.datalog import DataLog
from clary.transform.inputs import Input, NoInput
from clary.transform.instances import Places
from clary.transform.journal import Entry, Journal, done_of
from clary.transform.lane import Lane
from clary.transform.run import PATIENCE, ObjectFailed, Run, Terms

MOST_OPEN = 16
"""Objects that are open at once for each instance; one more than it may get requests, so that it never waits for S3."""
REPORTS = 1.0
"""Seconds between two reports of how far the work is."""
PARAMETERS_TIMEOUT = 60.0
"""Seconds that a container may take to answer GET /execution-parameters."""


class Agent:
    """Works at one job until it is done. Killed at any moment, its successor goes on from the journal."""

    def __init__(self, folder: JobFolder, objects: Objects, logs: LogFolder) -> None:
        job = folder.job()
        self._folder = folder
        self._objects = objects
        self._name = str(job["name"])
        self._work = Work(job["request"])
        self._ids: list[str] = job["instances"]
        self._log = DataLog(logs, self._name, job["since"])
        self._places = Places(folder)
        self._open: set[Run] = set()
        self._records = 0
        """Those of objects that are done, as far as this agent did them."""

    async def work(self) -> None:
        """Do the job and say how it ended in its folder."""
        looking = asyncio.create_task(self._places.run())
        try:
            outcome = await self._outcome()
        except (NoInput, ObjectNotFound, ObjectRefused) as error:
            self._log.say(self._ids[0], [f"ClientError: {error.message}"])
            outcome = Outcome("Failed", _reason("ClientError", error.message))
        except (Transient, Fatal) as error:
            outcome = Outcome("Failed", _reason("InternalServerError", error.message))
        finally:
            looking.cancel()
        self._folder.end(outcome)

    async def _outcome(self) -> Outcome:
        await self._patiently(lambda: inputs.write_down(self._folder.inputs, self._work, self._objects))
        await self._patiently(self._ready_for_output)
        pace = self._work.pace(await self._parameters())
        for id in self._ids:
            self._log.say(id, [pace.words])
        journal = Journal(self._folder.journal)
        try:
            await self._transform(pace, journal)
            await self._patiently(self._captured)
            if not journal.failed:
                return Outcome("Completed")
            total = journal.done + journal.failed
            return Outcome("Failed", _ending(journal.first_failure, journal.failed, total))
        finally:
            journal.close()

    async def _ready_for_output(self) -> None:
        """See that what is to be written has a bucket before a model works for it.

        Raises ObjectNotFound, ObjectRefused or Transient.
        """
        places = [self._work.request["TransformOutput"]["S3OutputPath"]]
        if config := self._work.request.get("DataCaptureConfig"):
            places.append(config["DestinationS3Uri"])
        for place in places:
            folder = self._objects.canonical(f"{place.rstrip('/')}/")
            with contextlib.suppress(ObjectRefused):  # who may write need not be allowed to look
                await self._objects.any_below(folder)

    async def _captured(self) -> None:
        """Leave word, where that is wanted, of which data went in and came out."""
        if config := self._work.request.get("DataCaptureConfig"):
            found, done = inputs.read(self._folder.inputs), done_of(self._folder.journal)
            hour = f"{time.strftime('%Y/%m/%d/%H', time.gmtime(self._places.started))}/{self._name}.json"
            place = f"{config['DestinationS3Uri'].rstrip('/')}/{{}}/{hour}"
            await capture(self._objects, self._work, place, found, done)

    async def _patiently(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something for which S3 is needed, again and again where it is away."""
        deadline, is_known = time.monotonic() + PATIENCE, False
        while True:
            try:
                await work()
                return
            except Transient as trouble:
                if time.monotonic() > deadline:
                    raise
                if not is_known:
                    self._log.say(self._ids[0], [f"{trouble.message}; trying again for {PATIENCE:g} s"])
                is_known = True
                await asyncio.sleep(trouble.retry_after)

    async def _parameters(self) -> dict[str, object]:
        """Ask the first container how it wants to be called; nothing where it has nothing to say."""
        hop = (await self._places.first())[0]
        try:
            found = json.loads(await parameters_of(hop, PARAMETERS_TIMEOUT))
        except (Broken, TimeoutError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    # -- the objects ---------------------------------------------------------------------------------------------------

    async def _transform(self, pace: Pace, journal: Journal) -> None:
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._places.started))
        processing = self._work.processing(started, lambda: str(uuid.uuid4()))
        terms = Terms(self._work, pace, processing, self._objects, self._folder.path)
        todo = (given for given in inputs.read(self._folder.inputs) if not journal.has(given))
        senders = []
        async with asyncio.TaskGroup() as group:
            reporting = group.create_task(self._report(journal))
            working = []
            for id in self._ids:
                lane = Lane(pace)
                callers = [Caller(self._places, self._work, id) for _ in range(pace.concurrency)]
                senders += [group.create_task(lane.send(caller)) for caller in callers]
                senders.append(group.create_task(lane.watch()))
                working += [
                    group.create_task(self._one_by_one(id, lane, todo, terms, journal))
                    for _ in range(min(pace.concurrency, MOST_OPEN) + 1)
                ]
            await asyncio.wait(working)
            for task in (reporting, *senders):
                task.cancel()

    async def _one_by_one(self, id: str, lane: Lane, todo: Iterator[Input], terms: Terms, journal: Journal) -> None:
        """Take one object after the other, whoever else takes them too."""
        for given in todo:
            run = Run(terms, lane, given)
            self._open.add(run)
            failure = await self._tried(run, given)
            self._open.remove(run)
            self._records += run.records
            if failure is not None:
                self._log.failure(id, given.url, failure)
            words = "" if failure is None else _sentence(given, failure)
            journal.add(Entry(given.number, run.records if failure is None else 0, given.head.size, words))

    async def _tried(self, run: Run, given: Input) -> ObjectFailed | None:
        try:
            if given.head.size == 0 and not await self._is_there(given):
                return None  # a folder, as consoles make them: an empty object whose key ends with a slash
            await run.run()
        except ObjectFailed as failed:
            return failed
        except (ObjectNotFound, ObjectRefused) as error:
            return ObjectFailed(CallFailed("ClientError", error.message.removeprefix(f"{given.url}: ")))
        except Transient as error:
            return ObjectFailed(CallFailed("InternalServerError", error.message.removeprefix(f"{given.url}: ")))
        return None

    async def _is_there(self, given: Input) -> bool:
        try:
            await self._objects.head(given.url)
        except ObjectNotFound:
            return False
        return True

    # -- what is said of it --------------------------------------------------------------------------------------------

    async def _report(self, journal: Journal) -> None:
        total = size_total = 0
        for given in inputs.read(self._folder.inputs):
            total, size_total = total + 1, size_total + given.head.size
        since = time.monotonic()
        before = journal.records, journal.size
        while True:
            self._folder.report(
                Progress(
                    objects=journal.done + journal.failed,
                    objects_total=total,
                    failed=journal.failed,
                    records=before[0] + self._records + sum(run.records for run in self._open),
                    size=journal.size + sum(run.size for run in self._open),
                    size_total=size_total,
                    seconds=time.monotonic() - since,
                    size_before=before[1],
                    records_before=before[0],
                )
            )
            await asyncio.sleep(REPORTS)


def _reason(blame: str, words: str) -> str:
    return shorten(printable(f"{blame}: See job logs for more information. {words}"), LONGEST)


def _sentence(given: Input, failed: ObjectFailed) -> str:
    """Say what FailureReason says of an object: which, which record, what the container answered."""
    failure = failed.failure
    where = f"{given.url}, {failed.record}" if failed.record else given.url
    said = failure.body.decode(errors="replace").strip()
    answer = f" The container answered: {shorten(said, 400)}" if said else ""
    return _reason(failure.blame, f"{shorten(where, 300)}: {failure.words}.{answer}")


def _ending(first: str, failed: int, total: int) -> str:
    """Say how many failed, behind what is said of the first."""
    count = f" ({failed} of {total} objects failed.)" if total > 1 else ""
    return shorten(first, LONGEST - len(count)) + count
