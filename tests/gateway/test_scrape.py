"""`GET /metrics` at the front door: who may, and what is said while the control plane is away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from clary.gateway.connection import Source
from clary.gateway.front import _is_scrape
from clary.gateway.scrape import PATH, Scrape


class Request:
    """As much of a Streamed as a scrape needs."""

    def __init__(self, authorization: bytes = b"", source_ip: str = "127.0.0.1") -> None:
        self.headers = {b"authorization": authorization} if authorization else {}
        self.source = Source(source_ip)
        self.answered: tuple[int, bytes] | None = None

    async def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        assert dict(headers)[b"Content-Type"].startswith(b"text/plain")
        self.answered = (status, body)


async def scraped(scrape: Scrape, **request: Any) -> tuple[int, bytes]:
    made = Request(**request)
    await scrape.handle(made)  # type: ignore[arg-type]  # as much of one as it needs
    assert made.answered is not None
    return made.answered


@pytest.fixture
async def socket(tmp_path: Any) -> Any:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=b"numbers")

    app = web.Application()
    app.router.add_get(PATH, answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "control.sock")).start()
    yield tmp_path / "control.sock"
    await runner.cleanup()


@pytest.mark.parametrize(
    ("token", "request_", "status"),
    [
        ("", {}, 200),
        ("", {"source_ip": "::1"}, 200),
        ("", {"source_ip": "172.17.0.2"}, 403),
        ("", {"source_ip": ""}, 403),
        (None, {}, 403),
        (None, {"authorization": b"Bearer "}, 403),
        ("secret", {"authorization": b"Bearer secret"}, 200),
        ("secret", {"authorization": b"bearer secret", "source_ip": "10.1.2.3"}, 200),
        ("secret", {}, 401),
        ("secret", {"authorization": b"Bearer "}, 401),
        ("secret", {"authorization": b"Bearer secret2"}, 401),
        ("secret", {"authorization": b"Basic secret"}, 401),
    ],
)
async def test_who_may_scrape(socket: Any, token: str | None, request_: dict[str, Any], status: int) -> None:
    answered, body = await scraped(Scrape(socket, token), **request_)
    assert answered == status
    assert (body == b"numbers") is (status == 200)


async def test_an_absent_control_plane_is_told(tmp_path: Any) -> None:
    status, body = await scraped(Scrape(tmp_path / "nobody.sock", ""))
    assert status == 200
    assert b"clary_control_plane_up 0\n" in body


@pytest.mark.parametrize(
    ("method", "target", "authorization", "wanted"),
    [
        (b"GET", b"/metrics", b"", True),
        (b"GET", b"/metrics", b"Bearer secret", True),
        (b"GET", b"/metrics", b"AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request", False),
        (b"GET", b"/metrics", b"AWS key:signature", False),
        (b"GET", b"/metrics?list-type=2", b"", False),
        (b"GET", b"/metrics/key", b"", False),
        (b"PUT", b"/metrics", b"", False),
    ],
)
def test_a_bucket_may_have_the_name_too(method: bytes, target: bytes, authorization: bytes, wanted: bool) -> None:
    headers = {b"authorization": authorization} if authorization else {}
    head: Any = SimpleNamespace(method=method, target=target, headers=headers)
    assert _is_scrape(head) is wanted
