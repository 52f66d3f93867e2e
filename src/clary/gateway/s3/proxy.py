"""The S3 that a user brings: requests are verified here and go on under the user's own keys, in constant memory."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from clary.errors import AwsError
from clary.gateway.s3 import access
from clary.gateway.s3.call import refuse
from clary.gateway.streamed import Streamed
from clary.telemetry import logger
from clary.wire.awschunked import Payload
from clary.wire.canonical import strict_resource
from clary.wire.signing import Signer
from clary.wire.sigv4 import EMPTY_SHA256, UNSIGNED_PAYLOAD, Identity

_BLOCK = 256 * 1024
_PATIENCE = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=120)
_PLAIN = (b"cache-control", b"expires", b"range")
_FAMILIES = (b"content-", b"if-", b"x-amz-")
# Of this leg alone: they say how the client signed and framed what goes on decoded.
_OWN = (
    b"content-length",
    b"x-amz-content-sha256",
    b"x-amz-date",
    b"x-amz-decoded-content-length",
    b"x-amz-sdk-checksum-algorithm",
    b"x-amz-security-token",
    b"x-amz-trailer",
)
_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_FRAMING = (b"content-encoding", b"x-amz-decoded-content-length", b"x-amz-sdk-checksum-algorithm", b"x-amz-trailer")
_SIGNATURE_PARAMETERS = (
    *("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"),
    *("X-Amz-Security-Token", "AWSAccessKeyId", "Signature", "Expires"),
)
_HOP_BY_HOP = (b"connection", b"keep-alive", b"transfer-encoding", b"proxy-authenticate", b"trailer", b"upgrade")

_log = logger("gateway")


class S3Proxy:
    """Answers S3 requests from another S3."""

    def __init__(self, endpoint: str, access_key_id: str, secret: str, region: str) -> None:
        parts = urlsplit(endpoint)
        self._base = f"{parts.scheme}://{parts.netloc}"
        self._prefix = parts.path.rstrip("/")
        self._host = parts.netloc.encode()
        self._signer = Signer(access_key_id, secret, region, "s3", time.time)
        self._session: aiohttp.ClientSession | None = None

    async def handle(self, request: Streamed) -> None:
        """Authenticate a request, pass it on and its answer back; errors of ours in S3's XML."""
        try:
            identity = request.state.authenticate(request.head, None)
            if (principal := request.state.principal(identity)) is not None:
                access.check(principal, request, bulk=False)
            await self._forward(request, _Outgoing(request, identity))
        except AwsError as failure:
            await refuse(request, failure)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _forward(self, request: Streamed, outgoing: _Outgoing) -> None:
        if self._session is None:  # made here, because a session belongs to the loop that runs it
            self._session = aiohttp.ClientSession(timeout=_PATIENCE, auto_decompress=False)
        query = "&".join(pair for pair in request.query.split("&") if not _is_of_signature(pair))
        path, query_sent = strict_resource((self._prefix + request.path).encode(), query.encode(), s3=True)
        headers = {b"host": self._host, **outgoing.headers}
        signed = self._signer.sign(request.method, (path, query_sent), headers, outgoing.payload_hash)
        url = URL(f"{self._base}{path.decode()}" + (f"?{query_sent.decode()}" if query_sent else ""), encoded=True)
        try:
            async with self._session.request(
                request.method,
                url,
                headers={name.decode(): value.decode("latin-1") for name, value in signed.items()}
                | {"accept-encoding": "identity"},
                data=outgoing.body() if outgoing.length else None,
                allow_redirects=False,
                skip_auto_headers=("content-type",),
            ) as answer:
                await request.start(answer.status, [pair for pair in answer.raw_headers if _goes_back(pair[0])])
                async for data in answer.content.iter_chunked(_BLOCK):
                    await request.write(data)
                await request.end()
        except (aiohttp.ClientError, TimeoutError) as error:
            if outgoing.failure is not None:
                raise outgoing.failure from error
            if request.started:
                raise
            _log.warning("the S3 endpoint does not answer", endpoint=self._base, error=str(error))
            message = "The S3 endpoint behind Clary does not answer. Please try again."
            raise AwsError(message, code="ServiceUnavailable", status=503) from error


class _Outgoing:
    """The request as it goes on.

    What the client signed chunk by chunk is verified here and goes on plain; its trailing checksum ends here too. What
    is chunked without signatures goes on as it is, checksum included, for the other side to verify.
    """

    def __init__(self, request: Streamed, identity: Identity | None) -> None:
        given = request.headers
        declared = given.get(b"x-amz-content-sha256", b"").decode("latin-1")
        self.failure: AwsError | None = None
        self.headers = _passed_on(given)
        if declared == _UNSIGNED_TRAILER:
            self._payload: AsyncIterator[bytes] = aiter(request.body)
            length = given.get(b"content-length", b"")
            self.headers |= {name: given[name] for name in _FRAMING if name in given}
        else:
            self._payload = aiter(Payload(identity, given, aiter(request.body)))
            length = given.get(b"x-amz-decoded-content-length", given.get(b"content-length", b""))
        if not length.isdigit() and (length or b"transfer-encoding" in given):
            message = "You must provide the Content-Length HTTP header."
            raise AwsError(message, code="MissingContentLength", status=411)
        self.length = int(length or 0)
        if declared == _UNSIGNED_TRAILER or len(declared) == 64:
            self.payload_hash = declared
        else:
            self.payload_hash = UNSIGNED_PAYLOAD if self.length else EMPTY_SHA256
        if self.length or request.method in ("PUT", "POST"):
            self.headers[b"content-length"] = str(self.length).encode()

    async def body(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._payload:
                yield piece
        except AwsError as failure:
            # The HTTP client reports its own error for a body that breaks off; the caller is told this one.
            self.failure = failure
            raise


def _passed_on(headers: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    passed = {
        name: value
        for name, value in headers.items()
        if name not in _OWN and (name in _PLAIN or name.startswith(_FAMILIES))
    }
    encodings = [each.strip() for each in passed.pop(b"content-encoding", b"").split(b",")]
    if encoding := b",".join(each for each in encodings if each not in (b"", b"aws-chunked")):
        passed[b"content-encoding"] = encoding
    return passed


def _is_of_signature(pair: str) -> bool:
    name = pair.partition("=")[0]
    return not pair or name in _SIGNATURE_PARAMETERS


def _goes_back(name: bytes) -> bool:
    return name.lower() not in _HOP_BY_HOP
