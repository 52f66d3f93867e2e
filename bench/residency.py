"""Thousands of models behind one multi-model endpoint, with memory for some: hits, misses, loads, and what they cost.

A Clary of its own, one instance, a server of a few lines that holds so many models and answers 507 beyond. Requests are
for models by a Zipf distribution. A single-model endpoint with the same server is asked in turn with the hits. Resident
models are asked in turn without and with a storm of cold loads from another process, and with as many loads a second
that the server is made to do by hand: those are what the server itself costs, for it loads in the process that
answers. All processes share one machine; read the ratios.

    .venv/bin/python bench/residency.py [--models 10000] [--memory 500] [--requests 6000] [--seconds 20]
                                 [--compute 10]
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import itertools
import json
import multiprocessing
import os
import random
import socket
import statistics
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from whole import ROLE, Whole, running

from clary.core.routing import RouteTable

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.acceptance.multi_model import SERVER

# One model is asked at another path; it answers as one of many does.
SINGLE = SERVER.replace(
    '        name = self.path.split("/")[2]\n        if name not in MODELS:',
    '        name = "only" if self.path == "/invocations" else self.path.split("/")[2]\n'
    '        if name == "only":\n            MODELS[name] = "1"\n        if name not in MODELS:',
).replace(
    '        if body == b"forget":', '        time.sleep(float(os.environ["COMPUTE"]))\n        if body == b"forget":'
)
SKEW = 1.1
BODY = b"x"
STORMING = 4
"""Clients that ask for cold models, one after the other."""
TURNS = 4
PAUSE = 0.002
"""Seconds between requests for resident models: their client shall not fill a CPU by itself."""


class Asker:
    """A client with a connection of its own."""

    def __init__(self, clary: Whole) -> None:
        self._clary = clary
        self._connection = socket.create_connection(("127.0.0.1", clary.port))
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, endpoint: str, target: int | None = None) -> tuple[float, dict[str, Any]]:
        """Invoke; give the milliseconds from sending to the whole answer, and the answer."""
        headers = {} if target is None else {"X-Amzn-SageMaker-Target-Model": f"{target}.tar.gz"}
        request = self._clary.request(f"/endpoints/{endpoint}/invocations", BODY, headers)
        began = time.perf_counter()
        self._connection.sendall(request)
        answer = http.client.HTTPResponse(self._connection)
        answer.begin()
        body = answer.read()
        taken = (time.perf_counter() - began) * 1000
        if answer.status != 200:
            raise SystemExit(f"{answer.status}: {body.decode()}")
        return taken, json.loads(body)


def archive(number: int, weights: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=0) as tar:
        for name, data in (("weight.txt", str(number).encode()), ("weights", weights)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def deploy(clary: Whole, name: str, **container: Any) -> None:
    sagemaker = clary.client("sagemaker")
    sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": "many", **container}, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.clary.local", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1})


def percentile(times: list[float], which: int) -> float:
    return statistics.quantiles(times, n=100)[which - 1]


def percentiles(times: list[float]) -> str:
    return f"p50 {percentile(times, 50):.2f} ms, p99 {percentile(times, 99):.2f} ms" if len(times) > 1 else "-"


def zipf(client: Asker, models: int, requests: int, memory: int) -> list[int]:
    """Ask for models by their popularity; print hits and misses; give those that are loaded."""
    weights = [1 / rank**SKEW for rank in range(1, models + 1)]
    wanted = random.Random(1).choices(range(models), weights, k=requests)
    hits: list[float] = []
    misses: list[float] = []
    loads: dict[int, int] = {}
    for number in wanted:
        taken, said = client.ask("many", number)
        if said["weight"] != str(number):
            raise SystemExit(f"{number} was answered by {said['weight']}")
        loaded = said["loads"] != loads.get(number, 0)
        (misses if loaded else hits).append(taken)
        loads[number] = said["loads"]
    total = sum(loads.values())
    print(f"{requests} requests for {len(loads)} of {models} models, memory for {memory}, Zipf {SKEW}")
    print(f"hit ratio {len(hits) / requests:.3f}, {total} loads, {total - len(misses)} of them without need")
    print(f"hits   {percentiles(hits)}\nmisses {percentiles(misses)}", flush=True)
    return list(dict.fromkeys(reversed(wanted)))[: memory // 5]


def beside_single(client: Asker, resident: list[int], number: int) -> None:
    """Ask a single-model endpoint and resident models in turn."""
    single: list[float] = []
    many: list[float] = []
    for turn in range(number):
        single.append(client.ask("one")[0])
        many.append(client.ask("many", resident[turn % len(resident)])[0])
    ratio = statistics.median(many) / statistics.median(single)
    print(f"single {percentiles(single)}\nhit    {percentiles(many)}")
    print(f"p50 of a hit over single-model: {ratio:.2f}", flush=True)


# -- storms ------------------------------------------------------------------------------------------------------------


def storm(clary: Whole, client: Asker, resident: list[int], models: int, seconds: float) -> None:
    """Ask resident models in turn in the calm, in a storm, and while the server is made to load as much by hand."""
    calm: list[float] = []
    stormy: list[float] = []
    by_hand: list[float] = []
    cold = models - 1
    loads = loads_by_hand = 0
    used: dict[str, float] = {}
    for _ in range(TURNS):
        each = seconds / TURNS
        calm += _ask_residents(client, resident, each)
        before = _cpu_of(clary)
        with _other_process(_through_clary, clary, cold) as count:
            stormy += _ask_residents(client, resident, each)
        for role, now in _cpu_of(clary).items():
            used[role] = used.get(role, 0.0) + now - before.get(role, 0.0)
        cold -= count.value + STORMING
        loads += count.value
        with _other_process(_by_hand, clary, count.value / each) as count:
            by_hand += _ask_residents(client, resident, each)
        loads_by_hand += count.value
    rate = loads / seconds
    print(f"resident, calm             {percentiles(calm)}")
    print(f"resident, storm            {percentiles(stormy)}, {rate:.0f} cold loads a second")
    print(f"resident, loaded by hand   {percentiles(by_hand)}, {loads_by_hand / seconds:.0f} loads a second")
    p99 = percentile(stormy, 99)
    print(f"p99 of residents in a storm over calm: {p99 / percentile(calm, 99):.2f}")
    print(f"p99 of residents in a storm over loads by hand: {p99 / percentile(by_hand, 99):.2f}")
    shares = ", ".join(f"{role} {seconds_used / seconds:.2f}" for role, seconds_used in used.items())
    print(f"CPUs in use in the storm: {shares}", flush=True)


def _ask_residents(client: Asker, resident: list[int], seconds: float) -> list[float]:
    times = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        times.append(client.ask("many", random.choice(resident))[0])
        time.sleep(PAUSE)
    return times


@contextlib.contextmanager
def _other_process(work: Callable[..., None], *arguments: Any) -> Iterator[Any]:
    """Have something done until the block ends, in a process that stands for another machine: it gives way."""
    context = multiprocessing.get_context("fork")
    stop, count = context.Event(), context.Value("i", 0)
    process = context.Process(target=_giving_way, args=(work, stop, count, *arguments))
    process.start()
    try:
        yield count
    finally:
        stop.set()
        process.join()


def _giving_way(work: Callable[..., None], *arguments: Any) -> None:
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    work(*arguments)


def _through_clary(stop: Event, count: Any, clary: Whole, first: int) -> None:
    """Ask for models that are not loaded, downwards from the first."""
    cold = itertools.count(first, -1)

    def ask() -> None:
        client = Asker(clary)
        while not stop.is_set():
            client.ask("many", next(cold))
            with count.get_lock():
                count.value += 1

    threads = [threading.Thread(target=ask) for _ in range(STORMING)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _by_hand(stop: Event, count: Any, clary: Whole, rate: float) -> None:
    """Make the server unload what it had least use for, load and answer, at a rate, without Clary."""
    table = RouteTable.from_json(json.loads((clary.data / "run" / "routes.json").read_bytes()))
    hop = table.endpoints["many"].variants[0].targets[0].hops[0]
    url = str(next((clary.data / "models").glob("*/shown/*")))
    connection = http.client.HTTPConnection(hop.host, hop.port)

    def do(method: str, path: str, body: bytes = b"") -> int:
        connection.request(method, path, body)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    begun = time.monotonic()
    while not stop.is_set():
        time.sleep(max(0.0, begun + count.value / rate - time.monotonic()))
        name = f"by-hand-{count.value}"
        load = json.dumps({"model_name": name, "url": url}).encode()
        if do("POST", "/models", load) == 507:
            do("DELETE", f"/models/{name}")
            do("DELETE", f"/models/by-hand-{count.value - 1}")
            do("POST", "/models", load)
        do("POST", f"/models/{name}/invoke", BODY)
        count.value += 1
    for number in range(count.value):
        do("DELETE", f"/models/by-hand-{number}")


def _cpu_of(clary: Whole) -> dict[str, float]:
    """Give the seconds of CPU that each kind of process has used."""
    kinds = {"control": clary.children("control"), "gateway": clary.children("gateway"), "server": clary.models()}
    clock = os.sysconf("SC_CLK_TCK")
    return {
        kind: sum(sum(map(int, Path(f"/proc/{pid}/stat").read_text().split()[13:15])) for pid in pids) / clock
        for kind, pids in kinds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--memory", type=int, default=500)
    parser.add_argument("--requests", type=int, default=6_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each of: calm, storm, loads by hand")
    parser.add_argument("--compute", type=float, default=0.0, help="milliseconds that each answer takes a model")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clary-")))
        (folder / "server.py").write_text(SINGLE)
        catalogue = folder / "catalogue.toml"
        command = f"['{{python}}', '{folder}/server.py']"
        catalogue.write_text(f"[[image]]\nname = 'many'\npattern = 'many'\ncommand = {command}\n")
        clary = stack.enter_context(running("--catalogue", str(catalogue)))
        clary.client("s3").create_bucket(Bucket="models")
        place = clary.data / "s3" / "models" / "many"
        place.mkdir()
        weights = os.urandom(arguments.size)
        for number in range(arguments.models):
            (place / f"{number}.tar.gz").write_bytes(archive(number, weights))
        variables = {"MODELS": str(arguments.memory), "COMPUTE": str(arguments.compute / 1000)}
        deploy(clary, "many", Mode="MultiModel", ModelDataUrl="s3://models/many/", Environment=variables)
        deploy(clary, "one", Environment=variables)
        client = Asker(clary)
        resident = zipf(client, arguments.models, arguments.requests, arguments.memory)
        beside_single(client, resident, 2000)
        storm(clary, client, resident, arguments.models, arguments.seconds)


if __name__ == "__main__":
    main()
