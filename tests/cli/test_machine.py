"""Probes of this machine, on a machine that is made up where that is possible."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clary.cli import machine
from clary.engines import cgroups


def test_a_port_in_use_is_not_free_and_its_owner_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not machine.can_bind("127.0.0.1", port)
        if sys.platform == "linux":
            assert (machine.listener(port) or "").endswith(f", pid {os.getpid()}")
    assert machine.can_bind("127.0.0.1", port)


def test_the_owner_of_a_port_is_who_holds_its_listening_socket(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 77 1\n"
        "   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  0  0 78 1\n"
    )
    for pid, name, link in ((812, "nginx", "socket:[77]"), (900, "curl", "socket:[78]")):
        (tmp_path / str(pid) / "fd").mkdir(parents=True)
        (tmp_path / str(pid) / "comm").write_text(name + "\n")
        (tmp_path / str(pid) / "fd" / "3").symlink_to(link)
    assert machine.listener(8080, tmp_path) == "nginx, pid 812"
    assert machine.listener(8081, tmp_path) is None


def test_free_space_is_that_of_where_the_folder_would_be(tmp_path: Path) -> None:
    assert machine.free_bytes(tmp_path / "not" / "yet") > 0
    assert machine.can_write(tmp_path / "not" / "yet")


def test_docker_is_asked_over_its_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/d.sock")
    assert machine.docker_version() is None
    with _docker_at(tmp_path / "d.sock"):
        assert machine.docker_version() == f"29.1 at unix://{tmp_path}/d.sock"


def test_docker_is_looked_for_where_the_engine_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr("aiodocker.docker._sock_search_paths", [])
    monkeypatch.setattr("clary.engines.docker.daemon._podmans", lambda: [tmp_path / "podman.sock"])
    with _docker_at(tmp_path / "podman.sock"):
        assert machine.docker_version() == f"29.1 at unix://{tmp_path}/podman.sock"


@contextmanager
def _docker_at(place: Path) -> Iterator[None]:
    """Answer one question there as Docker does."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        server.listen()
        thread = threading.Thread(target=_answer_once, args=(server,))
        thread.start()
        yield
        thread.join()


def _answer_once(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        assert connection.recv(4096).startswith(b"GET /version HTTP/1.1\r\n")
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"Version":"29.1"}')


def test_limits_are_asked_of_the_engine_and_leave_no_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def discover(name: str) -> cgroups.ControlGroups:
        base = tmp_path / name
        base.mkdir()
        return cgroups.ControlGroups([cgroups.Hierarchy(1, ("memory",), base)])

    monkeypatch.setattr(cgroups, "discover", discover)
    (note,) = machine.limit_notes()
    assert note.startswith("CPU of models is not limited")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("script", "expected"), [("pass", True), ("raise OSError", False)])
def test_mounting_is_tried_in_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch, script: str, expected: bool
) -> None:
    monkeypatch.setattr(machine, "_SHOW_MODEL", f"import os, sys; assert os.path.isdir(sys.argv[2]); {script}")
    assert machine.can_mount() is expected


@pytest.mark.parametrize(
    ("script", "words"), [("pass", None), ("raise PermissionError(1, 'No')", "(PermissionError: [Errno 1] No): ")]
)
def test_isolation_is_tried_in_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch, script: str, words: str | None
) -> None:
    monkeypatch.setattr(machine, "_ISOLATE", script)
    said = machine.isolation_obstacle()
    assert said is None if words is None else words in str(said)


def test_what_is_tried_changes_nothing_on_the_machine() -> None:
    """Neither on a machine that allows it nor on one that does not."""

    def mounted() -> list[str]:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line for line in lines if line.split()[4] in ("/opt", "/opt/ml/model", "/run")]

    before = mounted()
    machine.can_mount()
    machine.isolation_obstacle()
    assert mounted() == before


def test_memory_is_read_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  2048 kB\nMemFree: 1 kB\nMemAvailable: 1024 kB\n")
    assert machine.memory_bytes(tmp_path) == (2048 * 1024, 1024 * 1024)
    assert machine.memory_bytes(tmp_path / "none") == (0, 0)


def test_a_program_that_does_not_run_has_no_version() -> None:
    assert machine.version_of("/no/such/program") is None
    assert machine.version_of("false") is None
    assert machine.version_of("echo", "one\ntwo") == "one"
