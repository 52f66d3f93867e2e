from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from clary.controllers import health
from clary.controllers.health import HttpPing, Prober
from clary.core.containers import Container
from clary.core.deployment import Answer, Ping
from clary.testing import in_virtual_time, now


def container(port: int = 1, started_at: float = 0.0) -> Container:
    return Container("c", "ep", "v", "i-1", "d", "running", "127.0.0.1", port, started_at)


class Scripted:
    """Answers from a list, the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked_at: list[float] = []

    async def __call__(self, host: str, port: int) -> tuple[Answer, int]:
        self.asked_at.append(now())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer, {"ok": 200, "status": 503}.get(answer, 0)

    def pauses(self) -> list[float]:
        return [round(b - a, 2) for a, b in pairwise(self.asked_at)]


@in_virtual_time
async def test_it_asks_often_while_starting_and_calmly_once_ready() -> None:
    ask = Scripted(*["refused"] * 60, "ok")
    prober = Prober(lambda _: None, ask)
    prober.watch(container(), was_ready=False)
    await asyncio.sleep(25)
    pauses = ask.pauses()
    assert pauses[0] == 0.02
    assert pauses[:60] == sorted(pauses[:60])
    assert all(pause <= 0.02 + 0.05 * sum(pauses[:number]) + 0.011 for number, pause in enumerate(pauses[:60]))
    assert pauses[59] == 0.3
    assert set(pauses[60:]) == {5.0}
    await prober.close()


@in_virtual_time
async def test_one_that_was_ready_is_asked_calmly_even_when_it_does_not_answer() -> None:
    ask = Scripted("timeout")
    prober = Prober(lambda _: None, ask)
    prober.watch(container(), was_ready=True)
    await asyncio.sleep(11)
    assert ask.pauses() == [5.0, 5.0]
    await prober.close()


@in_virtual_time
async def test_only_news_is_told() -> None:
    told: list[str] = []
    answers: tuple[Answer, ...] = ("refused", "refused", "status", "ok", "ok", *["timeout"] * 6, "ok")
    prober = Prober(told.append, Scripted(*answers))
    prober.watch(container(), was_ready=False)
    await asyncio.sleep(100)
    assert len(told) == 6  # refused, status, ok, timeout, the third timeout in a row, ok
    assert prober.watch(container(), was_ready=False) == Ping("ok", 200, 0)
    await prober.close()


@in_virtual_time
async def test_failures_in_a_row_are_counted_and_a_restart_begins_anew() -> None:
    prober = Prober(lambda _: None, Scripted("timeout"))
    prober.watch(container(), was_ready=True)
    await asyncio.sleep(12)
    ping = prober.watch(container(), was_ready=True)
    assert ping == Ping("timeout", 0, 3)
    assert prober.watch(container(started_at=5.0), was_ready=False) is None
    await prober.close()
    assert len(asyncio.all_tasks()) == 1


@in_virtual_time
@pytest.mark.parametrize(("late", "told"), [(1, "status"), (2, "status"), (3, "timeout")])
async def test_an_answer_that_is_late_once_does_not_hide_what_others_say(late: int, told: Answer) -> None:
    prober = Prober(lambda _: None, ask := Scripted("status", *["timeout"] * late, "refused"))
    prober.watch(container(), was_ready=False)
    while len(ask.asked_at) < late + 1:  # noqa: ASYNC110 - time is virtual
        await asyncio.sleep(0.001)
    assert prober.watch(container(), was_ready=False) == Ping(told, 503 if told == "status" else 0, late + 1)
    await prober.close()


@in_virtual_time
async def test_forgetting_ends_the_pings() -> None:
    ask = Scripted("ok")
    prober = Prober(lambda _: None, ask)
    prober.watch(container(), was_ready=False)
    await asyncio.sleep(1)
    prober.forget("c")
    prober.forget("c")
    count = len(ask.asked_at)
    await asyncio.sleep(60)
    assert len(ask.asked_at) == count


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(answer: bytes | None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that says the same to everybody; None: it says nothing and waits."""
    requests: list[bytes] = []
    handlers: list[asyncio.Task[None] | None] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], requests
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.gather(*(task for task in handlers if task is not None))


DOCUMENTED = health.TIMEOUT


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "TIMEOUT", 60.0)


@asynccontextmanager
async def pinging() -> AsyncIterator[HttpPing]:
    ping = HttpPing()
    try:
        yield ping
    finally:
        await ping.close()


async def test_http_200_is_ok_whatever_the_body() -> None:
    async with pinging() as ping, serving(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\x00??") as (port, requests):
        assert await ping("127.0.0.1", port) == ("ok", 200)
        assert requests[0].startswith(b"GET /ping HTTP/1.1\r\n")


async def test_any_other_status_is_not() -> None:
    async with pinging() as ping:
        for status in (b"204 No Content", b"302 Found\r\nLocation: /x", b"404 Not Found", b"503 Busy"):
            async with serving(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n") as (port, requests):
                assert await ping("127.0.0.1", port) == ("status", int(status[:3]))
                assert len(requests) == 1


async def test_a_port_that_nobody_listens_on_is_refused() -> None:
    with socket.socket() as held:  # so that nobody else gets the port meanwhile
        held.bind(("127.0.0.1", 0))
        async with pinging() as ping:
            assert await ping("127.0.0.1", held.getsockname()[1]) == ("refused", 0)


async def test_a_connection_that_is_closed_without_an_answer_is_told_apart() -> None:
    async with pinging() as ping, serving(b"") as (port, _):
        assert await ping("127.0.0.1", port) == ("closed", 0)


async def test_what_is_not_http_is_not_an_answer() -> None:
    async with pinging() as ping, serving(b"SSH-2.0-OpenSSH\r\n\r\n") as (port, _):
        assert await ping("127.0.0.1", port) == ("closed", 0)


async def test_silence_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    assert DOCUMENTED == 2.0
    monkeypatch.setattr(health, "TIMEOUT", 0.05)
    async with serving(None) as (port, _), pinging() as ping:
        assert await ping("127.0.0.1", port) == ("timeout", 0)
