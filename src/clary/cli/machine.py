"""What `clary doctor` finds out about this machine: one probe for each question, none of which leaves anything."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clary.engines.posix import PROC
from clary.engines.sockets import listening, opened
from clary.errors import Transient

PATIENCE = 20.0

_SHOW_MODEL = """
import pathlib, sys
from clary.engines.launcher import show
model, stage = map(pathlib.Path, sys.argv[1:])
show({"model": model}, stage)
"""
_ISOLATE = 'from clary.engines.launcher import isolate; isolate({"hidden": [], "kept": []})'


def uv_binary() -> str | None:
    """Give the path of uv: the one that came with Clary, else the one on the PATH."""
    try:
        from uv import find_uv_bin

        return os.fspath(find_uv_bin())
    except (ImportError, FileNotFoundError):
        return shutil.which("uv")


def version_of(binary: str, *arguments: str) -> str | None:
    """Give the first line that a program prints; None where it does not run."""
    try:
        done = subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.partition("\n")[0].strip()


def pythons(uv: str) -> list[str]:
    """Give the versions of Python that uv can build environments with, without downloading, the newest first."""
    command = [uv, "python", "list", "--only-installed", "--offline", "--output-format", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
        found = {tuple(entry["version_parts"].values()) for entry in json.loads(done.stdout)}
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return []
    return [".".join(map(str, version)) for version in sorted(found, reverse=True)]


def free_bytes(folder: Path) -> int:
    """Give the free space where the folder is, or would be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def can_write(folder: Path) -> bool:
    """Tell whether the folder can be written to, or made."""
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def can_bind(host: str, port: int) -> bool:
    """Tell whether a server could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def listener(port: int, proc: Path = PROC) -> str | None:
    """Say who listens on a TCP port: `nginx, pid 812`; None where that cannot be seen."""
    inodes = {each.inode for each in listening(proc) if each.port == port}
    for process in proc.glob("[0-9]*"):
        if not inodes.isdisjoint(opened(process)):
            with suppress(OSError):
                return f"{(process / 'comm').read_text().strip()}, pid {process.name}"
    return None


def has_short_way() -> bool:
    """Tell whether this installation has the compiled part of the gateway."""
    from clary.gateway.short import is_compiled

    return is_compiled()


def docker_version() -> str | None:
    """Ask the Docker daemon who it is; None where none answers."""
    answer = _ask_docker("/version")
    return f"{answer['Version']} at {_docker_url()}" if "Version" in answer else None


def docker_limits_memory() -> bool:
    """Tell whether the Docker daemon can; a daemon that does not answer says nothing against it."""
    return bool(_ask_docker("/info").get("MemoryLimit", True))


def docker_networks() -> frozenset[str] | None:
    """Give the names of Docker's networks; None where no daemon answers."""
    answer = _ask_docker("/networks")
    return frozenset(str(each["Name"]) for each in answer) if isinstance(answer, list) else None


def _docker_url() -> str:
    """Give where the engine would look for Docker, or where it usually is."""
    from clary.engines.docker.daemon import address

    try:
        return asyncio.run(address())
    except Transient:
        return "unix:///var/run/docker.sock"


def _ask_docker(path: str) -> Any:
    """Ask the daemon; an empty dictionary where none answers."""
    place = urlsplit(_docker_url())
    if place.scheme == "unix":
        connection: http.client.HTTPConnection = _UnixConnection(place.path)
    else:
        connection = http.client.HTTPConnection(place.hostname or "localhost", place.port or 2375, timeout=3)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    finally:
        connection.close()


def docker_is_shut() -> bool:
    """Tell whether there is a Docker whose socket this user may not use."""
    place = urlsplit(_docker_url())
    return place.scheme == "unix" and Path(place.path).exists() and not os.access(place.path, os.W_OK)


def can_connect(host: str) -> bool:
    """Tell whether a registry's `host` or `host:port` accepts connections from here."""
    place = urlsplit(f"https://{host}")
    try:
        socket.create_connection((place.hostname or "", place.port or 443), timeout=3).close()
    except OSError:
        return False
    return True


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=3)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def can_mount() -> bool:
    """Tell whether a model can be shown at /opt/ml/model: the engine's own way is tried, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        model, stage = Path(folder, "model"), Path(folder, "stage")
        model.mkdir()
        stage.mkdir()
        command = [sys.executable, "-c", _SHOW_MODEL, str(model), str(stage)]
        try:
            return subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False).returncode == 0
        except (OSError, subprocess.SubprocessError):
            return False


def isolation_obstacle() -> str | None:
    """Say what keeps models from being isolated; None: nothing. The engine's own way is tried as in `can_mount`."""
    from clary.engines import isolation

    try:
        done = subprocess.run([sys.executable, "-c", _ISOLATE], capture_output=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return isolation.obstacle(str(error))
    if done.returncode == 0:
        return None
    return isolation.obstacle(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])


def limit_notes() -> tuple[str, ...]:
    """Give what the engine could not limit here, in sentences. The groups that it takes to find out are removed."""
    from clary.engines import cgroups

    groups = cgroups.discover("clary-doctor")
    made = groups.create("probe", None)
    cgroups.remove([*made, *(group.parent for group in made)])
    return groups.notes


def memory_bytes(proc: Path = PROC) -> tuple[int, int]:
    """Give total and available memory; zeros where the system does not tell."""
    try:
        rows = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
        total, available = (int(rows[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return 0, 0
    return total, available


def cpus() -> int:
    """Give the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def newest_source() -> float:
    """Give the time at which the youngest file of Clary was installed: the clock cannot be right and before that."""
    return max(path.stat().st_mtime for path in Path(__file__).parents[1].rglob("*.py"))
