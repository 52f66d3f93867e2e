"""Requests per second and added latency of the gateway, beside nginx and others in front of the same backend.

Each proxy has core 0 to itself, the backends and the load share core 1. Rounds alternate between the proxies, so that
a machine that changes its speed changes it for all; ratios are of one round each, and their median is shown. Needs
`nginx` and `wrk`; HAProxy and an ASGI framework's proxy are compared where they are installed.

    .venv/bin/python bench/gateway.py [--rounds 5] [--seconds 4] [--connections 1 32 256] [--asgi-python PATH]
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from proxies import KEY, SECRET, Proxy, backends, start

SIZES = {"1 KB": 1_000, "100 KB": 100_000, "1 MB": 1_000_000, "6 MB": 6_000_000}
VARIETY = 64
"""Different requests that are sent in turn, each with a body and a signature of its own."""
LUA = """
local plain, made, turn = {}, {}, 0
%s
init = function() for i, r in ipairs(plain) do made[i] = wrk.format("POST", nil, r[1], r[2]) end end
request = function() turn = turn %% #made + 1; return made[turn] end
%s
"""


@dataclass
class Measured:
    """What the rounds of one proxy gave. Times in milliseconds, CPU in microseconds per request."""

    rps: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def headers(proxy: Proxy, name: str, body: bytes) -> dict[str, str]:
    """Give the headers of an invocation as an SDK sends them."""
    url = f"http://127.0.0.1:{proxy.port}/endpoints/{name}/invocations"
    request = AWSRequest("POST", url, data=body, headers={"Content-Type": "application/json"})
    request.headers["Accept"] = "application/json"
    if proxy.signed:
        SigV4Auth(Credentials(KEY, SECRET), "sagemaker", "us-east-1").add_auth(request)
    request.headers["Host"] = f"127.0.0.1:{proxy.port}"
    request.headers["User-Agent"] = "Boto3/1.44.5 md/Botocore#1.44.5 ua/2.0 os/linux lang/python#3.11"
    return dict(request.headers.items())


def script(file: Path, proxy: Proxy, pause: int) -> None:
    """Write wrk's script. Signatures are good for five minutes, so it is made anew for each round."""
    lines = []
    for number in range(VARIETY):
        body = json.dumps({"instances": [f"{number:04}" + "x" * 996]})
        given = ", ".join(f'["{k}"] = "{v}"' for k, v in headers(proxy, "demo", body.encode()).items())
        lines.append(f"plain[{number + 1}] = {{{{{given}}}, [[{body}]]}}")
    delay = f"delay = function() return math.random(0, {2 * pause}) end" if pause else ""
    file.write_text(LUA % ("\n".join(lines), delay))


def load(proxy: Proxy, folder: Path, connections: int, seconds: int, pause: int, into: Measured) -> None:
    """Send requests for some seconds; each connection waits `pause` milliseconds in between, on average."""
    lua = folder / "load.lua"
    script(lua, proxy, pause)
    before = proxy.cpu_seconds()
    command = f"taskset -c 1 wrk -t1 -c{connections} -d{seconds} --latency -s {lua} http://127.0.0.1:{proxy.port}"
    command += "/endpoints/demo/invocations"
    output = subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output:
        raise SystemExit(f"{proxy.name} answered errors:\n{output}")
    requests = int(_find(r"(\d+) requests in", output)[0])
    into.cpu.append((proxy.cpu_seconds() - before) / max(requests, 1) * 1e6)
    into.rps.append(float(_find(r"Requests/sec:\s+([\d.]+)", output)[0]))
    for percentile, values in (("50%", into.p50), ("99%", into.p99)):
        number, unit = _find(rf"{percentile}\s+([\d.]+)(us|ms|s)", output)
        values.append(float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit])


def _find(pattern: str, text: str) -> tuple[str, ...]:
    found = re.search(pattern, text)
    if found is None:
        raise SystemExit(f"wrk said:\n{text}")
    return found.groups()


def throughput(proxies: list[Proxy], direct: Proxy, folder: Path, arguments: argparse.Namespace) -> None:
    """Print the table of all loads: as many requests as go on some connections, and half of what Clary can."""
    print(f"\n{arguments.rounds} rounds of {arguments.seconds} s, 1 KB of JSON, one core each; medians")
    print(f"{'load':>16}  {'':18} {'requests/s':>10} {'to nginx':>8} {'p50 ms':>8} {'p99 ms':>8} {'CPU us':>7}")
    able = 0.0
    for connections in arguments.connections:
        if connections == 1:
            added(proxies, rounds([direct, *proxies], folder, arguments, 1, 0))
            continue
        results = rounds(proxies, folder, arguments, connections, 0)
        show(f"{connections} connections", proxies, results)
        able = max([able, *(statistics.median(m.rps) for p, m in zip(proxies, results, strict=True) if p.signed)])
    pause = round(256_000 / (able / 2))
    calm = [proxy for proxy in proxies if "httpx" not in proxy.name]  # half of Clary's load is more than it can
    show(f"{able / 2:.0f}/s", calm, rounds(calm, folder, arguments, 256, pause))


def added(proxies: list[Proxy], results: list[Measured]) -> None:
    """Show one connection, and what each proxy adds to the backend's latency beside what nginx adds."""
    alone, *results = results
    show("1 connection", proxies, results)
    nginx = [one - other for one, other in zip(results[0].p50, alone.p50, strict=True)]
    for proxy, m in zip(proxies, results, strict=True):
        less = [one - other for one, other in zip(m.p50, alone.p50, strict=True)]
        ratio = statistics.median(a / b for a, b in zip(less, nginx, strict=True))
        print(
            f"{'':>16}  {proxy.name:18} adds {statistics.median(less) * 1000:.0f} us, {ratio:.2f} of nginx", flush=True
        )


def rounds(
    proxies: list[Proxy], folder: Path, arguments: argparse.Namespace, connections: int, pause: int
) -> list[Measured]:
    results = [Measured() for _ in proxies]
    for _ in range(arguments.rounds):
        for proxy, measured in zip(proxies, results, strict=True):
            load(proxy, folder, connections, arguments.seconds, pause, measured)
    return results


def show(title: str, proxies: list[Proxy], results: list[Measured]) -> None:
    """Print a row for each proxy; ratios are to the first one."""
    for proxy, m in zip(proxies, results, strict=True):
        rps, p50, p99, cpu = (statistics.median(values) for values in (m.rps, m.p50, m.p99, m.cpu))
        ratio = statistics.median(a / b if b else 0.0 for a, b in zip(m.rps, results[0].rps, strict=True))
        print(f"{title:>16}  {proxy.name:18} {rps:10.0f} {ratio:8.2f} {p50:8.2f} {p99:8.2f} {cpu:7.1f}", flush=True)


def bodies(proxies: list[Proxy], echo: int, times: int) -> None:
    """Print what each proxy adds to the time that a body takes there and back, and to a stream's first chunk."""
    direct = Proxy("the backend alone", echo, proxies[0].process)
    print(f"\nadded milliseconds over the backend alone, one connection, body there and back; medians of {times}")
    print(f"{'':18} " + " ".join(f"{size:>8}" for size in SIZES) + f" {'chunk of a stream':>18}")
    taken: dict[str, list[list[float]]] = {each.name: [] for each in (direct, *proxies)}
    for size in (*SIZES.values(), 0):
        for each in (direct, *proxies):
            taken[each.name].append([])
        for _ in range(times):
            for each in (direct, *proxies):
                taken[each.name][-1] += exchange(each, size)
    for name, columns in taken.items():
        base = [0.0 if name == direct.name else statistics.median(each) for each in taken[direct.name]]
        shown = [statistics.median(column) - less for column, less in zip(columns, base, strict=True)]
        print(f"{name:18} " + " ".join(f"{each:8.2f}" for each in shown[:-1]) + f" {shown[-1]:18.2f}", flush=True)


def exchange(proxy: Proxy, size: int) -> list[float]:
    """Send one body and give the milliseconds until it is back; for size 0, how old each chunk of a stream is."""
    body = b"x" * size or b"stream"
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port)
    connection.connect()
    began = time.perf_counter()
    connection.request("POST", "/endpoints/echo/invocations", body, headers(proxy, "echo", body))
    answer = connection.getresponse()
    if size:
        said = answer.read()
        if len(said) != size:
            raise SystemExit(f"{proxy.name} answered {answer.status} to {size} bytes: {said[:500]!r}")
        ages = [(time.perf_counter() - began) * 1000]
    else:
        ages = [(time.monotonic_ns() - int(stamp)) / 1e6 for stamp in chunks(answer)]
    connection.close()
    return ages


def chunks(answer: http.client.HTTPResponse) -> Iterator[str]:
    while piece := answer.read1(65536):
        yield from re.findall(r"<(\d+)>", piece.decode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--asgi-python", default=sys.executable, help="a Python that has starlette and httpx")
    arguments = parser.parse_args()
    missing = [name for name in ("nginx", "wrk", "taskset") if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"this benchmark needs {', '.join(missing)}; on Debian: apt-get install nginx-light wrk")
    with tempfile.TemporaryDirectory() as name:
        processes, backend, echo = backends()
        proxies: list[Proxy] = []
        try:
            start(proxies, Path(name), backend, echo, arguments.asgi_python)
            throughput(proxies, Proxy("the backend alone", backend, processes[0]), Path(name), arguments)
            bodies(proxies, echo, 4 * arguments.rounds)
        finally:
            processes += [proxy.process for proxy in proxies]
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                process.wait(20)


if __name__ == "__main__":
    main()
