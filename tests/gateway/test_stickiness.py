"""Stateful sessions: opened and closed by containers, kept at one instance, known to every gateway process."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import AsyncMock

import pytest

from clary.gateway import stickiness
from clary.gateway.stickiness import Stickiness
from tests.gateway.conftest import Container, Gateway, Script, answer, variant

LATER = "2100-01-01T00:00:00Z"


def keeps_sessions(name: bytes, numbers: Iterator[int], expires: str = LATER) -> Script:
    """Make a container that opens sessions, knows its own and closes them when the body is `close`."""
    mine: set[bytes] = set()

    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _, body = request.partition(b"\r\n\r\n")
        session = head.lower().partition(b"session-id: ")[2].partition(b"\r\n")[0]
        if session == b"new_session":
            session = b"s-%d" % next(numbers)
            mine.add(session)
            said = b"X-Amzn-SageMaker-New-Session-Id: %b; Expires=%b\r\n" % (session, expires.encode())
            writer.write(answer(name, headers=said))
        elif session and session not in mine:
            writer.write(answer(b"Bad request: session not found: " + session, b"400 Bad Request"))
        elif body == b"close":
            mine.discard(session)
            writer.write(answer(name, headers=b"X-Amzn-SageMaker-Closed-Session-Id: " + session + b"\r\n"))
        else:
            writer.write(answer(name))

    return script


async def two(gateway: Gateway, expires: str = LATER) -> list[Container]:
    numbers = itertools.count(1)
    containers = [await gateway.container(keeps_sessions(name, numbers, expires)) for name in (b"a", b"b")]
    gateway.route("demo", variant(*containers))
    return containers


async def opened(gateway: Gateway) -> tuple[str, bytes]:
    reply = await gateway.invoke("demo", X_Amzn_SageMaker_Session_Id="NEW_SESSION")
    assert reply.headers["x-amzn-sagemaker-new-session-id"].endswith(f"; Expires={LATER}")
    return reply.headers["x-amzn-sagemaker-new-session-id"].partition(";")[0], reply.body


async def test_a_session_stays_at_the_instance_that_opened_it(gateway: Gateway) -> None:
    await two(gateway)
    sessions = [await opened(gateway) for _ in range(6)]
    for session, instance in sessions * 5:
        reply = await gateway.invoke("demo", X_Amzn_SageMaker_Session_Id=session)
        assert (reply.status, reply.body) == (200, instance)


async def test_load_moves_a_session_nowhere(gateway: Gateway) -> None:
    containers = await two(gateway)
    session, instance = await opened(gateway)
    busy = containers[0 if instance == b"a" else 1]
    gateway.state.load[f"i-{busy.port}"] = 1000
    reply = await gateway.invoke("demo", X_Amzn_SageMaker_Session_Id=session)
    assert reply.body == instance


async def test_another_process_and_the_next_one_know_the_session(gateway: Gateway) -> None:
    await two(gateway)
    sessions = [await opened(gateway) for _ in range(8)]
    gateway.state.stickiness = Stickiness(gateway.state.control_socket.parent / "sessions")  # a process that knows none
    for session, instance in sessions:
        reply = await gateway.invoke("demo", X_Amzn_SageMaker_Session_Id=session)
        assert (reply.status, reply.body) == (200, instance)


async def test_a_closed_session_is_forgotten_and_the_container_says_that_it_is_unknown(gateway: Gateway) -> None:
    await two(gateway)
    session, _ = await opened(gateway)
    closed = await gateway.invoke("demo", b"close", X_Amzn_SageMaker_Session_Id=session)
    assert closed.headers["x-amzn-sagemaker-closed-session-id"].lower() == session
    assert list((gateway.state.control_socket.parent / "sessions").iterdir()) == []
    reply = await gateway.invoke("demo", X_Amzn_SageMaker_Session_Id=session)
    assert (reply.status, json.loads(reply.body)["OriginalStatusCode"]) == (424, 400)


async def test_an_unknown_session_goes_to_any_instance_which_answers_its_error(gateway: Gateway) -> None:
    await two(gateway)
    reply = await gateway.invoke("demo", X_Amzn_SageMaker_Session_Id="never-opened")
    assert json.loads(reply.body)["OriginalMessage"] == "Bad request: session not found: never-opened"


async def test_a_session_whose_instance_is_gone_goes_to_another_one(gateway: Gateway) -> None:
    a, b = await two(gateway)
    session, instance = await opened(gateway)
    gateway.route("demo", variant(b if instance == b"a" else a))
    reply = await gateway.invoke("demo", X_Amzn_SageMaker_Session_Id=session)
    assert json.loads(reply.body)["OriginalMessage"] == f"Bad request: session not found: {session}"


async def test_a_session_whose_instance_takes_no_connections_is_tried_there_once_more_and_nowhere_else(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    containers = await two(gateway)
    session, _ = await opened(gateway)
    asked = [len(container.requests) for container in containers]
    connect = AsyncMock(side_effect=ConnectionRefusedError)
    monkeypatch.setattr(gateway.state.pool, "connect", connect)
    gateway.state.pool.idle.clear()
    reply = await gateway.invoke("demo", X_Amzn_SageMaker_Session_Id=session)
    assert (reply.status, json.loads(reply.body)["OriginalStatusCode"]) == (424, 0)
    assert len({call.args for call in connect.await_args_list}) == 1
    assert connect.await_count == 2
    assert [len(container.requests) for container in containers] == asked


async def test_a_session_belongs_to_its_endpoint(gateway: Gateway) -> None:
    await two(gateway)
    session, _ = await opened(gateway)
    assert gateway.state.stickiness.instance("other", session, time.time()) is None


@pytest.mark.parametrize("session", ["-a", "a_b", "a b", "ä"])
async def test_an_id_that_the_model_does_not_allow_is_refused(gateway: Gateway, session: str) -> None:
    a, b = await two(gateway)
    reply = await gateway.invoke("demo", X_Amzn_SageMaker_Session_Id=session)
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (400, "ValidationError")
    assert a.requests == b.requests == []


def test_what_is_over_is_unknown_and_swept_up(tmp_path: Path) -> None:
    sessions = Stickiness(tmp_path / "sessions")
    sessions.opened("demo", "s-1; Expires=2026-01-01T00:00:00Z", "i-1", now=1767225590.0)
    assert sessions.instance("demo", "s-1", 1767225599.0) == "i-1"
    assert sessions.instance("demo", "s-1", 1767225600.0) is None
    assert Stickiness(tmp_path / "sessions").instance("demo", "s-1", 1767225600.0) is None
    sessions.sweep(1767225600.0)
    assert list((tmp_path / "sessions").iterdir()) == []


def test_an_expiry_that_cannot_be_read_or_is_far_away_is_a_day(tmp_path: Path) -> None:
    sessions = Stickiness(tmp_path / "sessions")
    for number, said in enumerate(("s-0", "s-1; Expires=soon", f"s-2; Expires={LATER}")):
        sessions.opened("demo", said, "i-1", now=0.0)
        assert sessions.instance("demo", f"s-{number}", stickiness.LIFE - 1) == "i-1"
        assert sessions.instance("demo", f"s-{number}", stickiness.LIFE) is None


def test_only_so_many_are_kept_and_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stickiness, "MOST", 3)
    sessions = Stickiness(tmp_path / "sessions")
    for number in range(5):
        sessions.opened("demo", f"s-{number}", "i-1", now=float(number))
    sessions.sweep(10.0)
    fresh = Stickiness(tmp_path / "sessions")
    assert [fresh.instance("demo", f"s-{number}", 10.0) for number in range(5)] == [None, None, "i-1", "i-1", "i-1"]


def test_a_folder_that_cannot_be_written_costs_only_the_other_processes(tmp_path: Path) -> None:
    (tmp_path / "sessions").write_text("in the way")
    sessions = Stickiness(tmp_path / "sessions")
    sessions.opened("demo", "s-1", "i-1", now=0.0)
    assert sessions.instance("demo", "s-1", 1.0) == "i-1"
    sessions.sweep(1.0)
    sessions.closed("demo", "s-1")
    assert sessions.instance("demo", "s-1", 1.0) is None


def test_a_file_that_gets_its_name_during_a_sweep_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = [tmp_path / "gone.new", tmp_path / "gone"]
    monkeypatch.setattr(Path, "glob", lambda *_: iter(gone))
    Stickiness(tmp_path).sweep(1.0)


def test_a_file_that_is_not_ours_is_no_session(tmp_path: Path) -> None:
    sessions = Stickiness(tmp_path / "sessions")
    sessions.opened("demo", "s-1", "i-1", now=0.0)
    [file] = (tmp_path / "sessions").iterdir()
    file.write_text("{")
    assert Stickiness(tmp_path / "sessions").instance("demo", "s-1", 1.0) is None
