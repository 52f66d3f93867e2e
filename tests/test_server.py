"""The composition root's refusals: each names the setting and what to do."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from clary import server
from clary.errors import SettingsError
from clary.settings import load


def test_a_port_that_somebody_else_has_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as another Clary would
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"--port: 127.0.0.1:{port} is taken by another program"):
            server.up(load({"data": str(tmp_path), "port": str(port)}, {}), lambda _: None)


def test_a_data_folder_that_another_clary_has_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with (
        server._locked(tmp_path / "run" / "lock"),
        pytest.raises(SettingsError, match=f"--data: {tmp_path} is in use by another Clary"),
    ):
        server.up(load({"data": str(tmp_path), "port": "0"}, {}), lambda _: None)


def test_a_data_folder_whose_socket_would_have_too_long_a_name_is_refused(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    with pytest.raises(SettingsError, match=r"--data: .* is too long"):
        server.up(load({"data": str(long), "port": "0"}, {}), lambda _: None)


def test_an_unknown_engine_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--engine: must be one of .*process.*, not 'warp'"):
        server.up(load({"data": str(tmp_path), "port": "0", "engine": "warp"}, {}), lambda _: None)
