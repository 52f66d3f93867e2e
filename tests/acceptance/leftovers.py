"""What a Clary leaves over, in a world in which there is nothing but it: a network and pid namespace of its own."""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.acceptance.conftest import Clary
from tests.dockerd import Daemon

DOCKERS = {"bridge", "host", "none"}
"""Networks that every Docker has."""
_KEPT = {
    "lock", "routes.json", "keys.json", "containers.port",
    "docker/identity",
    "docker/logs/*", "logs/*",  # by which the logs of the last 1000 containers are found
    "exits/*",  # for an hour: how processes ended that somebody may still ask for
    "serving/*",
}  # fmt: skip
"""Files below run/ that outlive every container."""
_RUNNING = {"clary.json", "control.sock"}


def left(clary: Clary, daemon: Daemon | None) -> list[str]:
    """Name everything that is there and should not be, now that there is no endpoint. A Clary that ended has less."""
    runs = clary.process.poll() is None
    return [
        *_processes(clary, daemon),
        *(f"port {port}" for port in sorted(_listening() - (_own_ports(clary) if runs else set()))),
        *_files(clary.data, runs),
        *_groups(clary.data),
        *(_of_docker(daemon, runs) if daemon is not None else ()),
    ]


def _of_docker(daemon: Daemon, runs: bool) -> Iterator[str]:
    def listed(*words: str) -> list[str]:
        done = daemon.docker(*words)
        return done.stdout.decode().splitlines() if done.returncode == 0 else [done.stderr.decode().strip()]

    yield from (f"container {each}" for each in listed("ps", "-a", "--format", "{{.Names}} ({{.Status}})"))
    yield from (f"volume {each}" for each in listed("volume", "ls", "-q"))
    networks = [name for name in listed("network", "ls", "--format", "{{.Name}}") if name not in DOCKERS]
    # While Clary runs, a data folder keeps its bridge, and the machine the one for credentials: once each.
    kept = {name for name in networks if name == "clary-link" or name.startswith("clary-")} if runs else set()
    yield from (f"network {name}" for name in networks if name not in kept or networks.count(name) > 1)


def _processes(clary: Clary, daemon: Daemon | None) -> Iterator[str]:
    ours = {1, os.getpid(), clary.process.pid}
    if daemon is not None:
        ours |= {daemon.process.pid, daemon.containerd.pid}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        is_child = int(stat[1]) == clary.process.pid and "clary.server" in words
        # A shim without a container is Docker's own, as a dockerd that was killed leaves it; it has nothing of ours.
        is_empty = "containerd-shim" in words and not _children(folder)
        if int(folder.name) not in ours and not is_child and not is_empty:
            yield f"process {folder.name} {stat[0]} {words[:150]}"


def _own_ports(clary: Clary) -> set[int]:
    """Give where the gateways listen: for clients, and for containers that ask for their role's credentials."""
    file = clary.data / "run" / "containers.port"
    return {clary.port, *([int(file.read_text())] if file.exists() else ())}


def _children(process: Path) -> list[str]:
    return [child for file in process.glob("task/*/children") for child in file.read_text().split()]


def _listening() -> set[int]:
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A":
                found.add(int(local.rpartition(":")[2], 16))
    return found


def _files(data: Path, runs: bool) -> Iterator[str]:
    kept = _KEPT | (_RUNNING if runs else set())
    run = data / "run"
    for folder, folders, files in os.walk(run):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in (*files, *links):
            path = Path(folder, name).relative_to(run)
            if not any(fnmatch.fnmatch(str(path), pattern) for pattern in kept) or name.startswith("."):
                yield f"file run/{path}"
    yield from (f"folder run/private/{each.name}" for each in (run / "private").glob("*"))
    yield from (f"file artifacts/incoming/{each.name}" for each in (data / "artifacts" / "incoming").glob("*"))
    trees = [each for each in (data / "artifacts").glob("*") if each.name != "incoming"]
    if len(trees) > 1:  # when each fills the cache, the last that was used is left
        yield f"{len(trees)} artifacts in a cache for one"


def _groups(data: Path) -> Iterator[str]:
    name = f"clary-{hashlib.sha256(os.fsencode(data)).hexdigest()[:8]}"
    for folder, folders, _ in os.walk("/sys/fs/cgroup"):
        if name in folders:
            yield f"control group {folder}/{name}: {[each.name for each in Path(folder, name).glob('*/')]}"
