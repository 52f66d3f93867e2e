"""What one container gets: its private folders, its environment, its command; and the start itself."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TextIO

from clary.core.containers import ContainerSpec
from clary.engines import isolation, posix
from clary.engines.catalogue import Recipe, fill_in
from clary.engines.environments import PythonEnvironment
from clary.engines.instance_types import Limits
from clary.engines.launcher import MODEL_DIR, Isolation, Plan
from clary.engines.ports import PortBlock
from clary.errors import LaunchFailure

_INHERITED = ("LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
_SERVE = ("serve", "code/serve", "serve.py", "code/serve.py")
_HANDLERS = "code/inference.py"


@dataclass(frozen=True, slots=True)
class Folders:
    """A container's own folders, removed with it."""

    root: Path

    @property
    def work(self) -> Path:
        """Working directory and home."""
        return self.root / "work"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    @property
    def base(self) -> Path:
        """Stands for /opt/ml where nothing can be mounted."""
        return self.root / "ml"

    @property
    def empty(self) -> Path:
        """The model directory of a container without ModelDataUrl."""
        return self.root / "empty"

    @property
    def stage(self) -> Path:
        return self.root / "stage"

    def create(self, trees: Mapping[str, Path]) -> None:
        """Make them afresh; `base` holds links to what is shown, by its directory below /opt/ml."""
        self.remove()
        for folder in (self.work, self.temporary, self.base, self.empty, self.stage):
            folder.mkdir(mode=0o700, parents=True)
        for place, tree in {"model": self.empty, **trees}.items():
            link = self.base / place
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(tree)

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Staged:
    """Everything that a plan is made of."""

    spec: ContainerSpec
    recipe: Recipe
    python: PythonEnvironment
    trees: Mapping[str, Path]
    """What to show, by its directory below /opt/ml; the model itself may be missing."""
    folders: Folders
    ports: PortBlock
    limits: Limits | None
    mounts: bool
    """Whether this machine lets us show the model at /opt/ml/model."""
    serving: Path
    """The folder that holds `clary_serving` and nothing else."""
    data: Path
    """The data folder: an isolated container sees nothing of it but what is its own."""
    region: str
    role_variables: Mapping[str, str]
    """By which the container finds the credentials of its role."""

    @property
    def model(self) -> Path:
        return self.trees.get("model", self.folders.empty)

    @property
    def model_dir(self) -> str:
        """Where the container finds its model."""
        return MODEL_DIR if self.mounts else str(self.folders.base / "model")

    def plan(self, groups: list[Path]) -> Plan:
        """Say what the launcher has to do. Raises LaunchFailure where the model brings nothing to run."""
        return {
            "command": self._command(),
            "environment": self._environment(),
            "directory": str(self.folders.work),
            "trees": {place: str(t) for place, t in {**self.trees, "model": self.model}.items()} if self.mounts else {},
            "stage": str(self.folders.stage),
            "groups": [str(group / "cgroup.procs") for group in groups],
            "isolation": self._isolation(),
        }

    def _isolation(self) -> Isolation | None:
        own = (self.folders.root, self.serving, self.python.path)
        return isolation.plan(self.data, own) if self.spec.network.isolated else None

    def _command(self) -> list[str]:
        python = str(self.python.python)
        if self.recipe.runtime == "script":
            return [python, "-m", "clary_serving", "serve"]
        if self.recipe.runtime == "command":
            values = {"model_dir": self.model_dir, "port": str(self.ports.port), "python": python}
            return [fill_in(word, values) for word in self.recipe.command]
        for name in _SERVE:
            file = self.model / name
            if file.is_file():
                words = [f"{self.model_dir}/{name}", "serve"]
                return [python, *words] if name.endswith(".py") else words
        brought = f"{self.spec.image} runs what the model data brings, and it brings no {_listed()}"
        if (self.model / _HANDLERS).is_file():
            brought += f"; functions in {_HANDLERS} are what AWS's framework images run"
        top = [*islice(self.model.iterdir(), 2)]
        if len(top) == 1 and any((top[0] / name).is_file() for name in _SERVE):
            brought += f". It has an extra top folder, {top[0].name}: pack what is in it, not the folder itself"
        raise LaunchFailure("create", brought)

    def _environment(self) -> dict[str, str]:
        """Compose the variables: ours that may be changed, the image's, the user's, and the contract's.

        Nothing else of Clary's own environment gets in: it may hold keys.
        """
        given = {**self.recipe.environment, **self.spec.environment}
        search = given.get("PATH") or os.environ.get("PATH") or os.defpath
        variables = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        variables |= {"PYTHONUNBUFFERED": "1", "AWS_REGION": self.region, "AWS_DEFAULT_REGION": self.region}
        variables |= {"HOME": str(self.folders.work)}
        if self.limits is not None:
            variables["SM_NUM_CPUS"] = str(min(math.ceil(self.limits.cpus), os.cpu_count() or 1))
            if self.limits.devices:  # a request and no wall, like all that keeps processes apart
                variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, self.limits.devices))
        variables |= self.role_variables
        variables |= given
        if self.recipe.runtime == "script":
            own = (str(self.serving), given.get("PYTHONPATH"))
            variables["PYTHONPATH"] = os.pathsep.join(part for part in own if part)
            if self.limits is not None:
                variables.setdefault("CLARY_SERVING_MEMORY_MB", str(self.limits.memory // 2**20))
        if not self.mounts:
            variables["SAGEMAKER_BASE_DIR"] = str(self.folders.base)
        if self.spec.models is not None:
            variables["SAGEMAKER_MULTI_MODEL"] = "true"
        return variables | {
            "PATH": f"{self.python.scripts}{os.pathsep}{search}",
            "SAGEMAKER_BIND_TO_PORT": str(self.ports.port),
            "SAGEMAKER_SAFE_PORT_RANGE": self.ports.safe_range,
            "SM_MODEL_DIR": self.model_dir,
            "TMPDIR": str(self.folders.temporary),
            "TEMP": str(self.folders.temporary),
        }


def _listed() -> str:
    return ", ".join(_SERVE[:-1]) + f" or {_SERVE[-1]}"


async def try_out(folders: Folders, groups: Sequence[Path], isolated: Isolation | None, *, mounts: bool) -> str | None:
    """Try on an empty directory and a shell whether the machine lets us do something; give why not."""
    folders.create({})
    plan: Plan = {
        "command": ["/bin/sh", "-c", "exit 0"],
        "environment": {},
        "directory": str(folders.work),
        "trees": {"model": str(folders.empty)} if mounts else {},
        "stage": str(folders.stage),
        "groups": [str(group / "cgroup.procs") for group in groups],
        "isolation": isolated,
    }
    try:
        pid = await start(plan, folders.root / "log", lambda _: None)
        while posix.reap(pid) is None:  # noqa: ASYNC110 - a shell that exits at once
            await asyncio.sleep(0.005)
    except LaunchFailure as failure:
        return failure.message
    finally:
        folders.remove()
    return None


async def start(plan: Plan, log: Path, record: Callable[[int], None]) -> int:
    """Run a plan and give the pid once its command runs.

    `record` is called with the pid while the launcher still waits for the word: when we die before it has been
    written down, the launcher finds the end of its pipe and goes. Raises LaunchFailure(create); leaves nothing
    behind, also when cancelled.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    plan_read, plan_write = os.pipe()
    report_read, report_write = os.pipe()
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    try:
        pid = posix.spawn_launcher(plan_read, report_write, output)
    except BaseException:
        os.close(plan_write)
        os.close(report_read)
        raise
    finally:
        for number in (plan_read, report_write, output):
            os.close(number)
    try:
        report = await _direct(plan, lambda: record(pid), plan_write, report_read)
        if report:
            raise LaunchFailure("create", report)
    except BaseException:
        posix.send(signal.SIGKILL, {pid})
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it was killed; an await could be cancelled and leave a zombie
        raise
    return pid


async def _direct(plan: Plan, record: Callable[[], None], plan_write: int, report_read: int) -> str:
    """Hand over the plan, give the word, and wait for exec; give what went wrong."""
    report = os.fdopen(report_read, "rb")
    pipe = os.fdopen(plan_write, "w")
    reading = asyncio.ensure_future(asyncio.to_thread(_read_all, report))
    try:
        record()
        # In a thread: a plan may be larger than a pipe. The launcher reads it or dies; neither takes long.
        await asyncio.to_thread(_give_word, pipe, json.dumps(plan))
        return (await asyncio.shield(reading)).decode(errors="replace")
    except BrokenPipeError:
        return "the launcher ended before it was told what to do"
    except BaseException:
        reading.add_done_callback(lambda done: done.exception())
        raise


def _read_all(stream: BinaryIO) -> bytes:
    with stream:
        return stream.read()


def _give_word(stream: TextIO, text: str) -> None:
    with stream:
        stream.write(f"{text}\ngo\n")
