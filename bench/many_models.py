"""How many small models does the built-in multi-model server hold, and what do they feel of each other?

Small scikit-learn models (a logistic regression of the iris flowers, 1 KB) in the server itself, without a gateway:

- memory of each model, what that is in models per GB, and beside it a server of its own for one model
- loads per second, one at a time and eight asked for at once
- milliseconds of an invocation beside the single-model server, in turn, over one connection each
- milliseconds of invocations of resident models at a steady rate, without and with a storm of loads and unloads

    .venv/bin/python bench/many_models.py [--models 300] [--java clary/test-toolkit-many:1]

With --java an image of AWS's toolkit (as tests/servers.py makes it; Docker is needed) holds the same models, fewer of
them, with one worker each.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from multiprocessing import Manager
from multiprocessing.synchronize import Event
from pathlib import Path

import uv

import clary
from clary.engines.environments import SCRIPT_PACKAGES

BODY = json.dumps([[5.1, 3.5, 1.4, 0.2]])
FIELDS = {"Content-Type": "application/json"}
SCRIPT = """
import joblib, os
def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))
def predict_fn(data, model):
    return model.predict(data)
"""
TRAIN = """
import joblib, sys
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
joblib.dump(LogisticRegression(max_iter=1000).fit(*load_iris(return_X_y=True)), sys.argv[1])
"""
RATE = 20.0
"""Invocations of resident models a second, in the storm and before it."""


class Target:
    """A server, and where it finds the models."""

    def __init__(self, host: str, port: int, models: str) -> None:
        self._address = (host, port)
        self._models = models

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(*self._address, timeout=120)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        with closing(self.connect()) as connection:
            return ask(connection, method, path, body)

    def load(self, name: str) -> int:
        url = f"{self._models}/{name}/model"
        return self.ask("POST", "/models", json.dumps({"model_name": name, "url": url}))[0]

    def unload(self, name: str) -> int:
        return self.ask("DELETE", f"/models/{name}")[0]

    def wait(self) -> None:
        for _ in range(600):
            try:
                if self.ask("GET", "/ping")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise SystemExit("the server does not start")


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
    connection.request(method, path, body, FIELDS)
    answer = connection.getresponse()
    return answer.status, answer.read()


def environment(folder: Path) -> Path:
    """Build what a scikit-learn model runs in; give its interpreter."""
    command = uv.find_uv_bin()
    subprocess.run([command, "venv", "-q", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([command, "pip", "install", "-q", "--python", python, "scikit-learn", *SCRIPT_PACKAGES], check=True)
    return python


def write_models(folder: Path, python: Path, number: int) -> list[str]:
    first = folder / "model.joblib"
    subprocess.run([python, "-c", TRAIN, first], check=True)
    names = [f"m{index:04}" for index in range(number)]
    for name in names:
        model = folder / name / "model"
        (model / "code").mkdir(parents=True)
        (model / "code" / "inference.py").write_text(SCRIPT)
        shutil.copy(first, model)
    return names


@contextmanager
def serving(python: Path, folder: Path, **variables: str) -> Iterator[tuple[Target, int]]:
    """Run the built-in server; give it and its first process."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = folder / "path"
    path.mkdir(exist_ok=True)
    if not (path / "clary_serving").exists():
        (path / "clary_serving").symlink_to(Path(clary.__path__[0]) / "serving")
    settings = {"PATH": os.environ["PATH"], "PYTHONPATH": str(path), "SAGEMAKER_BIND_TO_PORT": str(port)}
    settings |= {"CLARY_SERVING_FRAMEWORK": "sklearn", **variables}
    server = subprocess.Popen([python, "-m", "clary_serving", "serve"], env=settings, start_new_session=True)
    try:
        target = Target("127.0.0.1", port, str(folder))
        target.wait()
        yield target, server.pid
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


@contextmanager
def java(image: str, folder: Path) -> Iterator[tuple[Target, int]]:
    words = ["docker", "run", "--detach", "--env", "SAGEMAKER_MULTI_MODEL=true", "--network", "clary-bench",
             "--volume", f"{folder}:/opt/ml/models:ro", image, "serve"]  # fmt: skip
    subprocess.run(["docker", "network", "create", "clary-bench"], check=True, stdout=subprocess.DEVNULL)
    container = ""
    try:
        container = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
        form = "{{.State.Pid}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        told = subprocess.run(["docker", "inspect", "-f", form, container], check=True, capture_output=True, text=True)
        pid, host = told.stdout.split()
        target = Target(host, 8080, "/opt/ml/models")
        target.wait()
        yield target, int(pid)
    finally:
        if container:
            subprocess.run(["docker", "rm", "-f", "-v", container], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["docker", "network", "rm", "clary-bench"], check=True, stdout=subprocess.DEVNULL)


def family(pid: int) -> list[int]:
    """Give a process and its descendants, whichever thread started them."""
    with suppress(FileNotFoundError, ProcessLookupError):  # one ends while we look
        children = [child for task in Path(f"/proc/{pid}/task").iterdir() for child in read(task / "children").split()]
        return [pid, *(each for child in children for each in family(int(child)))]
    return [pid]


def read(path: Path) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return path.read_text()
    return ""


def share(pid: int) -> float:
    """Measure a process' proportional share of memory (Pss) in MB."""
    for line in read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1000
    return 0.0


def weigh(pid: int) -> float:
    return sum(share(each) for each in family(pid))


def percentiles(times: list[float]) -> tuple[float, float]:
    ordered = sorted(times)
    return statistics.median(ordered) * 1000, ordered[int(len(ordered) * 0.99)] * 1000


def density(label: str, target: Target, pid: int, names: list[str]) -> None:
    """Load all models, invoke each once, and print what they take."""
    assert target.load(names[0]) == 200
    assert target.ask("POST", f"/models/{names[0]}/invoke", BODY) == (200, b"[0]")
    before = weigh(pid)
    half = len(names) // 2
    begun = time.perf_counter()
    statuses = [target.load(name) for name in names[1:half]]
    one_by_one = (half - 1) / (time.perf_counter() - begun)
    begun = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        statuses += list(pool.map(target.load, names[half:]))
    at_once = (len(names) - half) / (time.perf_counter() - begun)
    assert set(statuses) == {200}, statuses
    assert {target.ask("POST", f"/models/{name}/invoke", BODY) for name in names} == {(200, b"[0]")}
    each = (weigh(pid) - before) / (len(names) - 1)
    print(f"{label:<24} {len(names):4} models  {each:6.1f} MB each  {1000 / each:5.0f} per GB more"
          f"  {one_by_one:6.1f} loads/s one by one  {at_once:6.1f} eight at once")  # fmt: skip


def latency(single: Target, many: Target, name: str, rounds: int = 20, each: int = 100) -> None:
    """Invoke the one and the other in turn."""
    paths = {"single-model server": (single, "/invocations"), "one of many": (many, f"/models/{name}/invoke")}
    times: dict[str, list[float]] = {label: [] for label in paths}
    connections = {label: target.connect() for label, (target, _) in paths.items()}
    for _ in range(rounds):
        for label, (_, path) in paths.items():
            for _ in range(each):
                begun = time.perf_counter()
                assert ask(connections[label], "POST", path, BODY) == (200, b"[0]")
                times[label].append(time.perf_counter() - begun)
    found = {label: percentiles(measured) for label, measured in times.items()}
    for label, (median, slowest) in found.items():
        print(f"{label:<24} p50 {median:6.2f} ms  p99 {slowest:6.2f} ms")
    print(f"{'ratio of p50':<24} {found['one of many'][0] / found['single-model server'][0]:.2f}")


def steadily(target: Target, names: list[str], seconds: float) -> list[float]:
    """Invoke resident models at a steady rate; give seconds from when each was due."""
    times = []
    with closing(target.connect()) as connection:
        begun = time.perf_counter()
        for number in range(int(seconds * RATE)):
            due = begun + number / RATE
            time.sleep(max(0.0, due - time.perf_counter()))
            assert ask(connection, "POST", f"/models/{names[number % len(names)]}/invoke", BODY) == (200, b"[0]")
            times.append(time.perf_counter() - due)
    return times


def trouble(target: Target, names: list[str], over: Event) -> int:
    """Load and unload models until it is over; give how many were loaded."""
    for loads, name in enumerate(itertools.cycle(names)):
        if over.is_set():
            return loads
        assert (target.load(name), target.unload(name)) == (200, 200)
    return 0


def storm(target: Target, residents: list[str], others: list[str], rounds: int = 4, seconds: float = 8.0) -> None:
    """Compare resident models' times without and with four clients that load and unload others."""
    calm, stormy = [], []
    loads = 0
    # Processes: threads of this one would hold up the clock.
    with Manager() as manager, ProcessPoolExecutor(4) as pool:
        over = manager.Event()
        for _ in range(rounds):
            calm += steadily(target, residents, seconds)
            over.clear()
            work = [pool.submit(trouble, target, others[index::4], over) for index in range(4)]
            stormy += steadily(target, residents, seconds)
            over.set()
            loads += sum(each.result() for each in work)
    (calm_median, calm_slowest), (median, slowest) = percentiles(calm), percentiles(stormy)
    rate = loads / rounds / seconds
    print(f"{'residents, no loads':<24} p50 {calm_median:6.2f} ms  p99 {calm_slowest:6.2f} ms")
    print(f"{'residents in a storm':<24} p50 {median:6.2f} ms  p99 {slowest:6.2f} ms  {rate:.0f} loads/s")
    print(f"{'ratio of p99':<24} {slowest / calm_slowest:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--java", metavar="IMAGE")
    parser.add_argument("--python", type=Path, help="of an environment that has what a scikit-learn model needs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clary-") as name:
        folder = Path(name)
        python = given.python or environment(folder / "environment")
        names = write_models(folder, python, given.models)
        one = {"SM_MODEL_DIR": str(folder / names[0] / "model"), "SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
        with serving(python, folder, **one) as (single, alone):
            with serving(python, folder, SAGEMAKER_MULTI_MODEL="true") as (many, pid):
                density("built-in", many, pid, names)
                print(f"{'a server for each':<24}    1 model   {weigh(alone):6.1f} MB")
                latency(single, many, names[0])
            with serving(python, folder, SAGEMAKER_MULTI_MODEL="true") as (many, pid):
                for resident in names[:20]:
                    many.load(resident)
                storm(many, names[:20], names[20:])
        if given.java:
            with java(given.java, folder) as (target, pid):
                density("AWS's toolkit, Java", target, pid, names[:10])


if __name__ == "__main__":
    main()
