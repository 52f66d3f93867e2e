"""An object that goes through the containers as one request of any size (MaxPayloadInMB 0): in chunks, as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

import aiohttp

from clary.channel import Broken, Reply
from clary.core.routing import Hop
from clary.core.transform import Work
from clary.transform.calls import EXCERPT, Answer

PIECE = 256 * 1024
"""Bytes that are taken of an answer at once."""


async def flow(
    hops: Sequence[Hop], work: Work, pieces: AsyncIterator[bytes], write: Callable[[bytes], object]
) -> Answer:
    """Send an object on its way, and write down what comes back while it does.

    What is not 2xx is given back instead, as the first container of a pipeline said it. Raises Broken, and whatever
    reading raises.
    """
    named = [(hop, hop.name if len(hops) > 1 else "") for hop in hops]
    timeout = aiohttp.ClientTimeout(total=work.timeout)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
        reading = _Reading(pieces)
        try:
            return await _through(session, named, work, (work.content_type, reading), write)
        except TimeoutError as error:
            raise Broken(f"no answer within {work.timeout:g} s", answered=True) from error
        except (aiohttp.ClientError, OSError) as error:
            if reading.error is not None:
                raise reading.error from None
            raise Broken(str(error) or type(error).__name__, answered=True) from error


class _Reading:
    """The object, and what went wrong with it: aiohttp calls that a fault of the connection."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self.error: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._pieces:
                yield piece
        except Exception as error:
            self.error = error
            raise


async def _through(
    session: aiohttp.ClientSession,
    hops: list[tuple[Hop, str]],
    work: Work,
    given: tuple[str, object],
    write: Callable[[bytes], object],
) -> Answer:
    (hop, name), *others = hops
    kind, body = given
    headers = {"Content-Type": kind} if kind else {}
    if not others and work.accept:
        headers["Accept"] = work.accept
    skipped = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")
    async with session.post(
        f"http://{hop.host}:{hop.port}/invocations", data=body, headers=headers, skip_auto_headers=skipped
    ) as answer:
        if not 200 <= answer.status < 300:
            return Answer(Reply(answer.status, await answer.content.read(EXCERPT)), name)
        if others:
            given = answer.headers.get("Content-Type", ""), answer.content
            return await _through(session, others, work, given, write)
        async for piece in answer.content.iter_chunked(PIECE):
            write(piece)
        return Answer(Reply(answer.status, b""), name)
