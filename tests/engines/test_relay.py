"""Relays into a real network namespace: what flows, what is refused, who outlives whom."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clary.engines import posix, relay, staging
from clary.engines.launcher import Plan
from clary.engines.relay import Relay, Relays
from clary.errors import LaunchFailure, Transient

PORT = 8080

SERVER = """
import asyncio, os, select, socket, struct, sys

async def serve(reader, writer):
    command, _, argument = (await reader.readline()).decode().partition(" ")
    match command.strip():
        case "echo":
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write(b"that was all")
        case "flood":
            try:
                for _ in range(int(argument)):
                    writer.write(bytes(1024 * 1024))
                    await writer.drain()
            except ConnectionError:
                os._exit(7)
        case "listen":
            try:
                await reader.read()
            except ConnectionError:
                os._exit(7)
        case "deaf":
            writer.transport.pause_reading()
            poll = select.poll()
            poll.register(writer.get_extra_info("socket"), 0)
            await asyncio.to_thread(poll.poll)
            os._exit(7)
        case "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            return
        case "die":
            sock = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
            sock.setblocking(True)
            sock.sendall(bytes(int(argument)))
            os._exit(0)
    writer.close()

async def main():
    await asyncio.sleep(float(sys.argv[2]))
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    await server.serve_forever()

import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
asyncio.run(main())
"""


@dataclass
class Target:
    """A process with a network of its own, and the relays that lead there."""

    pid: int
    relays: Relays
    folder: Path

    def __post_init__(self) -> None:
        self.birth = posix.birth(self.pid)

    async def relay(self, port: int = 0) -> Relay:
        return await self.relays.ensure("c-1", self.pid, PORT, port)

    async def connect(self, made: Relay) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect as soon as something listens inside."""
        for _ in range(30_000):
            try:
                return await asyncio.open_connection("127.0.0.1", made.port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
        raise AssertionError("the target never listened")

    async def ask(self, made: Relay, command: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self.connect(made)
        writer.write(f"{command}\n".encode())
        return reader, writer


async def isolated(folder: Path, delay: float = 0.0) -> int:
    """Start the server in a network namespace of its own."""
    plan: Plan = {
        "command": [sys.executable, "-c", SERVER, str(PORT), str(delay)],
        "environment": {},
        "directory": "/",
        "trees": {},
        "stage": "",
        "groups": [],
        "isolation": {"hidden": [], "kept": []},
    }
    try:
        return await staging.start(plan, folder / "log", lambda _: None)
    except LaunchFailure as failure:
        pytest.skip(f"no network namespaces here: {failure.message}")


def kill(pid: int) -> None:
    posix.send(signal.SIGKILL, {pid})
    posix.reap(pid)


async def gone(made: Relay) -> None:
    async with asyncio.timeout(300):
        while made.alive:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    made = Target(await isolated(tmp_path), Relays(tmp_path / "relays"), tmp_path / "relays")
    yield made
    kill(made.pid)
    await made.relays.end("c-1")
    await made.relays.close()


async def test_bytes_flow_both_ways_and_each_way_ends_by_itself(target: Target) -> None:
    reader, writer = await target.ask(await target.relay(), "echo")
    body = os.urandom(5_000_000)

    async def send() -> None:
        writer.write(body)
        await writer.drain()
        writer.write_eof()

    sending = asyncio.ensure_future(send())
    received = await reader.read()
    await sending
    assert received == body + b"that was all"
    writer.close()


async def test_nothing_is_kept_back(target: Target) -> None:
    reader, writer = await target.ask(await target.relay(), "echo")
    for piece in (b"a", b"bc", b"d" * 1000):
        writer.write(piece)
        assert await asyncio.wait_for(reader.readexactly(len(piece)), 60) == piece
    writer.close()


async def test_a_slow_reader_slows_the_other_side_and_loses_nothing(target: Target) -> None:
    made = await target.relay()
    reader, writer = await target.ask(made, "flood 64")
    await asyncio.sleep(0.3)
    resident = int(Path(f"/proc/{made.pid}/statm").read_text().split()[1]) * resource.getpagesize()
    assert resident < 40 * 1024 * 1024  # it holds one chunk of the 64 MiB, not what the reader has not taken
    assert len(await reader.read(-1)) == 64 * 1024 * 1024
    writer.close()


async def test_a_reset_is_passed_on(target: Target) -> None:
    reader, writer = await target.ask(await target.relay(), "reset")
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 60)
    writer.close()


@pytest.mark.parametrize("command", ["listen", "flood 64", "deaf"])
async def test_a_client_that_resets_is_gone_inside_too(target: Target, command: str) -> None:
    """Whether nothing is under way, or the client does not take what comes, or the target what it is sent."""
    _, writer = await target.ask(await target.relay(), command)
    if command == "deaf":
        writer.write(bytes(64 * 1024 * 1024))
    await asyncio.sleep(0.3)  # until what can be full is full
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    async with asyncio.timeout(300):
        while (status := posix.reap(target.pid)) is None:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
    assert status == 7 << 8


async def test_connections_are_refused_until_the_target_listens(tmp_path: Path) -> None:
    pid = await isolated(tmp_path, delay=1000)
    relays = Relays(tmp_path / "relays")
    made = await relays.ensure("c-1", pid, PORT)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", made.port)
    kill(pid)
    await gone(made)  # also while it waits
    await relays.end("c-1")
    await relays.close()


async def test_a_thousand_connections_at_once(target: Target) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        made = await target.relay()
        pairs = [await target.ask(made, "echo") for _ in range(1000)]
        for number, (_, writer) in enumerate(pairs):
            writer.write(b"%4d" % number)
        for number, (reader, _) in enumerate(pairs):
            assert await asyncio.wait_for(reader.readexactly(4), 60) == b"%4d" % number
            pairs[number][1].close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_the_last_words_of_a_target_arrive(target: Target) -> None:
    made = await target.relay()
    reader, writer = await target.ask(made, "die 500000")
    assert len(await asyncio.wait_for(reader.read(), 60)) == 500_000
    writer.close()
    await gone(made)


async def test_the_signals_that_ask_a_container_to_end_do_not_end_its_relay(target: Target) -> None:
    made = await target.relay()
    reader, writer = await target.ask(made, "echo")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(made.pid, number)
    writer.write(b"still")
    assert await asyncio.wait_for(reader.readexactly(5), 60) == b"still"
    writer.close()


async def test_asking_twice_gives_the_same_relay_also_to_the_next_engine(target: Target) -> None:
    made = await target.relay()
    assert await target.relay() == made
    await target.relays.close()
    heir = Relays(target.folder)
    assert await heir.ensure("c-1", target.pid, PORT) == made
    await heir.end("c-1")
    assert not made.alive
    assert not list(target.folder.iterdir())
    await heir.close()


async def test_what_leads_to_nobodys_container_is_ended(target: Target) -> None:
    made = await target.relay()
    await target.relays.close()
    heir = Relays(target.folder)
    await heir.retain({"c-1"})
    assert made.alive
    await heir.retain({"c-2"})
    assert not made.alive
    assert not list(target.folder.iterdir())
    await heir.close()


async def test_a_killed_relay_comes_back_on_its_port(target: Target) -> None:
    made = await target.relay()
    _, earlier = await target.connect(made)
    earlier.close()
    os.kill(made.pid, signal.SIGKILL)
    await gone(made)
    reader, writer = await target.ask(made, "echo")
    writer.write(b"back")
    assert await asyncio.wait_for(reader.readexactly(4), 60) == b"back"
    writer.close()
    again = await target.relay()
    assert (again.port, again.pid != made.pid) == (made.port, True)


async def test_what_connects_while_a_relay_is_replaced_waits(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await target.relay()
    _, earlier = await target.connect(made)
    earlier.close()
    spawn, waiting = posix.spawn_forwarder, socket.socket()

    def spawned(descriptors: tuple[int, int, int], inside_port: int) -> int:
        waiting.connect(("127.0.0.1", made.port))  # there is no relay yet
        return spawn(descriptors, inside_port)

    monkeypatch.setattr(posix, "spawn_forwarder", spawned)
    os.kill(made.pid, signal.SIGKILL)
    await gone(made)
    assert (await target.relay()).port == made.port
    reader, writer = await asyncio.open_connection(sock=waiting)
    writer.write(b"echo\nback")
    assert await asyncio.wait_for(reader.readexactly(4), 60) == b"back"
    writer.close()


async def test_a_container_that_was_restarted_keeps_the_port(target: Target, tmp_path: Path) -> None:
    made = await target.relay()
    successor = await isolated(tmp_path)
    again = await target.relays.ensure("c-1", successor, PORT)
    assert not made.alive
    assert again.port == made.port
    kill(successor)
    await gone(again)


async def test_a_relay_that_nobody_wrote_down_goes(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    born: list[int] = []
    spawn = posix.spawn_forwarder

    def spawned(descriptors: tuple[int, int, int], inside_port: int) -> int:
        born.append(spawn(descriptors, inside_port))
        return born[0]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(posix, "spawn_forwarder", spawned)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        await target.relay()
    async with asyncio.timeout(300):
        while posix.reap(born[0]) is None:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)


async def test_a_taken_port_may_be_free_later(target: Target) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(Transient, match="Address already in use"):
        await target.relay(other.getsockname()[1])


async def test_a_target_that_is_gone_is_not_entered(tmp_path: Path) -> None:
    relays = Relays(tmp_path / "relays")
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    with pytest.raises(Transient, match="ended before a relay could reach it"):
        await relays.ensure("c-1", process.pid, PORT)
    await relays.end("c-1")
    await relays.close()


@pytest.mark.parametrize(
    ("said", "words"), [("1 Operation not permitted", "run Clary as root or with CAP_SYS_ADMIN"), ("22 Invalid", "Inv")]
)
def test_a_machine_that_does_not_let_us_in_is_explained(said: str, words: str) -> None:
    failure = relay._refusal(said, 1)
    assert isinstance(failure, LaunchFailure)
    assert failure.step == "create"
    assert words in failure.message
