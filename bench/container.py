#!/usr/bin/env python3
"""A container for whole-Clary runs: nothing but the standard library, told by each request's first word what to do.

Packed as `serve` into the model's archive. `echo` gives the body back, `fail 503` answers that status, `slow 1.5` waits
first, `stream 20` says so many events in chunks, `cut` ends in the middle of its answer, `hang up` before it, `count`
keeps nothing of what it is sent and says how much that was, `large 1000000` answers with so many bytes; anything else
is answered at once, with the process id. The header of a session opens one; `bye` closes it.
"""

from __future__ import annotations

import asyncio
import json
import os
import uuid

PAUSE = 0.02
"""Seconds between the events of a stream."""


class Container(asyncio.Protocol):
    """One connection; its requests come one at a time."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.pieces: list[bytes] = []
        self.head = b""
        self.missing = self.size = 0

    def data_received(self, data: bytes) -> None:
        if not self.head:
            self.head, _, data = data.partition(b"\r\n\r\n")  # the gateway writes a head in one piece
            _, named, rest = self.head.lower().partition(b"content-length: ")
            self.missing = int(rest.partition(b"\r\n")[0]) if named else 0
        self.size += len(data)
        if not (self.pieces and self.pieces[0].startswith(b"count")):
            self.pieces.append(data)
        self.missing -= len(data)
        if self.missing <= 0:
            head, body, size = self.head, b"".join(self.pieces), self.size
            self.head, self.pieces, self.size = b"", [], 0
            self.answer(head, body, size)

    def answer(self, head: bytes, body: bytes, size: int) -> None:
        word, _, rest = body[:64].partition(b" ")
        if word == b"echo":
            self.say(200, body)
        elif word == b"fail":
            self.say(int(rest), b'{"error": "as told"}')
        elif word == b"slow":
            asyncio.get_running_loop().call_later(float(rest), self.say, 200, b"{}")
        elif word.startswith(b"count"):
            self.say(200, b"%d" % size)
        elif word == b"large":
            self.transport.write(f"HTTP/1.1 200 X\r\nContent-Length: {int(rest)}\r\n\r\n".encode())
            asyncio.get_running_loop().create_task(self.much(int(rest)))
        elif word == b"stream":
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
            self.transport.write(b"Transfer-Encoding: chunked\r\n\r\n")
            self.event(int(rest))
        elif word == b"cut":
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            self.transport.close()
        elif word == b"hang":
            self.transport.abort()
        else:
            self.say(200, json.dumps({"pid": os.getpid()}).encode(), self.session(head, word))

    def session(self, head: bytes, word: bytes) -> str:
        _, _, rest = head.partition(b"X-Amzn-SageMaker-Session-Id: ")
        named = rest.partition(b"\r\n")[0].decode()
        if named == "NEW_SESSION":
            return f"X-Amzn-SageMaker-New-Session-Id: {uuid.uuid4()}\r\n"
        return f"X-Amzn-SageMaker-Closed-Session-Id: {named}\r\n" if word == b"bye" else ""

    async def much(self, left: int) -> None:
        while left > 0 and not self.transport.is_closing():
            while self.transport.get_write_buffer_size() > 1_000_000:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)
            piece = b"y" * min(left, 250_000)
            self.transport.write(piece)
            left -= len(piece)

    def event(self, left: int) -> None:
        if self.transport.is_closing():
            return
        if not left:
            self.transport.write(b"0\r\n\r\n")
            return
        text = b"data: %d %b\n\n" % (left, b"x" * 1000)
        self.transport.write(b"%x\r\n%b\r\n" % (len(text), text))
        asyncio.get_running_loop().call_later(PAUSE, self.event, left - 1)

    def say(self, status: int, body: bytes, headers: str = "") -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self.transport.write(head.encode() + body)


async def main() -> None:
    port = int(os.environ["SAGEMAKER_BIND_TO_PORT"])
    server = await asyncio.get_running_loop().create_server(Container, "127.0.0.1", port, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
