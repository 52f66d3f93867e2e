"""Whatever comes, in whatever pieces and order, both ways make the same of it. Nothing here waits for a socket."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Coroutine
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from clary.core.residency import Held, News
from clary.core.routing import EndpointRoute, Hop, RouteTable, Target, VariantRoute
from clary.core.target_model import model_id
from clary.gateway import short
from clary.gateway.connection import Connection
from clary.gateway.front import Front
from clary.gateway.state import Limits, State
from clary.gateway.upstream import UpstreamConnection
from clary.wire.sigv4 import Verifier
from tests.gateway.conftest import KEY, PARTITION, REGION, SECRET, interpreted

if not short.is_compiled():
    pytest.skip("the short way is not compiled: install Clary where there is a C compiler", allow_module_level=True)

CONTAINER = ("h", 80)
VARIANT = VariantRoute("V", 1.0, (Target("i", (Hop("c", *CONTAINER),)),))
ROUTE = EndpointRoute("e", "InService", (VARIANT,))
MANY = EndpointRoute("e", "InService", (replace(VARIANT, multi_model="primary"),))
"""Of the many models that its container serves, `m` is loaded."""

OF_COMPONENTS = EndpointRoute(
    "e", "InService", (), components={
        "c": replace(ROUTE, component="c"),
        "none": EndpointRoute("e", "InService", (replace(VARIANT, targets=()),), component="none", copies=0),
        "adapter": replace(ROUTE, component="adapter", adapter="a"),
        "late": replace(ROUTE, status="Creating", component="late"),
        "updating": replace(ROUTE, status="Updating", component="updating"),
    },
)  # fmt: skip

Event = tuple[str, bytes]
"""Who does something, `client` or `container`, and the bytes that it sends; none: it sends no more."""


class Wire:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.written = b""
        self.ending = ""

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return bool(self.ending)

    def close(self) -> None:
        self.ending = self.ending or "closed"

    def abort(self) -> None:
        self.ending = self.ending or "aborted"

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.written += b"<eof>"

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> object:
        return None

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Side:
    """A gateway with one connection to its one container; there is no other."""

    def __init__(self, folder: Path, verifier: Verifier | None, route: EndpointRoute, *, shortcut: bool) -> None:
        self.state = State(PARTITION, verifier, folder, Limits(1_000_000, 5.0))
        self.state.routes.table = RouteTable(1, {"e": route})
        self.state.models._hear(News(all=True, add=[Held("e", "V", "i", "c", model_id("m"), 1)]))
        self.state.spawn = self.spawn  # type: ignore[method-assign]
        self.open = Front(self.state, None, None).open  # type: ignore[arg-type]
        self.short = short.way(self.state) if shortcut else None
        if not shortcut:
            self.state.outbox = self.state.pool.outbox = interpreted(self.state)
        self.connects = 0

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        work.close()
        self.connects += 1

    def run(self, events: list[Event]) -> tuple[object, ...]:
        """Let it happen, then both ends go away; tell what was seen of it."""
        self.connects = 0
        pool, flush = self.state.pool, self.state.outbox.flush
        upstream, there = UpstreamConnection(pool), Wire()
        upstream.connection_made(there)  # type: ignore[arg-type]
        upstream.address, pool.idle[CONTAINER] = CONTAINER, [upstream]
        client, here = Connection(self.open, self.state.outbox, self.short), Wire()
        client.connection_made(here)  # type: ignore[arg-type]
        for who, data in events:
            wire, end = (here, client) if who == "client" else (there, upstream)
            if wire.ending or (who == "container" and not there.written):
                continue
            if data:
                end.data_received(data)
            elif who == "container":
                there.close()
                upstream.connection_lost(None)
            elif not client.eof_received():
                here.close()
                client.connection_lost(None)
            flush()
        said = (self.connects, there.written, there.ending, _timeless(here.written), here.ending, client.idle,
                dict(self.state.load), bool(pool.idle[CONTAINER]))  # fmt: skip
        for wire, end in ((there, upstream), (here, client)):
            if not wire.ending:
                wire.close()
                end.connection_lost(None)
                flush()
        counted = {point.series: point.statistics.count for point in self.state.meter.take()}
        assert self.state.load == self.state.deadlines == {}
        resident, report = self.state.models.find("e", "V", model_id("m"))["i"], self.state.models._draw_up()
        assert resident.under_way == 0
        return (*said, counted, [use[:-1] for use in report.uses], report.returns)


def _timeless(raw: bytes) -> bytes:
    ids = re.sub(rb"(?i)(requestid: |RequestId\": \"|Request )[0-9a-f-]{36}", rb"\1", raw)
    return re.sub(rb"dur=[0-9.]+", b"dur=", ids)


REQUEST = (
    b"POST /endpoints/e/invocations HTTP/1.1\r\nHost: h\r\nContent-Type: text/csv\r\nAccept: */*\r\nUser-Agent: me\r\n"
    b"X-Amzn-SageMaker-Inference-Id: 7\r\nContent-Length: 4\r\n\r\n1,2\n"
)
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer: me\r\nContent-Length: 12\r\n\r\n{"ok": true}'

NAMES = st.sampled_from(
    b"A Accept Authorization Connection Content-Encoding Content-Length Content-Type Date Expect Host Keep-Alive "
    b"Proxy-Connection Smithy-Protocol TE Trailer Transfer-Encoding Upgrade User-Agent X-Amz-Date X-Amz-Security-Token "
    b"X-Amz-Content-Sha256 X-Amz-Target X-Clary-Server-Timing X-Amzn-SageMaker-Custom-Attributes "
    b"X-Amzn-SageMaker-Inference-Component X-Amzn-SageMaker-Inference-Id X-Amzn-SageMaker-New-Session-Id "
    b"X-Amzn-SageMaker-Session-Id "
    b"X-Amzn-SageMaker-Target-Model X-Amzn-SageMaker-Target-Variant".split()
)
VALUES = st.sampled_from(
    [b"", b"0", b"04", b"+4", b"4", b"5", b"4,4", b"12", b"99999999999", b"V", b"m", b"NEW_SESSION", b"a,b", b"a  b",
     b" a", b"a ", b"\ta", b"a\x00", b"a\x7f", b"\xe9", b"chunked", b"close", b"keep-alive", b"Keep-Alive",
     b"KEEP-ALIVE", b"keep-alive, close", b"upgrade", b"h2c", b"trailers", b"100-continue", b"x" * 70, b"x" * 1100,
     b"x" * 70_000]
)  # fmt: skip
LINES = st.builds(
    b"".join,
    st.tuples(NAMES, st.sampled_from([b": "] * 8 + [b":", b" : "]), VALUES,
              st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r", b"\r\r\n", b"\r\n "])),
)  # fmt: skip
EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("line"), st.integers(0, 8), LINES),
        st.tuples(st.just("byte"), st.integers(0, 400), st.binary(min_size=1, max_size=2)),
        st.tuples(st.just("drop"), st.integers(0, 400), st.just(b"x" * 3)),
        st.tuples(st.just("more"), st.just(0), st.sampled_from([REQUEST, ANSWER, b"x", b"\r\n"])),
    ),
    max_size=3,
)
CUTS = st.lists(st.integers(0, 400), max_size=2)


def edited(raw: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    for how, at, piece in edits:
        if how == "line":
            starts = [found.end() for found in re.finditer(rb"\r\n", raw)] or [0]
            at = starts[at % len(starts)]
            raw = raw[:at] + piece + raw[at:]
        elif how == "more":
            raw += piece
        else:
            raw = raw[:at] + (piece if how == "byte" else b"") + raw[at + len(piece) :]
    return raw


def pieces(raw: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    return [raw[start:end] for start, end in pairwise(bounds) if start < end]


@st.composite
def happenings(draw: st.DrawFn, request: bytes = REQUEST) -> list[Event]:
    asked, answered = edited(request, draw(EDITS)), edited(ANSWER, draw(EDITS))
    clients = [("client", piece) for piece in pieces(asked, draw(CUTS))]
    containers = [("container", piece) for piece in pieces(answered, draw(CUTS))]
    last: list[Event] = [(who, b"") for who in draw(st.lists(st.sampled_from(("client", "container")), max_size=2))]
    if draw(st.booleans()):
        return [*clients, *containers, *last]
    events: list[Event] = []
    while clients or containers:
        events.append((clients if clients and (not containers or draw(st.booleans())) else containers).pop(0))
    return [*events, *last]


def compare(folder: Path, events: list[Event], verifier: Verifier | None = None, route: EndpointRoute = ROUTE) -> int:
    """Hold both ways against each other; give how many requests went the short one."""

    async def both() -> int:
        one, other = Side(folder, verifier, route, shortcut=True), Side(folder, verifier, route, shortcut=False)
        first, second = one.run(events), other.run(events)
        assert first == second
        return one.state.plain_requests()

    return asyncio.run(both())


def with_header(line: bytes, raw: bytes = REQUEST) -> bytes:
    return raw.replace(b"\r\nContent-Length", b"\r\n" + line + b"\r\nContent-Length")


BOTH: list[Event] = [("client", REQUEST), ("container", ANSWER)]
THE_SAME = settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))


@THE_SAME
@given(happenings())
@example([("client", REQUEST), ("client", REQUEST), ("container", ANSWER), ("container", b"")])
@example([("client", REQUEST), ("container", ANSWER[:-12]), ("container", ANSWER[-12:] + b"\r\n")])
@example([("client", with_header(b"Proxy-Connection: close")), ("container", ANSWER)])
@example([("client", REQUEST), ("container", with_header(b"Proxy-Connection: close", ANSWER))])
@example([("client", REQUEST.replace(b"Host: h", b"Host: h,i")), ("container", ANSWER)])
@example([("client", with_header(b"A: " + b"x" * 70_000)), ("container", ANSWER)])
def test_whatever_happens_is_the_same_both_ways(tmp_path: Path, events: list[Event]) -> None:
    compare(tmp_path, events)


OF_MANY = with_header(b"X-Amzn-SageMaker-Target-Model: m")
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone"


@THE_SAME
@given(happenings(OF_MANY))
@example([("client", OF_MANY), ("container", MISSING)])
@example([("client", OF_MANY), ("container", MISSING.replace(b"404", b"507"))])
@example([("client", REQUEST), ("container", ANSWER)])
@example([("client", OF_MANY.replace(b": m", b": n")), ("container", ANSWER)])
@example([("client", OF_MANY.replace(b": m", b": " + b"m" * 1025)), ("container", ANSWER)])
def test_whatever_happens_to_a_request_for_one_of_many_models_is_the_same_both_ways(
    tmp_path: Path, events: list[Event]
) -> None:
    compare(tmp_path, events, route=MANY)


def test_a_request_for_a_model_that_is_loaded_is_plain(tmp_path: Path) -> None:
    assert compare(tmp_path, [("client", OF_MANY), ("container", ANSWER)] * 3, route=MANY) == 3


OF_COMPONENT = with_header(b"X-Amzn-SageMaker-Inference-Component: c")


@THE_SAME
@given(happenings(OF_COMPONENT))
@example([("client", OF_COMPONENT), ("container", ANSWER.replace(b"200 OK", b"500 Oops"))])
@example([("client", REQUEST), ("container", ANSWER)])
@example([("client", OF_COMPONENT.replace(b": c\r", b": none\r")), ("container", ANSWER)])
@example([("client", OF_COMPONENT.replace(b": c\r", b": adapter\r")), ("container", ANSWER)])
@example([("client", OF_COMPONENT.replace(b": c\r", b": late\r")), ("container", ANSWER)])
@example([("client", OF_COMPONENT.replace(b": c\r", b": other\r")), ("container", ANSWER)])
def test_whatever_happens_to_a_request_for_a_component_is_the_same_both_ways(
    tmp_path: Path, events: list[Event]
) -> None:
    compare(tmp_path, [*events, *[("client", OF_COMPONENT), ("container", ANSWER)]], route=OF_COMPONENTS)


def test_a_request_for_a_component_is_plain(tmp_path: Path) -> None:
    others = [("client", OF_COMPONENT.replace(b": c\r", b": updating\r")), ("container", ANSWER)]
    of_it = [("client", OF_COMPONENT), ("container", ANSWER)]
    assert compare(tmp_path, [*of_it, *others] * 2, route=OF_COMPONENTS) == 4


def test_who_names_a_component_where_there_is_none_is_refused_both_ways(tmp_path: Path) -> None:
    assert compare(tmp_path, [*BOTH, ("client", OF_COMPONENT), *BOTH]) == 2


def test_empty_lines_between_requests_never_become_too_many(tmp_path: Path) -> None:
    assert compare(tmp_path, [*BOTH, ("client", b"\r\n" * 20_000)] * 3) == 3


def test_what_is_plain_is_taken(tmp_path: Path) -> None:
    """So that the comparison compares something."""
    assert compare(tmp_path, BOTH * 3) == 3


NOW = time.time()


def signed() -> bytes:
    request = AWSRequest(
        "POST", "http://h/endpoints/e/invocations", headers={"Content-Type": "text/csv"}, data=b"1,2\n"
    )
    SigV4Auth(Credentials(KEY, SECRET), "sagemaker", REGION).add_auth(request)
    lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    return f"POST /endpoints/e/invocations HTTP/1.1\r\nHost: h\r\n{lines}Content-Length: 4\r\n\r\n1,2\n".encode()


SIGNED = signed()


@THE_SAME
@given(happenings(SIGNED))
@example(BOTH)
def test_whatever_happens_to_a_signed_request_is_the_same_both_ways(tmp_path: Path, events: list[Event]) -> None:
    verifier = Verifier({KEY: SECRET}, REGION, lambda: NOW)
    known = [("client", SIGNED), ("container", ANSWER)] * 2
    assert compare(tmp_path, [*known, *events], verifier) >= 1


WITHOUT = """
import sys
sys.modules["_hashlib"] = None
from pathlib import Path
from clary.gateway.shortcut import way
from tests.gateway import test_short_fuzz as fuzz
verifier = fuzz.Verifier({fuzz.KEY: fuzz.SECRET}, fuzz.REGION, lambda: fuzz.NOW)
known = [("client", fuzz.SIGNED), ("container", fuzz.ANSWER)] * 2
wrong = [("client", fuzz.SIGNED.replace(b"1,2", b"1,3"))]
print(way.IS_DIRECT, *(fuzz.compare(Path(sys.argv[1]), each, verifier) for each in (known, known + wrong)))
"""


def test_signatures_are_verified_where_openssl_is_not_to_be_found(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT, tmp_path], cwd=root, capture_output=True, text=True, check=False
    )
    assert run.stdout.split() == ["False", "1", "2"], run.stderr  # the signer is known by then


def test_a_take_that_gives_up_has_done_nothing(tmp_path: Path) -> None:
    async def check() -> None:
        state = State(PARTITION, None, tmp_path, Limits(1_000_000, 5.0))
        way: Any = short.way(state)
        assert way is not None
        client = Connection(lambda head, client: pytest.fail("nothing was opened"), state.outbox)
        for size in range(len(REQUEST)):
            assert way.take(REQUEST[:size], client) is False
        assert client.idle
        assert state.load == {}
        assert state.deadlines == {}

    asyncio.run(check())
