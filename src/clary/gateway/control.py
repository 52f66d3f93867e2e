"""Requests for the control plane: authenticated here, answered there, over its unix socket."""

from __future__ import annotations

import asyncio
import zlib
from pathlib import Path

import aiohttp

from clary.errors import AwsError
from clary.gateway.absence import PATIENCE, unavailable
from clary.gateway.streamed import Streamed
from clary.wire import failures

MAX_BODY = 4 * 1024 * 1024
"""Bytes of a control-plane request; the largest legal ones are a few hundred kilobytes."""
IDENTITIES = "/_clary/iam"
"""Where `clary keys` and `clary roles` ask; the default key alone is heard."""
_ANSWER_TIMEOUT = aiohttp.ClientTimeout(total=60)


class ControlPlane:
    """Passes requests on, and waits out a restart of the process on the other side."""

    def __init__(self, socket: Path) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(socket)), timeout=_ANSWER_TIMEOUT, auto_decompress=False
        )

    async def handle(self, request: Streamed) -> None:
        """Authenticate, forward, answer: AWS JSON, the query protocol, and RPC v2 CBOR, whose path is passed on."""
        content_type = request.headers.get(b"content-type", b"").decode("latin-1")
        smithy = request.headers.get(b"smithy-protocol", b"").decode("latin-1")
        if smithy and not content_type:  # an operation without input has no body
            content_type = failures.CBOR_CONTENT_TYPE
        try:
            body = await _read(request)
            identity = request.state.authenticate(request.head, body)
            headers = {
                "content-type": content_type,
                "smithy-protocol": smithy,
                "x-clary-path": request.path,
                "x-amz-target": request.headers.get(b"x-amz-target", b"").decode("latin-1"),
                "x-clary-request-id": request.request_id,
                "x-clary-access-key-id": identity.access_key_id if identity else "",
                "x-clary-session-token": identity.token if identity else "",
                "x-clary-service": identity.service if identity else "",
                "x-clary-source-ip": request.source.ip,
                "x-clary-secure": "true" if request.source.secure else "",
                "user-agent": request.headers.get(b"user-agent", b"").decode("latin-1"),
            }
            # What a client wrote never is a path here: the control plane has some that are for gateways alone.
            path = IDENTITIES if request.path == IDENTITIES else "/"
            body = _unpacked(request.headers.get(b"content-encoding", b""), body)
            status, answer_headers, answer = await self._send(path, headers, body)
        except AwsError as error:
            response = failures.error_response(error, content_type, request.request_id)
            status, answer = response.status, response.body
            answer_headers = [(name.encode(), value.encode()) for name, value in response.headers.items()]
        await request.answer(status, answer_headers, answer)

    async def _send(
        self, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while True:
            try:
                async with self._session.post(f"http://control{path}", data=body, headers=headers) as answer:
                    kept = [
                        (name, value)
                        for name, value in answer.raw_headers
                        if name.lower() == b"content-type" or name.lower().startswith((b"x-amz", b"smithy-"))
                    ]
                    return answer.status, kept, await answer.read()
            except aiohttp.ClientConnectorError as error:  # nothing was sent: safe to repeat
                if loop.time() > deadline:
                    raise unavailable("is not answering") from error
                await asyncio.sleep(0.05)
            except (aiohttp.ClientError, TimeoutError) as error:
                raise unavailable("went away while it was answering; look whether the request took effect") from error

    async def close(self) -> None:
        await self._session.close()


def _unpacked(encoding: bytes, body: bytes) -> bytes:
    """Unpack what the SDKs compress (large PutMetricData); the signature was made over the packed body."""
    if encoding.strip().lower() != b"gzip":
        return body
    unpacking = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        whole = unpacking.decompress(body, MAX_BODY + 1)
    except zlib.error:
        whole = b""
    if len(whole) > MAX_BODY:
        raise _too_large()
    if not unpacking.eof:
        raise AwsError("The body is not valid gzip.", code="SerializationException", status=400)
    return whole


def _too_large() -> AwsError:
    return AwsError("Request is too large.", code="RequestEntityTooLargeException", status=413)


async def _read(request: Streamed) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in request.body:
        pieces.append(piece)
        size += len(piece)
        if size > MAX_BODY:
            raise _too_large()
    return b"".join(pieces)
