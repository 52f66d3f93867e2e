"""`GET /metrics`: the numbers for Prometheus, which the control plane has from all gateway processes."""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from pathlib import Path

import aiohttp

from clary.errors import AwsError
from clary.gateway.streamed import Streamed

PATH = "/_clary/prometheus"
"""Where the control plane answers it."""
_TIMEOUT = aiohttp.ClientTimeout(total=8)
"""Below Prometheus's own (10 seconds)."""
_AWAY = b"""\
# HELP clary_control_plane_up 1 where the control plane answers, else 0.
# TYPE clary_control_plane_up gauge
clary_control_plane_up 0
"""
_TEXT = [(b"Content-Type", b"text/plain; version=0.0.4; charset=utf-8")]
_PLAIN = [(b"Content-Type", b"text/plain; charset=utf-8")]


class Scrape:
    """Answers scrapes.

    Prometheus does not sign requests, so what protects the numbers is a token. Without one (`token` empty) whoever is
    on this machine may read them, but no model in a container, which has an address of its own; None: nobody may.
    """

    def __init__(self, control_socket: Path, token: str | None) -> None:
        self._socket = control_socket
        self._token = token

    async def handle(self, request: Streamed) -> None:
        """Answer one scrape; while the control plane is away, with that."""
        try:
            self._admit(request.headers.get(b"authorization", b""), request.source.ip)
        except AwsError as error:
            await request.answer(error.status, _PLAIN, error.message.encode() + b"\n")
            return
        connector = aiohttp.UnixConnector(str(self._socket))
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as session,
                session.get(f"http://control{PATH}") as answer,
            ):
                answer.raise_for_status()
                body = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError):
            body = _AWAY
        await request.answer(200, _TEXT, body)

    def _admit(self, authorization: bytes, source_ip: str) -> None:
        if self._token:
            kind, _, given = authorization.partition(b" ")
            if kind.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._token.encode()):
                raise AwsError("The bearer token is missing or wrong.", code="AccessDenied", status=401)
        elif self._token is None or not _is_loopback(source_ip):
            message = "Metrics are for this machine alone unless --metrics-token sets what a scrape must bear."
            raise AwsError(message, code="AccessDenied", status=403)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
