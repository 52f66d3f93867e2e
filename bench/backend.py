"""The containers behind every proxy of the benchmark: as fast as Python can answer, so that the proxies are measured.

backend.py PORT          answers every request alike
backend.py PORT echo     answers with the request's body; `stream` gets three chunks, 100 ms apart
"""

from __future__ import annotations

import asyncio
import sys
import time

import httptools
import uvloop

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ANSWER = HEAD + b'Content-Length: 23\r\n\r\n{"predictions": [1, 2]}'


class Backend(asyncio.Protocol):
    """Answers every request alike."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.transport.write(ANSWER)


class Echo(Backend):
    """Gives back what it got, or the time in chunks."""

    def on_message_begin(self) -> None:
        self.pieces: list[bytes] = []

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self.pieces)
        if body == b"stream":
            self.transport.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            for number in range(3):
                asyncio.get_running_loop().call_later(number * 0.1, self.chunk)
            asyncio.get_running_loop().call_later(0.3, self.transport.write, b"0\r\n\r\n")
        else:
            self.transport.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body))
            self.transport.write(body)

    def chunk(self) -> None:
        text = b"<%d>" % time.monotonic_ns()
        self.transport.write(b"%x\r\n%b\r\n" % (len(text), text))


async def main() -> None:
    protocol = Echo if sys.argv[2:] == ["echo"] else Backend
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
