"""The way from the front to the keeper: one packet there, one back, on a connection of its own."""

from __future__ import annotations

import asyncio
import json
import socket
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .exchange import KEEPER, LARGEST_PACKET, packet, place
from .keeper import Answer, Keeper


def listen(folder: int) -> socket.socket:
    """Make the keeper's socket in an open folder."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(place(folder, KEEPER))
    listener.listen(socket.SOMAXCONN)
    listener.setblocking(False)
    return listener


def ask(folder: int, question: Mapping[str, Any]) -> Answer:
    """Put a question to the keeper and wait for its answer. Raises ConnectionError where there is no keeper."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(place(folder, KEEPER))
        connection.send(packet(question))
        data = connection.recv(LARGEST_PACKET)
    if not data:
        raise ConnectionResetError("the keeper has ended")
    answer = json.loads(data)
    return answer["status"], answer["body"]


class Desk:
    """Where the keeper answers."""

    def __init__(self, keeper: Keeper, listener: socket.socket) -> None:
        self._listener = listener
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: Mapping[str, Callable[[dict[str, Any]], Awaitable[Answer]]] = {
            "load": lambda asked: keeper.load(asked["name"], asked["url"]),
            "unload": lambda asked: keeper.unload(asked["name"]),
            "page": lambda asked: _at_once(keeper.page(asked["start"], asked["limit"])),
            "describe": lambda asked: _at_once(keeper.describe(asked["name"])),
        }

    async def open(self) -> None:
        """Take questions for ever, each in its own time."""
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self._listener)
            connection.setblocking(False)
            task = asyncio.ensure_future(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with connection:
            try:
                asked = json.loads(await loop.sock_recv(connection, LARGEST_PACKET))
                status, body = await self._answers[asked["do"]](asked)
            except Exception as error:
                traceback.print_exc()
                status, body = 500, {"code": 500, "type": "InternalServerException", "message": str(error)}
            try:
                await loop.sock_sendall(connection, packet({"status": status, "body": body}))
            except ConnectionError:
                return  # the front has ended; what it asked for is done all the same


async def _at_once(answer: Answer) -> Answer:
    return answer
