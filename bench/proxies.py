"""The proxies that are compared, each in front of the same two backends, with core 0 to itself."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from clary import settings
from clary.core.routing import EndpointRoute, Hop, RouteTable, Target, VariantRoute

HERE = Path(__file__).parent
KEY, SECRET = "AKIABENCH", "secret"
NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; client_max_body_size 0; client_body_buffer_size 8m;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_max_temp_file_size 0;
  upstream backend {{ server 127.0.0.1:{backend}; keepalive 512; keepalive_requests 1000000000; }}
  upstream echo {{ server 127.0.0.1:{echo}; keepalive 16; }}
  server {{ listen 127.0.0.1:{port} backlog=2048;
    location / {{ proxy_pass http://backend; }}
    location /endpoints/echo/ {{ proxy_pass http://echo; }} }}
}}
"""
HAPROXY = """
global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
  option http-no-delay
frontend front
  bind 127.0.0.1:{port}
  use_backend echo if {{ path_beg /endpoints/echo/ }}
  default_backend backend
backend backend
  server one 127.0.0.1:{backend}
backend echo
  server one 127.0.0.1:{echo}
"""


@dataclass
class Proxy:
    """A process that listens."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    @property
    def signed(self) -> bool:
        return "SigV4" in self.name

    def cpu_seconds(self) -> float:
        """Give user and system time of the process and its children."""
        pid = self.process.pid
        pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        ticks = 0
        for each in pids:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pinned(core: int, *command: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["taskset", "-c", str(core), *command], env={**os.environ, **environment}, stderr=subprocess.DEVNULL
    )


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


def backends() -> tuple[list[subprocess.Popen[bytes]], int, int]:
    """Start both on core 1; give their processes and ports."""
    ports = free_port(), free_port()
    script = str(HERE / "backend.py")
    processes = [
        pinned(1, sys.executable, script, str(ports[0])),
        pinned(1, sys.executable, script, str(ports[1]), "echo"),
    ]
    for port in ports:
        wait_for(port)
    return processes, *ports


def start(proxies: list[Proxy], folder: Path, backend: int, echo: int, asgi_python: str) -> None:
    """Start every proxy that is here and say which are not; nginx is the first."""
    for name, template, command in (
        ("nginx", NGINX, ("nginx", "-c")),
        ("HAProxy", HAPROXY, ("haproxy", "-db", "-f")),
    ):
        if shutil.which(command[0]) is None:
            print(f"{name} is left out: not installed")
            continue
        port = free_port()
        file = folder / f"{command[0]}.conf"
        file.write_text(template.format(folder=folder, port=port, backend=backend, echo=echo))
        proxies.append(Proxy(name, port, pinned(0, *command, str(file))))
    table = RouteTable(1, {name: _route(name, port) for name, port in (("demo", backend), ("echo", echo))})
    for name, auth in (("Clary with SigV4", "sigv4"), ("Clary without", "off")):
        data = folder / auth
        (data / "run").mkdir(parents=True)
        (data / "run" / "routes.json").write_text(json.dumps(table.to_json()))
        port = free_port()
        flags = {"data": data, "port": port, "auth": auth, "access_key_id": KEY, "secret_access_key": SECRET}
        environment = settings.to_environment(settings.load(flags, {}))
        proxies.append(Proxy(name, port, pinned(0, sys.executable, "-m", "clary.server", "gateway", **environment)))
    needed = "import starlette, httpx, uvicorn, uvloop, httptools"
    if subprocess.run([asgi_python, "-c", needed], stderr=subprocess.DEVNULL).returncode == 0:
        ports = free_port(), backend, echo
        proxies.append(
            Proxy("starlette, httpx", ports[0], pinned(0, asgi_python, str(HERE / "asgi.py"), *map(str, ports)))
        )
    else:
        print("starlette with httpx is left out: name a Python that has both with --asgi-python")
    for each in proxies:
        wait_for(each.port)


def _route(name: str, port: int) -> EndpointRoute:
    target = Target(f"{name}-0", (Hop(f"{name}-0", "127.0.0.1", port),))
    return EndpointRoute(name, "InService", (VariantRoute("A", 1.0, (target,)),))
