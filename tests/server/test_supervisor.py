"""The supervisor's refusals: each names the setting and what to do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clary import datafolder
from clary.core.resources import Partition
from clary.errors import SettingsError
from clary.server import supervisor
from clary.settings import load, to_environment
from clary.supervision import HOPELESS


def test_a_port_that_somebody_else_has_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as another Clary would
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"--port: 127.0.0.1:{port} is taken by another program"):
            supervisor.up(load({"data": str(tmp_path), "port": str(port)}, {}), lambda _: None)


def test_a_data_folder_that_another_clary_has_is_named(tmp_path: Path) -> None:
    with (
        datafolder.held(tmp_path, tmp_path / "run", Partition("000000000000", "us-east-1")),
        pytest.raises(SettingsError, match=f"--data: {tmp_path} is in use by another Clary"),
    ):
        supervisor.up(load({"data": str(tmp_path), "port": "0"}, {}), lambda _: None)


@pytest.mark.parametrize(("setting", "value"), [("region", "eu-west-1"), ("account_id", "123456789012")])
def test_a_data_folder_of_another_account_or_region_is_refused(tmp_path: Path, setting: str, value: str) -> None:
    partition = {"region": "us-east-1", "account_id": "000000000000"}
    with datafolder.held(tmp_path, tmp_path / "run", Partition(**partition)):
        pass
    words = f"--{setting.replace('_', '-')}: .* keeps resources of {partition[setting]}"
    with pytest.raises(SettingsError, match=words):
        supervisor.up(load({"data": str(tmp_path), "port": "0", setting: value}, {}), lambda _: None)
    with datafolder.held(tmp_path, tmp_path / "run", Partition(**partition)):
        pass


def test_a_data_folder_whose_socket_would_have_too_long_a_name_is_refused(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    with pytest.raises(SettingsError, match=r"--data: .* is too long"):
        supervisor.up(load({"data": str(long), "port": "0"}, {}), lambda _: None)


def test_an_unknown_engine_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--engine: must be one of .*process.*, not 'warp'"):
        supervisor.up(load({"data": str(tmp_path), "port": "0", "engine": "warp"}, {}), lambda _: None)


def test_a_catalogue_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with pytest.raises(SettingsError, match="--catalogue: /nonexist cannot be read"):
        supervisor.up(load({"data": str(data), "port": "0", "catalogue": "/nonexist"}, {}), lambda _: None)
    assert not data.exists()


@pytest.mark.parametrize("place", ["/dev/null/x", "/dev/null", "/proc/nobody"])
def test_a_data_folder_that_cannot_be_made_is_named(place: str) -> None:
    with pytest.raises(SettingsError, match=f"--data: {place} cannot be used"):
        supervisor.up(load({"data": place, "port": "0"}, {}), lambda _: None)


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run" / "lock").mkdir(parents=True)  # not writable for root either
    with pytest.raises(SettingsError, match=f"--data: {tmp_path} cannot be used"):
        supervisor.up(load({"data": str(tmp_path), "port": "0"}, {}), lambda _: None)


def test_a_child_that_no_restart_helps_says_so_in_a_line_and_by_its_exit_code(tmp_path: Path) -> None:
    settings = load({"data": str(tmp_path), "catalogue": "/nonexist"}, {})
    environment = {**os.environ, **to_environment(settings)}
    command = [sys.executable, "-m", "clary.server", "control"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == HOPELESS
    assert "--catalogue: /nonexist cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


UP = """
import sys
from clary import datafolder
from clary.server import supervisor
from clary.settings import load
from clary.supervision import Program
supervisor.READY_WITHIN = 600.0
command = (sys.executable, "-c", sys.argv[2])
supervisor._programs = lambda settings, doors: [Program("control", command, {}, stop_timeout=600)]
sys.exit(supervisor.up(load({"data": sys.argv[1], "port": "0"}, {}), lambda _: None))
"""


def start(data: Path, control: str) -> subprocess.Popen[str]:
    """Start a supervisor whose control plane is a line of Python."""
    return subprocess.Popen([sys.executable, "-c", UP, str(data), control], stderr=subprocess.PIPE, text=True)


def test_it_ends_at_once_when_a_child_cannot_work(tmp_path: Path) -> None:
    with start(tmp_path, f"raise SystemExit({HOPELESS})") as up:
        _, log = up.communicate(timeout=300)  # half of what it would be waited for
    assert up.returncode == 1
    assert log.count("cannot work") == 1


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    deaf = f"import signal, time; signal.signal(15, signal.SIG_IGN); open({str(ready)!r}, 'w'); time.sleep(900)"
    with start(tmp_path, deaf) as up:
        try:
            while not ready.exists() and up.poll() is None:
                time.sleep(0.02)
            up.send_signal(signal.SIGTERM)
            up.send_signal(signal.SIGINT)  # another one: two of a kind that come together may count once
            assert up.wait(300) == 0
        finally:
            up.kill()
