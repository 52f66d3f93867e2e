"""How the processes speak with each other: invocations as frames on a stream, everything else as JSON in packets."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any, TypeVar

from ..messages import Headers, Request, Response

LARGEST_PACKET = 192 * 1024
"""Bytes; Linux takes a little more. The largest is a page of a hundred models with long names."""
LONGEST_MESSAGE = 16 * 1024
"""Characters of an error's text; of a longer one the middle is left out."""
KEEPER = "keeper"
"""The name of the keeper's socket among those of the models."""

_LENGTHS = struct.Struct(">IQ")
_AT_ONCE = 64 * 1024


def send_request(connection: socket.socket, fields: Mapping[str, str], body: bytes) -> None:
    _send(connection, fields, body)


def receive_request(connection: socket.socket) -> Request:
    """Read a request. Raises EOFError where the other side went away."""
    headers, body = _receive(connection)
    return Request(Headers(headers), body)


def send_response(connection: socket.socket, response: Response) -> None:
    _send(connection, [response.status, response.headers], response.body)


def receive_response(connection: socket.socket) -> Response:
    """Read an answer. Raises EOFError where the model's process ended before it had given one."""
    (status, headers), body = _receive(connection)
    return Response(status, body, headers)


def _send(connection: socket.socket, head: Any, body: bytes) -> None:
    text = json.dumps(head).encode()
    start = _LENGTHS.pack(len(text), len(body)) + text
    if len(body) < _AT_ONCE:  # one call, and no copy that would cost anything
        connection.sendall(start + body)
    else:
        connection.sendall(start)
        connection.sendall(body)


def _receive(connection: socket.socket) -> tuple[Any, bytes]:
    """Read a frame: nearly always with one call, which is why there is no buffered reader."""
    data = _some(connection.recv(_AT_ONCE))
    while len(data) < _LENGTHS.size:
        data += _some(connection.recv(_AT_ONCE))
    head, body = _LENGTHS.unpack_from(data)
    begin, end = _LENGTHS.size + head, _LENGTHS.size + head + body
    if len(data) < end:
        whole = bytearray(end)
        whole[: len(data)] = data
        rest = memoryview(whole)[len(data) :]
        while rest:
            rest = rest[_some(connection.recv_into(rest)) :]
        data = bytes(whole)
    return json.loads(data[_LENGTHS.size : begin]), data[begin:end]


_Received = TypeVar("_Received", int, bytes)


def _some(received: _Received) -> _Received:
    if not received:
        raise EOFError
    return received


def packet_pair() -> tuple[socket.socket, socket.socket]:
    """Make two connected sockets that keep packets apart."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def packet(message: Mapping[str, Any]) -> bytes:
    # A lone surrogate, of bytes that were no text, becomes the escape that JSON has for it.
    return json.dumps(message, ensure_ascii=False).encode("utf-8", "backslashreplace")


def place(folder: int, name: str) -> str:
    """Give the address of a socket in a folder that is open; a path to there could be longer than addresses may be."""
    return f"/proc/self/fd/{folder}/{name}"
