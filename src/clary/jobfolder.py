"""The folder of one transform job: all that its controller and its agent tell each other, and what they remember.

    job.json        what is to be done                       the controller writes it, once
    instances.json  which containers answer, since when      the controller, whenever that changes
    inputs          the objects, a line of JSON each         the agent, once
    journal         the objects that are done, or failed     the agent, a line when one is
    progress.json   how far it is                            the agent, once a second
    result.json     how it ended                             the agent, last
    lock            held by the agent as long as it lives, with its pid in it

Files that are replaced are replaced whole. Nothing is synced: what a power failure takes away is done again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from clary.core.routing import Hop
from clary.core.transform import Outcome, Progress

Record = Mapping[str, Any]

_TRIES, _PAUSE = 20, 0.05
"""How often, and after how many seconds each time, an agent tries to get its lock."""


@dataclass(frozen=True, slots=True)
class Instances:
    """The containers that answer, by instance, in the order of the pipeline; and when the job was started."""

    started: float
    hops: Mapping[str, tuple[Hop, ...]]


class JobFolder:
    """One job's folder. Reading what is not there gives None."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # -- the controller's --------------------------------------------------------------------------------------------

    def create(self, job: Record) -> None:
        """Make the folder and say in it what is to be done; once."""
        if not self._job.exists():
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(self._job, job)

    def offer(self, instances: Instances) -> None:
        """Tell the agent which containers answer."""
        if instances != self.instances():
            _replace(self._instances, asdict(instances))

    def outcome(self) -> Outcome | None:
        """Tell how the job ended."""
        found = _read(self.path / "result.json")
        return None if found is None else Outcome(**found)

    def agent(self) -> int | None:
        """Give the pid of the agent that works here; None where none does."""
        try:
            with self._lock.open("rb") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(lock.read() or 0) or None
        except FileNotFoundError:
            pass
        return None

    def remove(self) -> None:
        """Forget the job."""
        shutil.rmtree(self.path, ignore_errors=True)

    # -- the agent's -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """Be the agent that works here; gives False where another one is, or the job is over."""
        if not self._job.exists():
            yield False
            return
        with self._lock.open("a+b") as lock:
            for _ in range(_TRIES):  # the controller looks now and then, for a moment
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    lock.truncate(0)
                    lock.write(str(os.getpid()).encode())
                    lock.flush()
                    yield True
                    return
                time.sleep(_PAUSE)
            yield False

    def job(self) -> Record:
        """Give what is to be done. Raises FileNotFoundError."""
        job: Record = json.loads(self._job.read_text())
        return job

    def instances(self) -> Instances | None:
        """Give the containers that answer now."""
        found = _read(self._instances)
        if found is None:
            return None
        return Instances(
            found["started"], {id: tuple(Hop(**hop) for hop in hops) for id, hops in found["hops"].items()}
        )

    def instances_stamp(self) -> tuple[int, int] | None:
        """Give what changes whenever the controller tells anything new."""
        with contextlib.suppress(FileNotFoundError):
            status = self._instances.stat()
            return status.st_ino, status.st_mtime_ns
        return None

    def report(self, progress: Progress) -> None:
        """Say how far the work is."""
        _replace(self.path / "progress.json", asdict(progress))

    def progress(self) -> Progress | None:
        """Give how far the work was when that was said last."""
        found = _read(self.path / "progress.json")
        return None if found is None else Progress(**found)

    def end(self, outcome: Outcome) -> None:
        """Say how the job ended."""
        _replace(self.path / "result.json", asdict(outcome))

    def keys(self) -> Iterator[str]:
        """Give what the outputs of the objects are called by, as far as these were found."""
        with contextlib.suppress(FileNotFoundError), self.inputs.open() as lines:
            for line in lines:
                yield json.loads(line)[1]

    @property
    def inputs(self) -> Path:
        return self.path / "inputs"

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    @property
    def _job(self) -> Path:
        return self.path / "job.json"

    @property
    def _instances(self) -> Path:
        return self.path / "instances.json"

    @property
    def _lock(self) -> Path:
        return self.path / "lock"


def find(folders: Path, name: str) -> JobFolder | None:
    """Give the folder of the job of this name; None where it is not under way."""
    for folder in map(JobFolder, folders.glob("*/")):
        with contextlib.suppress(FileNotFoundError):
            if str(folder.job()["name"]).lower() == name.lower():
                return folder
    return None


def _replace(file: Path, document: Record) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(document))
    fresh.replace(file)


def _read(file: Path) -> dict[str, Any] | None:
    try:
        return cast("dict[str, Any]", json.loads(file.read_text()))
    except FileNotFoundError:
        return None
