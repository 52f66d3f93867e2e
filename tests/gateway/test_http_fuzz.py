"""What comes off a wire that anybody may write to: read as it was meant or refused, however it is cut, and no third."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.gateway.connection import MAX_HEADERS, MAX_REPEATED, Connection
from clary.gateway.head import Head
from clary.gateway.outbox import Outbox
from tests.gateway.conftest import Gateway, answer, says

HOST = b"Host: x\r\n"
POST = b"POST /p HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reading = True
        self.ended = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended
        self.written += data

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.ended = True

    abort = close


@dataclass
class Echo:
    """An exchange that notes its request and answers as soon as that is whole."""

    head: Head
    client: Connection
    body: bytes = b""
    begun: bool = False

    def begin(self) -> None:
        self.begun = True
        self._answer()

    def feed(self, data: bytes) -> None:
        self.body += data

    def complete(self) -> None:
        self._answer()

    def _answer(self) -> None:
        if self.begun and self.head.complete:
            self.client.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            self.client.finish()

    def lost(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


@dataclass
class Heard:
    """What came of some bytes."""

    exchanges: list[Echo]
    written: bytes
    ended: bool

    @property
    def requests(self) -> list[tuple[bytes, bytes, dict[bytes, bytes], bytes]]:
        """Those that came whole."""
        done = [each for each in self.exchanges if each.head.complete]
        return [(each.head.method, each.head.target, each.head.headers, each.body) for each in done]

    @property
    def statuses(self) -> list[int]:
        """Of all answers; their heads begin after an empty line or at once."""
        return [int(line.split()[1]) for line in self.written.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


def hear(*pieces: bytes) -> Heard:
    """Feed a connection pieces, each as one read."""

    async def feed() -> Heard:
        outbox = Outbox(asyncio.get_running_loop())
        exchanges: list[Echo] = []

        def open_exchange(head: Head, client: Connection) -> Echo:
            exchanges.append(Echo(head, client))
            return exchanges[-1]

        connection, wire = Connection(open_exchange, outbox), Wire()
        connection.connection_made(wire)
        for piece in pieces:
            connection.data_received(piece)
            outbox.flush()
        return Heard(exchanges, wire.written, wire.ended)

    return asyncio.run(feed())


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """Cut data into pieces of these sizes, and what is left."""
    for size in sizes:
        piece, data = data[:size], data[size:]
        if piece:
            yield piece
    if data:
        yield data


# -- what two servers on the way could read differently is refused ---------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    {
        "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
        "a length with a sign": POST + b"Content-Length: +5\r\n\r\nhello",
        "a length with a space": POST + b"Content-Length: 5 0\r\n\r\nhello",
        "a hexadecimal length": POST + b"Content-Length: 0x5\r\n\r\nhello",
        "an empty length": POST + b"Content-Length: \r\n\r\n",
        "a length beyond 64 bits": POST + b"Content-Length: 18446744073709551617\r\n\r\n1",
        "another coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "chunks, then another coding": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "another coding, then chunks": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "chunks twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "a vertical tab before chunks": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "chunks in HTTP/1.0": b"POST /p HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "chunk size overflow": CHUNKED + b"fffffffffffffffff\r\na",
        "negative chunk size": CHUNKED + b"-1\r\na",
        "chunk size with 0x": CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
        "chunk size and space": CHUNKED + b"1 \r\na\r\n0\r\n\r\n",
        "chunk lines that end in LF": CHUNKED + b"1\na\n0\n\n",
        "LF in a chunk extension": CHUNKED + b"1;a\nb\r\na\r\n0\r\n\r\n",
        "a chunk longer than it says": CHUNKED + b"1\r\nab\r\n0\r\n\r\n",
        "folded header": POST + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
        "folded first header": b"POST /p HTTP/1.1\r\n Host: x\r\nHost: x\r\n\r\n",
        "space before the colon": POST + b"Content-Length : 0\r\n\r\n",
        "tab in a name": POST + b"Content\tLength: 0\r\n\r\n",
        "a nameless header": POST + b": 0\r\n\r\n",
        "lines that end in LF": b"POST /p HTTP/1.1\nHost: x\nContent-Length: 0\n\n",
        "one line that ends in LF": POST + b"A: b\nContent-Length: 0\r\n\r\n",
        "CR in a value": POST + b"A: b\rContent-Length: 0\r\n\r\n",
        "NUL in a value": POST + b"A: b\0c\r\n\r\n",
        "NUL in a name": POST + b"A\0: b\r\n\r\n",
        "NUL in the target": b"GET /p\0 HTTP/1.1\r\nHost: x\r\n\r\n",
        "space in the target": b"GET /p q HTTP/1.1\r\nHost: x\r\n\r\n",
        "two hosts": b"GET /p HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "no host": b"GET /p HTTP/1.1\r\n\r\n",
        "an unknown method": b"GRAB /p HTTP/1.1\r\nHost: x\r\n\r\n",
        "HTTP/2.0 in words": b"GET /p HTTP/2.0\r\nHost: x\r\n\r\n",
        "HTTP/0.9 in words": b"GET /p HTTP/0.9\r\nHost: x\r\n\r\n",
        "HTTP/1.2": b"GET /p HTTP/1.2\r\nHost: x\r\n\r\n",
        "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    }.items(),
    ids=lambda case: case[0],
)
@pytest.mark.parametrize("whole", [True, False], ids=["at once", "byte by byte"])
def test_what_is_ambiguous_is_refused_and_nothing_after_it_is_heard(raw: tuple[str, bytes], whole: bool) -> None:
    data = raw[1] + SMUGGLED
    heard = hear(data) if whole else hear(*(data[i : i + 1] for i in range(len(data))))
    assert heard.statuses[-1:] == [400] and heard.ended
    assert heard.written.count(b"Connection: close") == 1
    assert b"/smuggled" not in {target for _, target, _, _ in heard.requests}


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pieces",
    [
        [POST + b"X: " + b"y" * MAX_HEADERS + b"\r\n\r\n"],
        [POST, *(b"X-%d: %b\r\n" % (i, b"y" * 900) for i in range(100))],
        [POST + b"X: ", *[b"y" * 4096] * 20],  # a line that never ends
        [b"GET /" + b"y" * MAX_HEADERS + b" HTTP/1.1\r\n" + HOST + b"\r\n"],
        [POST + b"X: y\r\n" * (MAX_REPEATED + 2) + b"\r\n"],
    ],
    ids=["one value", "many headers", "an endless line", "the target", "one name again and again"],
)
def test_a_head_has_limits(pieces: list[bytes]) -> None:
    heard = hear(*pieces)
    assert (heard.statuses, heard.ended, heard.requests) == ([431], True, [])


def test_a_head_up_to_the_limit_is_heard_after_any_body() -> None:
    big = POST + b"Content-Length: 200000\r\n\r\n" + b"z" * 200_000
    head = POST + b"X: " + b"y" * (MAX_HEADERS - 100) + b"\r\n\r\n"
    data = big + head
    assert hear(data).statuses == [200, 200]
    assert hear(data[:1000], data[1000:-50], data[-50:]).statuses == [200, 200]


@pytest.mark.parametrize(
    "endless",
    [b"0\r\n" + b"T: x\r\n" * 1000, b"0\r\nT: ", b"1;ext=", b"\r\n"],
    ids=["trailers", "one trailer", "a chunk extension", "no chunk size"],
)
def test_what_is_neither_head_nor_body_has_limits_too(endless: bytes) -> None:
    heard = hear(CHUNKED + endless, *[b"y" * 8192] * 12)
    assert heard.ended and heard.statuses[-1] in (400, 431)


def test_empty_lines_before_a_request_are_not_endless() -> None:
    assert hear(b"\r\n\r\n" + SMUGGLED).statuses == [200]
    assert hear(*[b"\r\n" * 4096] * 12).ended


def test_a_trailer_says_nothing_that_a_header_could() -> None:
    heard = hear(CHUNKED + b"1\r\na\r\n0\r\nAuthorization: me\r\nHost: other\r\n\r\n" + SMUGGLED)
    (_, _, headers, body), (_, target, _, _) = heard.requests
    assert (headers, body, target) == ({b"host": b"x", b"transfer-encoding": b"chunked"}, b"a", b"/smuggled")


# -- properties --------------------------------------------------------------------------------------------------------

TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_.!#$%&'*+^`|~", min_size=1, max_size=12).map(
    lambda name: b"x-" + name.encode()
)
VALUE = st.binary(max_size=30).map(
    lambda value: bytes(byte for byte in value if byte == 9 or 32 <= byte < 127 or byte > 127).strip(b" \t")
)
HEADERS = st.dictionaries(TOKEN.map(bytes.lower), VALUE, max_size=6)
CUTS = st.lists(st.integers(1, 40), max_size=60)


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, tuple[bytes, bytes, dict[bytes, bytes], bytes]]:
    """Draw a request: its bytes, and what they mean."""
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"HEAD"]))
    target = b"/" + draw(st.text("abc/%20?&=.-_~", max_size=20)).encode()
    headers = {b"host": b"x", **draw(HEADERS)}
    body = draw(st.binary(max_size=200))
    raw = body
    if draw(st.booleans()):
        headers[b"transfer-encoding"] = b"chunked"
        pieces = list(cut(body, draw(CUTS)))
        raw = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    elif body or draw(st.booleans()):
        headers[b"content-length"] = str(len(body)).encode()
    space = draw(st.sampled_from([b"", b" ", b"  ", b"\t"]))
    lines = [name + b":" + space + value + b"\r\n" for name, value in headers.items()]
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, target, b"".join(lines), raw), (method, target, headers, body)


@given(st.lists(requests(), min_size=1, max_size=5), CUTS)
@settings(deadline=None)
def test_what_was_sent_is_what_is_heard(
    sent: list[tuple[bytes, tuple[bytes, bytes, dict[bytes, bytes], bytes]]], sizes: list[int]
) -> None:
    heard = hear(*cut(b"".join(raw for raw, _ in sent), sizes))
    assert heard.requests == [meant for _, meant in sent]
    assert heard.statuses == [200] * len(sent)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw requests in which something is overwritten, left out, repeated or put in."""
    data = b"".join(raw for raw, _ in draw(st.lists(requests(), min_size=1, max_size=3)))
    alphabet = st.one_of(st.binary(min_size=1, max_size=3), st.sampled_from([b"\r\n", b"\n", b":", b" ", b"\0", b"0"]))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        removed = draw(st.integers(0, 4))
        data = data[:place] + draw(st.one_of(st.just(b""), alphabet)) + data[place + removed :]
    return data


@given(st.one_of(damaged(), st.binary(max_size=300)), CUTS)
@settings(deadline=None, max_examples=150)
def test_how_it_is_cut_changes_nothing(data: bytes, sizes: list[int]) -> None:
    whole, pieces = hear(data), hear(*cut(data, sizes))
    assert pieces.requests == whole.requests
    assert pieces.statuses == whole.statuses
    assert pieces.ended == whole.ended


@given(st.one_of(damaged(), st.binary(max_size=300)), CUTS)
@settings(deadline=None, max_examples=150)
def test_anything_is_answered_or_refused_and_a_refusal_is_the_last_word(data: bytes, sizes: list[int]) -> None:
    heard = hear(*cut(data, sizes), SMUGGLED)
    refused = [status for status in heard.statuses if status != 200]
    assert refused in ([], [400])
    if refused:
        assert heard.ended and heard.statuses[-1] == refused[0]
        assert not any(each.head.complete for each in heard.exchanges[len(heard.statuses) - 1 :])


# -- the same against a whole gateway ----------------------------------------------------------------------------------


async def test_damaged_requests_leave_a_gateway_as_it_was(gateway: Gateway) -> None:
    await gateway.serve("demo", says(answer(b"ok")))
    good = gateway.signed("/endpoints/demo/invocations", b'{"instances": [1, 2, 3]}')
    dice = random.Random(20260131)
    for _ in range(100):
        data = bytearray(good)
        for _ in range(dice.randint(1, 6)):
            place = dice.randrange(len(data))
            data[place : place + dice.randint(0, 3)] = bytes(dice.choices(range(256), k=dice.randint(0, 3)))
        reader, writer = await gateway.connect()
        for start in range(0, len(data), size := dice.choice([len(data), 100, 7])):
            writer.write(data[start : start + size])
        writer.write_eof()
        said = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        if said:
            assert said.startswith(b"HTTP/1.1 ") and int(said.split(b" ", 2)[1]) < 500, (bytes(data), said)
    assert (await gateway.invoke("demo")).body == b"ok"
    assert gateway.state.load == {} and gateway.state.deadlines == {}
