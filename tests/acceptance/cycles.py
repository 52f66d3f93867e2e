"""Create and delete endpoints while everything that takes part is killed at random; then see what is left over.

    .venv/bin/python -m tests.acceptance.cycles [--engine docker] [--cycles 200] [--lanes 4] [--seed 1]

A Clary with a dockerd of its own, in a network and pid namespace of their own: what listens there, and what runs, is
theirs, and nobody else is disturbed. Needs root. The seed decides what is created and killed; when, only the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.acceptance.conftest import IMAGE, ROLE, SERVE, Clary, model_archive, model_processes
from tests.acceptance.leftovers import left
from tests.containers import BIND_LABEL, build
from tests.dockerd import Daemon
from tests.namespaces import apart

KINDS = ("plain", "pair", "pipeline", "isolated", "role", "crashing", "slow")
ARCHIVES = 5
PATIENCE = 600.0
"""Seconds that a request may be retried, and that an endpoint may take to be gone.

More than it takes after the worst of the kills: Docker that needs 10 s to start, and a look at everything every 30 s.
"""
AWAITED = 30.0
"""Seconds in which an endpoint should leave Creating; one whose control plane dies all the time need not."""
NO_RETRIES = Config(retries={"total_max_attempts": 1}, read_timeout=60)
_INSIDE = "CYCLES_FOLDER"
Client = Any


@dataclass
class Score:
    """What happened, counted."""

    strikes: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


class Havoc:
    """Kills something, again and again, and sees to it that what nobody else restarts is started again."""

    def __init__(self, clary: Clary, daemon: Daemon | None, dice: random.Random, score: Score) -> None:
        self._clary, self._daemon, self._dice, self._score = clary, daemon, dice, score
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.trouble: BaseException | None = None

    def __enter__(self) -> Havoc:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        strikes: dict[Callable[[], None], int] = {
            self._control: 4,
            self._gateway: 3,
            self._supervisor: 2,
            self._relay: 3,
        }
        if self._daemon is None:
            strikes |= {self._process: 6}
        else:
            strikes |= {
                self._kill_container: 4,
                self._remove_container: 4,
                self._crash_docker: 2,
                self._restart_docker: 1,
            }
        try:
            while not self._over.wait(self._dice.uniform(0.2, 2.5)):
                [strike] = self._dice.choices(list(strikes), list(strikes.values()))
                with contextlib.suppress(LookupError, ProcessLookupError):  # there is none now
                    strike()
                    self._score.strikes[strike.__name__.strip("_")] += 1
                if self._dice.random() < 0.7:  # else the next one hits those who are just coming back
                    insist(self._clary.client("sagemaker", config=NO_RETRIES).list_endpoints, "")
        except BaseException as error:
            self.trouble = error

    def _control(self) -> None:
        os.kill(self._clary.child("clary.server control"), signal.SIGKILL)

    def _gateway(self) -> None:
        os.kill(self._clary.child("clary.server gateway"), signal.SIGKILL)

    def _supervisor(self) -> None:
        self._clary.process.kill()
        self._clary.process.wait()
        self._clary._record.unlink(missing_ok=True)
        time.sleep(self._dice.choice((0.0, 1.0)))
        self._clary.start()

    def _relay(self) -> None:
        relays = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if b"forwarder.py" in (folder / "cmdline").read_bytes():
                    relays.append(int(folder.name))
        os.kill(self._dice.choice(relays), signal.SIGKILL)

    def _process(self) -> None:
        os.kill(self._dice.choice(model_processes(self._clary)), signal.SIGKILL)

    def _kill_container(self) -> None:
        self._docker("kill", self._container())

    def _remove_container(self) -> None:
        self._docker("rm", "-f", "-v", self._container())

    def _container(self) -> str:
        return self._dice.choice(self._docker("ps", "-a", "-q").split())

    def _crash_docker(self) -> None:
        self._docker_dies(signal.SIGKILL)

    def _restart_docker(self) -> None:
        self._docker_dies(signal.SIGTERM)

    def _docker_dies(self, number: signal.Signals) -> None:
        assert self._daemon is not None
        self._daemon.end(number)
        if self._dice.random() < 0.3:
            self._control()
        time.sleep(self._dice.uniform(0, 2))
        self._daemon.start(*self._dice.choice(((), ("--live-restore",))))

    def _docker(self, *words: str) -> str:
        assert self._daemon is not None
        return self._daemon.docker(*words).stdout.decode()


@dataclass
class Lane:
    """One after the other: an endpoint is created, lives for a while or not at all, and is deleted."""

    clary: Clary
    image: str
    archives: list[str]
    score: Score

    def cycle(self, number: int, dice: random.Random) -> None:
        name, kind = f"c{number}", dice.choice(KINDS)
        client = self.clary.client("sagemaker", config=NO_RETRIES)
        variant = {"VariantName": "A", "ModelName": name, "InstanceType": "ml.clary.local"}
        variant["InitialInstanceCount"] = 2 if kind == "pair" else 1  # type: ignore[assignment]
        insist(client.create_model, "existing", ModelName=name, **self._model(kind, dice))
        insist(client.create_endpoint_config, "existing", EndpointConfigName=name, ProductionVariants=[variant])
        insist(client.create_endpoint, "existing", EndpointName=name, EndpointConfigName=name)
        end = "not awaited"
        if dice.random() < 0.6:
            end = self._await(client, name)
            time.sleep(dice.uniform(0, 2))
        else:
            time.sleep(dice.uniform(0, 3))
        insist(client.delete_endpoint, "could not find", EndpointName=name)
        self._await(client, name, gone=True)
        insist(client.delete_endpoint_config, "could not find", EndpointConfigName=name)
        insist(client.delete_model, "could not find", ModelName=name)
        self.score.ends[f"{kind}: {end}"] += 1

    def _model(self, kind: str, dice: random.Random) -> dict[str, Any]:
        environment = {"slow": {"LOAD_SECONDS": "3"}, "crashing": {"EXIT_WITH": "3"}}.get(kind, {})
        container = {"Image": self.image, "ModelDataUrl": dice.choice(self.archives), "Environment": environment}
        model: dict[str, Any] = {"PrimaryContainer": container}
        if kind == "pipeline":
            second = {**container, "ModelDataUrl": dice.choice(self.archives)}
            model = {"Containers": [container, second]}
        if kind == "role":
            model["ExecutionRoleArn"] = ROLE
        return {**model, "EnableNetworkIsolation": kind == "isolated"}

    def _await(self, client: Client, name: str, *, gone: bool = False) -> str:
        """Wait until an endpoint has left Creating, or for as long as that may take; or until it is gone."""
        deadline = time.monotonic() + (PATIENCE if gone else AWAITED)
        while time.monotonic() < deadline:
            found = insist(client.describe_endpoint, "could not find", EndpointName=name)
            if found is None:
                return "gone"
            status = found["EndpointStatus"]
            if not gone and status != "Creating":
                if status == "Failed":
                    self.score.reasons[found["FailureReason"].replace(name, "*")[:300]] += 1
                return str(status)
            time.sleep(0.2)
        if gone:
            raise AssertionError(f"{name} is {status} for {PATIENCE:.0f} s: {found}")
        return "Creating"


def insist(call: Callable[..., Any], fine: str, **members: Any) -> Any:
    """Call until there is an answer; None where it is the error of something that is done already."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return call(**members)
        except ClientError as error:
            if fine and fine in str(error).lower():
                return None
            if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500 or time.monotonic() > deadline:
                raise
        except BotoCoreError:  # nobody answered, or not to the end
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def settled(clary: Clary, daemon: Daemon | None) -> list[str]:
    """Wait until nothing is left over, and give what is in the end."""
    deadline = time.monotonic() + PATIENCE / 2
    while (found := left(clary, daemon)) and time.monotonic() < deadline:
        time.sleep(1)
    return found


def perform(clary: Clary, daemon: Daemon | None, image: str, given: argparse.Namespace) -> list[str]:
    """Do all cycles and give what is left over: while Clary runs, and after it was stopped."""
    archives = [clary.upload(f"{n}/model.tar.gz", model_archive(f"model {n}")) for n in range(ARCHIVES)]
    score = Score()
    lane = Lane(clary, image, archives, score)
    began = time.monotonic()
    with Havoc(clary, daemon, random.Random(given.seed), score) as havoc, ThreadPoolExecutor(given.lanes) as pool:
        work = [pool.submit(lane.cycle, n, random.Random(f"{given.seed}/{n}")) for n in range(given.cycles)]
        for number, each in enumerate(as_completed(work), 1):
            if each.exception() is not None:
                pool.shutdown(wait=False, cancel_futures=True)
            each.result()
            if number % 10 == 0:
                print(f"{time.monotonic() - began:6.0f} s  {number} cycles, {score.strikes.total()} kills", flush=True)
    if havoc.trouble is not None:
        raise havoc.trouble
    print("kills:", dict(score.strikes), "\nends:", dict(sorted(score.ends.items())), flush=True)
    for reason, times in score.reasons.most_common():
        print(f"  {times} x {reason}")
    began = time.monotonic()
    for card in clary.data.glob("artifacts/*/artifact.json"):  # as if each filled the cache: only what is held stays
        card.write_text(json.dumps({**json.loads(card.read_text()), "bytes": 2**31}))
    lane.cycle(given.cycles, random.Random(0))  # in peace
    found = settled(clary, daemon)
    print(f"after {time.monotonic() - began:.0f} s, while it runs, left over: {found or 'nothing'}")
    clary.process.terminate()
    code = clary.process.wait(300)
    ended = settled(clary, daemon)
    print(f"after it was stopped ({code}), left over: {ended or 'nothing'}", flush=True)
    return found + ended


def inside(folder: Path, given: argparse.Namespace, image: str) -> int:
    daemon = None
    if given.engine == "docker":
        (folder / "docker").mkdir()
        daemon = Daemon(folder / "docker", (f"--cgroup-parent=/{_group(folder)}",))
        daemon.begin()
        daemon.load(image)
    clary = Clary(
        folder / "data",
        ("--engine", given.engine, "--artifact-cache", "1", "--defer-checks"),
        {"DOCKER_HOST": daemon.url} if daemon else {},
    )
    clary.start()
    try:
        found = perform(clary, daemon, image, given)
    except BaseException:
        print(clary.output()[-20000:], file=sys.stderr)
        raise
    finally:
        if given.log:
            Path(given.log).write_text(clary.output())
        if daemon:
            daemon.stop()
    return 1 if found else 0


def docker_image() -> str:
    """Make the image of the containers: what the process engine runs, with a volume."""
    server = SERVE.replace('("127.0.0.1"', '("0.0.0.0"')
    lines = (f"LABEL {BIND_LABEL}=true", "VOLUME /scratch", 'ENTRYPOINT ["/server.py"]')
    return build("clary/test-cycles:1", {"server.py": server}, *lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("docker", "process"), default="docker")
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", default="", help="file for Clary's log")
    given = parser.parse_args()
    if folder := os.environ.get(_INSIDE):
        return inside(Path(folder), given, "clary/test-cycles:1" if given.engine == "docker" else IMAGE)
    if given.engine == "docker":
        docker_image()
    with tempfile.TemporaryDirectory(prefix="cycles-", ignore_cleanup_errors=True) as here:
        command = apart(sys.executable, "-m", "tests.acceptance.cycles", *sys.argv[1:])
        code = subprocess.run(command, env={**os.environ, _INSIDE: here}).returncode
        for group in Path("/sys/fs/cgroup").glob(f"*/{_group(Path(here))}"):
            for folder, *_ in os.walk(group, topdown=False):
                Path(folder).rmdir()
        return code


def _group(folder: Path) -> str:
    """Name the control group that the containers of our dockerd are in."""
    return f"clary-{folder.name}"


if __name__ == "__main__":
    raise SystemExit(main())
