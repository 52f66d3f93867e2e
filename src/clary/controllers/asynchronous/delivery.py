"""One attempt at one asynchronous request: from the object in S3 through the containers of an instance to the object in
S3, in constant memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, Protocol

import aiohttp

from clary.core import model_error
from clary.core.asynchronous import (
    AsyncRequest,
    Broken,
    Completed,
    Failed,
    Invoke,
    Kind,
    Outcome,
    Refused,
    TimedOut,
    Unavailable,
    Unusable,
)
from clary.core.notification import LARGEST_RESPONSE
from clary.core.routing import Hop
from clary.errors import ClaryError, Fatal, Transient
from clary.objects import Opened

CONNECT_TIMEOUT = 5.0
"""Seconds; the contract says 250 ms for a listening socket, a loaded machine needs longer."""
PATIENCE = 60.0
"""Seconds for which an input may be interrupted while a container is sent it."""

Refusal = Callable[[str, str, str], str | None]
"""Says why a role (its ARN) may not do something (`s3:GetObject`) with what is at a URL; None where it may."""


class Store(Protocol):
    """Where inputs come from and answers go."""

    async def open(self, url: str, patience: float) -> Opened:
        """Begin to read an object. Raises Fatal or Transient."""
        ...

    async def write(self, url: str, pieces: AsyncIterator[bytes], content_type: str = "") -> None:
        """Write an object, which is there once it is whole. Raises Fatal, Transient, and what `pieces` raises."""
        ...


@dataclass(slots=True)
class Times:
    """Where the time of an attempt went, in seconds."""

    download: float = 0.0
    model: float = 0.0
    upload: float = 0.0


class _Body(NamedTuple):
    """What a container is sent."""

    pieces: AsyncIterator[bytes]
    size: int
    content_type: str


class _Unusable(ClaryError):
    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(detail)
        self.outcome = Unusable(kind, detail)


@dataclass(slots=True)
class _Attempt:
    """What is known of an attempt while it goes on."""

    request: AsyncRequest
    container: str = "primary"
    times: Times = field(default_factory=Times)
    trouble: Exception | None = None
    """What happened to the input while a container was being sent it: to HTTP it is a broken connection."""


class Delivery:
    """Makes attempts. `limit` is the largest input, in bytes."""

    def __init__(self, store: Store, may: Refusal, limit: int) -> None:
        self._store = store
        self._may = may
        self._limit = limit
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Let go of all connections."""
        if self._session is not None:
            await self._session.close()

    async def attempt(self, request: AsyncRequest, place: Invoke, inline: bytes) -> tuple[Outcome, Times]:
        """Give a request to an instance and its answer to S3; say what came of it. `inline` is the body, if any."""
        attempt = _Attempt(request)
        return await self._outcome(attempt, place, inline), attempt.times

    async def found(self, request: AsyncRequest) -> Completed | None:
        """Give the answer that is there already: the request was done, and nobody lived to write that down.

        Raises Transient. Under a name of the caller's there may be an older answer: that says nothing.
        """
        if not request.output_location.endswith(f"/{request.id}.out"):
            return None
        try:
            opened = await self._store.open(request.output_location, PATIENCE)
        except Fatal:
            return None
        return Completed(opened.content_type)

    async def report(self, request: AsyncRequest, failed: Failed, role: str) -> None:
        """Write the object at the FailureLocation. Raises Fatal or Transient."""
        if refusal := self._may(role, "s3:PutObject", request.failure_location):
            raise Fatal(refusal)
        await self._store.write(request.failure_location, _once(failed.text.encode()), "text/plain; charset=utf-8")

    async def _outcome(self, attempt: _Attempt, place: Invoke, inline: bytes) -> Outcome:
        try:
            async with asyncio.timeout(attempt.request.timeout):
                return await self._pass_through(attempt, place, inline)
        except aiohttp.ServerTimeoutError:  # of the connection: a request that was sent has the limit above alone
            return Broken(attempt.container, reached=False)
        except TimeoutError:
            return TimedOut(attempt.container)
        except _Unusable as error:
            return error.outcome
        except Transient as error:
            return Unavailable(error.message)
        except (aiohttp.ClientError, OSError) as error:
            match attempt.trouble:
                case _Unusable():
                    return attempt.trouble.outcome
                case Exception():
                    return Unavailable(str(attempt.trouble))
            return Broken(attempt.container, reached=not isinstance(error, aiohttp.ClientConnectorError))

    async def _pass_through(self, attempt: _Attempt, place: Invoke, inline: bytes) -> Outcome:
        hops, request = place.target.hops, attempt.request
        if refusal := self._may(place.variant.role_arn, "s3:PutObject", request.output_location):
            return Unusable("upload", refusal)
        body = await self._input(attempt, place.variant.role_arn, inline)
        for hop, following in pairwise(hops):
            async with self._sent(attempt, hop, body, "") as answer:
                if not 200 <= answer.status < 300:
                    return await _refused(hop, answer)
                size, whole = await _whole(answer)
                if whole is None:
                    text = model_error.hop_too_large(hop.name, answer.status, following.name, size)
                    return Unusable("model", text)
                body = _Body(_once(whole), size, answer.headers.get("Content-Type", ""))
        async with self._sent(attempt, hops[-1], body, request.accept) as answer:
            if not 200 <= answer.status < 300:
                return await _refused(hops[-1], answer)
            return await self._output(attempt, answer)

    # -- the objects -------------------------------------------------------------------------------------------------

    async def _input(self, attempt: _Attempt, role: str, inline: bytes) -> _Body:
        request = attempt.request
        if not request.input_location:
            return _Body(_once(inline), len(inline), request.content_type)
        if refusal := self._may(role, "s3:GetObject", request.input_location):
            raise _Unusable("download", refusal)
        begun = time.perf_counter()
        try:
            opened = await self._store.open(request.input_location, PATIENCE)
        except Fatal as error:
            raise _Unusable("download", f"Failed to download the input: {error.message}.") from error
        finally:
            attempt.times.download += time.perf_counter() - begun
        if opened.size > self._limit:
            text = f"{request.input_location} has {opened.size} bytes; an input may have {self._limit} at most."
            raise _Unusable("download", text)
        return _Body(_watched(attempt, opened.pieces), opened.size, request.content_type or opened.content_type)

    async def _output(self, attempt: _Attempt, answer: aiohttp.ClientResponse) -> Completed:
        request, begun = attempt.request, time.perf_counter()
        kept = _Kept(answer.content.iter_any(), LARGEST_RESPONSE if request.include_success else 0)
        content_type = answer.headers.get("Content-Type", "")
        try:
            await self._store.write(request.output_location, kept.pieces(), content_type)
        except Fatal as error:
            raise _Unusable("upload", f"Failed to upload the response: {error.message}.") from error
        finally:
            attempt.times.model += kept.ended - begun if kept.ended else time.perf_counter() - begun
            attempt.times.upload = time.perf_counter() - kept.ended if kept.ended else 0.0
        return Completed(content_type, answer.status, kept.whole)

    # -- the containers ----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _sent(
        self, attempt: _Attempt, hop: Hop, body: _Body, accept: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a container its request, and give the head of its answer; the time until that is the model's."""
        request, times = attempt.request, attempt.times
        attempt.container = hop.name
        headers = {
            "Content-Type": body.content_type,
            "Accept": accept,
            "X-Amzn-SageMaker-Custom-Attributes": request.custom_attributes,
            "X-Amzn-SageMaker-Inference-Id": request.inference_id,
        }
        given = {name: value for name, value in headers.items() if value} | {"Content-Length": str(body.size)}
        url = f"http://{hop.host}:{hop.port}/invocations"
        begun, downloaded = time.perf_counter(), times.download
        try:
            answer = await self._client().post(url, data=body.pieces, headers=given, allow_redirects=False)
        finally:
            times.model += time.perf_counter() - begun - (times.download - downloaded)
        async with answer:
            yield answer

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            # A connection for each request: one that a container has just closed would look like one that broke.
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT),
                auto_decompress=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            )
        return self._session


class _Kept:
    """Pieces of an answer that pass by; the whole of it where it is small enough."""

    def __init__(self, pieces: AsyncIterator[bytes], most: int) -> None:
        self._pieces = pieces
        self._most = most
        self._held = bytearray()
        self.whole: bytes | None = None
        self.ended = 0.0
        """When the last piece had come."""

    async def pieces(self) -> AsyncIterator[bytes]:
        fits = self._most > 0
        async for piece in self._pieces:
            fits = fits and len(self._held) + len(piece) <= self._most
            if fits:
                self._held += piece
            yield piece
        self.ended = time.perf_counter()
        if fits:
            self.whole = bytes(self._held)


async def _watched(attempt: _Attempt, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass an input on, note what happens to it, and how long it takes."""
    begun = time.perf_counter()
    try:
        async for piece in pieces:
            attempt.times.download += time.perf_counter() - begun
            yield piece
            begun = time.perf_counter()
    except Fatal as error:
        attempt.trouble = _Unusable("download", f"Failed to download the input: {error.message}.")
        raise
    except Transient as error:
        attempt.trouble = error
        raise


async def _once(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data


async def _refused(hop: Hop, answer: aiohttp.ClientResponse) -> Refused:
    body = bytearray()
    try:
        async for piece in answer.content.iter_any():
            body += piece
            if len(body) > model_error.LARGEST_BODY:
                return Refused(hop.name, answer.status, None)
    except aiohttp.ClientError:
        return Refused(hop.name, answer.status, None)
    return Refused(hop.name, answer.status, bytes(body))


async def _whole(answer: aiohttp.ClientResponse) -> tuple[int, bytes | None]:
    """Read the answer of a container that is not the last; without it where the next one cannot be given as much."""
    size, pieces = 0, bytearray()
    async for piece in answer.content.iter_any():
        size += len(piece)
        if size <= model_error.HOP_LIMIT:
            pieces += piece
        else:
            pieces.clear()  # read on, for the message says how much it was
    return size, bytes(pieces) if size <= model_error.HOP_LIMIT else None
