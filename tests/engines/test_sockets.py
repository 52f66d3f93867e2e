"""Where processes listen, as Linux shows it."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

from clary.engines.process import ProcessEngine
from clary.engines.sockets import PROC, Listening, listening, opened, places
from tests.engines.conftest import MakeSpec, ask


def test_what_listens_is_shown_and_what_is_connected_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        port = server.getsockname()[1]
        found = [each for each in listening() if each.port == port]
        assert [each.place for each in found] == [f"127.0.0.1:{port}"]
        assert found[0].inode in opened(PROC / "self")
        assert f"127.0.0.1:{port}" in places([os.getpid()])
        assert not any(place.endswith(f":{client.getsockname()[1]}") for place in places([os.getpid()]))


def test_addresses_of_version_6_are_read_as_words_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    words = "".join(f"{word:08X}" for word in struct.unpack("=4I", socket.inet_pton(socket.AF_INET6, "fe80::12:1")))
    (tmp_path / "net" / "tcp6").write_text(f"heading\n 0: {words}:1F90 {'0' * 32}:0000 0A 0:0 0:0 0 0 0 99 1\n")
    (found,) = listening(tmp_path)
    assert found == Listening("fe80::12:1", 8080, "99")
    assert found.place == "[fe80::12:1]:8080"


def test_who_is_gone_listens_nowhere() -> None:
    assert places([]) == ()
    assert places([2**22 + 1]) == ()


async def test_a_container_of_processes_shows_its_own_sockets_alone(engine: ProcessEngine, make_spec: MakeSpec) -> None:
    one, other = [await engine.launch(make_spec(), lambda _: None) for _ in range(2)]
    for container in (one, other):
        await ask(container.port, do="describe")
    assert await engine.listens(one.id) == (f"127.0.0.1:{one.port}",)
    assert await engine.listens(other.id) == (f"127.0.0.1:{other.port}",)
