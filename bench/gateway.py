"""Requests per second and added latency of the gateway, beside nginx in front of the same backend.

Each proxy has core 0 to itself, the backend and the load share core 1. Rounds alternate between the proxies, so that
a machine that changes its speed changes it for all; ratios are of medians in one run. Needs `nginx` and `wrk`.

    .venv/bin/python bench/gateway.py [--rounds 5] [--seconds 4]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from clary import settings

BODY = json.dumps({"instances": ["x" * 1000]}).encode()
PATH = "/endpoints/demo/invocations"
HERE = Path(__file__).parent
NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; client_max_body_size 0;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  upstream backend {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}
}}
"""


@dataclass
class Proxy:
    name: str
    port: int
    process: subprocess.Popen[bytes]
    lua: Path
    rps: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pinned(core: int, *command: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["taskset", "-c", str(core), *command], env={**os.environ, **environment}, stderr=subprocess.DEVNULL
    )


def sign(lua: Path, port: int, *, signed: bool) -> None:
    """Write wrk's script; the signature is good for five minutes, so it is made anew for each round."""
    request = AWSRequest(
        "POST", f"http://127.0.0.1:{port}{PATH}", data=BODY, headers={"Content-Type": "application/json"}
    )
    if signed:
        SigV4Auth(Credentials("AKIABENCH", "secret"), "sagemaker", "us-east-1").add_auth(request)
    request.headers["Host"] = f"127.0.0.1:{port}"
    lines = ['wrk.method = "POST"', f"wrk.body = [[{BODY.decode()}]]"]
    lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in request.headers.items()]
    lua.write_text("\n".join(lines))


def cpu_seconds(pid: int) -> float:
    """Give user and system time of a process and its children."""
    pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    ticks = 0
    for each in pids:
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(proxy: Proxy, connections: int, seconds: int) -> None:
    sign(proxy.lua, proxy.port, signed="SigV4" in proxy.name)
    before = cpu_seconds(proxy.process.pid)
    command = [
        "taskset",
        "-c",
        "1",
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}",
        "--latency",
        "-s",
        str(proxy.lua),
    ]
    output = subprocess.run(
        [*command, f"http://127.0.0.1:{proxy.port}{PATH}"], capture_output=True, text=True, check=True
    ).stdout
    if "Non-2xx" in output:
        raise SystemExit(f"{proxy.name} answered errors:\n{output}")
    requests = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
    proxy.cpu.append((cpu_seconds(proxy.process.pid) - before) / requests * 1e6)
    proxy.rps.append(float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]))  # type: ignore[index]
    for percentile, values in (("50%", proxy.p50), ("99%", proxy.p99)):
        number, unit = re.search(rf"{percentile}\s+([\d.]+)(us|ms|s)", output).groups()  # type: ignore[union-attr]
        values.append(float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit])


def start(folder: Path) -> tuple[list[subprocess.Popen[bytes]], list[Proxy]]:
    backend = free_port()
    processes = [pinned(1, sys.executable, str(HERE / "backend.py"), str(backend))]
    proxies = []
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, backend=backend))
    nginx = pinned(0, "nginx", "-c", str(folder / "nginx.conf"))
    proxies.append(Proxy("nginx", port, nginx, folder / "nginx.lua"))
    target = ["i-0", "127.0.0.1", backend, "primary"]
    routes = {"demo": {"status": "InService", "variants": [{"name": "A", "weight": 1.0, "targets": [target]}]}}
    for name, auth in (("Clary with SigV4", "sigv4"), ("Clary without", "off")):
        data = folder / auth
        (data / "run").mkdir(parents=True)
        (data / "run" / "routes.json").write_text(json.dumps({"revision": 1, "endpoints": routes}))
        port = free_port()
        flags = {"data": data, "port": port, "auth": auth}
        keys = {"access_key_id": "AKIABENCH", "secret_access_key": "secret"}
        environment = settings.to_environment(settings.load(flags | keys, {}))
        gateway = pinned(0, sys.executable, "-m", "clary.server", "gateway", **environment)
        proxies.append(Proxy(name, port, gateway, folder / f"{auth}.lua"))
    for each in proxies:
        wait_for(each.port)
    return processes + [proxy.process for proxy in proxies], proxies


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def table(proxies: list[Proxy], connections: int) -> None:
    nginx = proxies[0]
    print(f"\n{connections} connections, {len(BODY)} byte body, one core each; medians of {len(nginx.rps)} rounds")
    print(f"{'':18} {'requests/s':>11} {'to nginx':>9} {'p50 ms':>8} {'p99 ms':>8} {'CPU us/request':>15}")
    for proxy in proxies:
        rps, p50, p99, cpu = (statistics.median(v) for v in (proxy.rps, proxy.p50, proxy.p99, proxy.cpu))
        ratio = statistics.median(a / b for a, b in zip(proxy.rps, nginx.rps, strict=True))
        print(f"{proxy.name:18} {rps:11.0f} {ratio:9.2f} {p50:8.2f} {p99:8.2f} {cpu:15.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    arguments = parser.parse_args()
    missing = [name for name in ("nginx", "wrk", "taskset") if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"this benchmark needs {', '.join(missing)}; on Debian: apt-get install nginx-light wrk")
    with tempfile.TemporaryDirectory() as name:
        processes, proxies = start(Path(name))
        try:
            for connections in (1, 32):
                for proxy in proxies:
                    for values in (proxy.rps, proxy.p50, proxy.p99, proxy.cpu):
                        values.clear()
                for _ in range(arguments.rounds):
                    for proxy in proxies:
                        measure(proxy, connections, arguments.seconds)
                table(proxies, connections)
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                process.wait(20)


if __name__ == "__main__":
    main()
