"""The front's connections to the models: what is kept, and what becomes of a request over one that was closed."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clary.serving.messages import Response
from clary.serving.multimodel import lines
from clary.serving.multimodel.exchange import place, receive_request, send_response
from clary.serving.multimodel.keeper import socket_name
from clary.serving.multimodel.lines import Lines

Serve = Callable[[socket.socket], None]


def answer(connection: socket.socket) -> None:
    request = receive_request(connection)
    send_response(connection, Response(200, request.body))


class FakeModel:
    """A model's socket; each connection is served by what comes next in `turns`, or answered until it ends."""

    def __init__(self, folder: int, name: str) -> None:
        self.connections = 0
        self.taken = 0
        self.turns: list[Serve] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(place(folder, socket_name(name)))
        self._listener.listen()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            turn = self.turns.pop(0) if self.turns else self._forever
            threading.Thread(target=self._serve, args=(turn, connection), daemon=True).start()

    @staticmethod
    def _serve(turn: Serve, connection: socket.socket) -> None:
        with connection:
            turn(connection)

    def _forever(self, connection: socket.socket) -> None:
        try:
            while True:
                answer(connection)
                self.taken += 1
        except EOFError:
            return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield opened
    os.close(opened)


@pytest.fixture
def model(folder: int) -> Iterator[FakeModel]:
    made = FakeModel(folder, "m")
    yield made
    made.close()


@pytest.fixture
def kept(folder: int) -> Iterator[Lines]:
    made = Lines(folder, keep=True)
    yield made
    made.close()


def ask(asked: Lines, body: bytes = b"x", name: str = "m") -> bytes:
    return asked.ask(name, {}, body).body


def test_one_connection_is_enough_for_many_requests(kept: Lines, model: FakeModel) -> None:
    assert [ask(kept, b"%d" % n) for n in range(10)] == [b"%d" % n for n in range(10)]
    assert model.connections == 1


def test_where_a_model_has_several_processes_none_is_kept(folder: int, model: FakeModel) -> None:
    kept = Lines(folder, keep=False)
    assert [ask(kept) for _ in range(3)] == [b"x"] * 3
    assert model.connections == 3


def test_a_request_over_a_connection_that_was_closed_is_sent_again(kept: Lines, model: FakeModel) -> None:
    closed = threading.Event()

    def once(connection: socket.socket) -> None:
        answer(connection)
        connection.close()
        closed.set()

    model.turns = [once]
    ask(kept)
    assert closed.wait(10)
    assert ask(kept, b"again") == b"again"
    assert model.connections == 2


def test_one_that_was_closed_before_it_was_read_is_sent_again(kept: Lines, model: FakeModel) -> None:
    asked = threading.Event()

    def unread(connection: socket.socket) -> None:
        answer(connection)
        asked.wait(10)
        connection.recv(1, socket.MSG_PEEK)  # it is here, and nobody takes it

    model.turns = [unread]
    ask(kept)
    asked.set()
    assert ask(kept, b"again") == b"again"


def test_one_that_a_model_has_taken_is_never_sent_again(kept: Lines, model: FakeModel) -> None:
    def dies(connection: socket.socket) -> None:
        answer(connection)
        receive_request(connection)

    model.turns = [dies]
    ask(kept)
    with pytest.raises(EOFError):
        ask(kept, b"deadly")
    assert model.connections == 1
    assert ask(kept) == b"x"


def test_a_model_that_is_gone_is_not_there_whatever_was_kept(kept: Lines, model: FakeModel, tmp_path: Path) -> None:
    def once(connection: socket.socket) -> None:
        answer(connection)

    model.turns = [once]
    ask(kept)
    (tmp_path / socket_name("m")).unlink()
    with pytest.raises(FileNotFoundError):
        ask(kept)


def test_the_oldest_makes_room(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_KEPT", 2)
    kept = Lines(folder, keep=True)
    models = {name: FakeModel(folder, name) for name in ("a", "b", "c")}
    for name in ("a", "b", "c", "b", "c", "a"):
        ask(kept, name=name)
    assert {name: model.connections for name, model in models.items()} == {"a": 2, "b": 1, "c": 1}
    kept.close()
    for model in models.values():
        model.close()
