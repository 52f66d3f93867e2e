"""How the processes speak with each other: invocations as frames on a stream, everything else as JSON in packets."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

from ..messages import Headers, Request, Response

LARGEST_PACKET = 192 * 1024
"""Bytes; Linux takes a little more. The largest is a page of a hundred models with long names."""
LONGEST_MESSAGE = 16 * 1024
"""Characters of an error's text; of a longer one the middle is left out."""
KEEPER = "keeper"
"""The name of the keeper's socket among those of the models."""

_LENGTHS = struct.Struct(">IQ")


def send_request(connection: socket.socket, request: Request) -> None:
    _send(connection, dict(request.headers), request.body)


def receive_request(stream: BinaryIO) -> Request:
    """Read a request. Raises EOFError where the other side went away."""
    headers, body = _receive(stream)
    return Request(Headers(headers), body)


def send_response(connection: socket.socket, response: Response) -> None:
    _send(connection, {"status": response.status, "headers": dict(response.headers)}, response.body)


def receive_response(stream: BinaryIO) -> Response:
    """Read an answer. Raises EOFError where the model's process ended before it had given one."""
    head, body = _receive(stream)
    return Response(head["status"], body, head["headers"])


def _send(connection: socket.socket, head: Mapping[str, Any], body: bytes) -> None:
    text = json.dumps(head).encode()
    start = _LENGTHS.pack(len(text), len(body)) + text
    if len(body) < LARGEST_PACKET:  # one call, and no copy that would cost anything
        connection.sendall(start + body)
    else:
        connection.sendall(start)
        connection.sendall(body)


def _receive(stream: BinaryIO) -> tuple[Any, bytes]:
    head, body = _LENGTHS.unpack(_exactly(stream, _LENGTHS.size))
    return json.loads(_exactly(stream, head)), _exactly(stream, body)


def _exactly(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data


def packet_pair() -> tuple[socket.socket, socket.socket]:
    """Make two connected sockets that keep packets apart."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def packet(message: Mapping[str, Any]) -> bytes:
    # A lone surrogate, of bytes that were no text, becomes the escape that JSON has for it.
    return json.dumps(message, ensure_ascii=False).encode("utf-8", "backslashreplace")


def place(folder: int, name: str) -> str:
    """Give the address of a socket in a folder that is open; a path to there could be longer than addresses may be."""
    return f"/proc/self/fd/{folder}/{name}"
