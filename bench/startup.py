"""How much later than its container can answer is an endpoint InService?

By turns the same container is started by hand (`docker run`, or as a process) and pinged every 10 ms until the first
good answer, and by CreateEndpoint, until DescribeEndpoint, asked every 20 ms, says InService. The image is present and
the model's data is in the cache. Shown is what Clary adds, with a container that needs no time at all, 0.3 s and 2 s.
Docker's own time differs from one container to the next by more than that (`spread`: the slowest by hand less the
fastest), so there it is taken from the same one: `around` is all of CreateEndpoint to InService but from Docker's
making the container to its listening.

    .venv/bin/python bench/startup.py [--engine docker process] [--rounds 7]
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import http.client
import os
import signal
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.acceptance.conftest import IMAGE, Clary, model_archive, running
from tests.containers import BIND_LABEL, build, docker, missing

DELAYS = (0.0, 0.3, 2.0)
LIMIT = 0.5
"""Seconds that Clary may add."""
NETWORK = f"clary-bench-{os.getpid()}"
SERVER = """\
#!/usr/bin/env python3
import os, signal, socket, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
time.sleep(float(os.environ["DELAY"]))
listener = socket.create_server((os.environ.get("HOST", "127.0.0.1"), int(os.environ["SAGEMAKER_BIND_TO_PORT"])))
print("listening", time.time(), flush=True)
while True:
    connection, _ = listener.accept()
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
    connection.close()
"""
"""Begins in no time and answers each connection once: the container's own time is next to its delay."""


def first_ping(host: str, port: int) -> None:
    """Return at the first good ping."""
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(host, port, timeout=2)
            connection.request("GET", "/ping")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.01)


def container_by_hand(image: str, delay: float) -> float:
    """Start a container with docker run and give the seconds to its first good ping."""
    name = f"clary-bench-{uuid.uuid4().hex[:8]}"
    began = time.perf_counter()
    variables = ("-e", f"DELAY={delay}", "-e", "SAGEMAKER_BIND_TO_PORT=8080", "-e", "HOST=0.0.0.0")
    docker("run", "-d", "--name", name, "--network", NETWORK, *variables, image, "serve")
    address = docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)
    first_ping(address, 8080)
    taken = time.perf_counter() - began
    docker("rm", "-f", name)
    return taken


def process_by_hand(program: Path, delay: float) -> float:
    """Start a process and give the seconds to its first good ping."""
    port = 21_999
    began = time.perf_counter()
    environment = {**os.environ, "DELAY": str(delay), "SAGEMAKER_BIND_TO_PORT": str(port)}
    process = subprocess.Popen([sys.executable, str(program)], env=environment, stdout=subprocess.DEVNULL)
    first_ping("127.0.0.1", port)
    taken = time.perf_counter() - began
    process.send_signal(signal.SIGKILL)
    process.wait()
    return taken


def own_time(clary: Clary, endpoint: str) -> float:
    """Give the seconds that a container of Docker's took by itself: from its being made to its listening."""
    (id,) = clary.containers(endpoint)
    made = dt.datetime.fromisoformat(docker("inspect", "-f", "{{.Created}}", id)[:26] + "+00:00").timestamp()
    return float(docker("logs", id).rpartition("listening ")[2]) - made


def by_clary(clary: Clary, model: str, engine: str) -> tuple[float, float]:
    """Create an endpoint and give the seconds until it is InService, and those around its container's own."""
    sagemaker = clary.client("sagemaker")
    name = f"bench-{uuid.uuid4().hex[:8]}"
    variant = {"VariantName": "A", "ModelName": model, "InstanceType": "ml.clary.local", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    began = time.perf_counter()
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    while (status := sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"]) == "Creating":
        time.sleep(0.02)
    taken = time.perf_counter() - began
    if status != "InService":
        raise SystemExit(f"the endpoint is {status}:\n{clary.output()[-3000:]}")
    around = taken - own_time(clary, name) if engine == "docker" else 0.0
    sagemaker.delete_endpoint(EndpointName=name)
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    return taken, around


@contextlib.contextmanager
def prepared(engine: str, clary: Clary) -> Iterator[tuple[str, Callable[[float], float]]]:
    """Give the Image of the models, and how their container is started by hand."""
    if engine == "process":
        program = clary.data.parent / "serve.py"
        program.write_text(SERVER)
        yield IMAGE, lambda delay: process_by_hand(program, delay)
        return
    lines = (f"LABEL {BIND_LABEL}=true", "ENV HOST=0.0.0.0", 'ENTRYPOINT ["/server.py"]')
    image = build("clary/bench-startup:1", {"server.py": SERVER}, *lines)
    docker("network", "create", NETWORK)
    try:
        yield image, lambda delay: container_by_hand(image, delay)
    finally:
        docker("network", "rm", NETWORK)


def measure(engine: str, rounds: int) -> bool:
    """Print what Clary adds with one engine; tell whether it is within the limit."""
    within = True
    with running("--engine", engine, "--log-level", "warning") as clary, prepared(engine, clary) as (image, by_hand):
        url = clary.upload("bench/model.tar.gz", model_archive("bench", serve=SERVER))
        for delay in DELAYS:
            model = f"delay-{delay}".replace(".", "-")
            container = {"Image": image, "ModelDataUrl": url, "Environment": {"DELAY": str(delay)}}
            clary.client("sagemaker").create_model(ModelName=model, PrimaryContainer=container)
            by_hand(delay), by_clary(clary, model, engine)  # what is done once is done
            turns = [(by_hand(delay), *by_clary(clary, model, engine)) for _ in range(rounds)]
            alone, whole, around = zip(*turns, strict=True)
            added = [there - here for here, there, _ in turns]
            print(
                f"{engine:8} ready after {delay:3.1f} s   by hand {statistics.median(alone):5.2f} s  "
                f"spread {max(alone) - min(alone):4.2f} s   InService {statistics.median(whole):5.2f} s   "
                f"added: p50 {statistics.median(added):+5.2f} s  max {max(added):+5.2f} s"
                + (f"  around: p50 {statistics.median(around):.2f} s  max {max(around):.2f} s" if any(around) else ""),
                flush=True,
            )
            within &= max(around if any(around) else added) <= LIMIT
    return within


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", nargs="+", choices=("docker", "process"), default=["docker", "process"])
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    reason = missing() if "docker" in given.engine else None
    if reason is not None:
        print(f"docker is left out: {reason}")
    engines = [engine for engine in given.engine if engine != "docker" or reason is None]
    print(f"{given.rounds} rounds; Clary may add {LIMIT} s")
    results = [measure(engine, given.rounds) for engine in engines]  # all of them, also after one that is too slow
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
