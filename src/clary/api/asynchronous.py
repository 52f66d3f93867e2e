"""Asynchronous requests that gateways hand over: checked there, kept from here on."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Sequence
from typing import Any

from clary.core.asynchronous import AsyncRequest
from clary.core.queues import AsyncQueue, Bound
from clary.errors import SerializationException


class Intake:
    """Takes requests. `notify` is told of each queue that has more now."""

    def __init__(self, queue: AsyncQueue, bound: Bound, notify: Callable[[str], None]) -> None:
        self._queue = queue
        self._bound = bound
        self._notify = notify

    async def take(self, document: Any) -> Sequence[bool]:
        """Keep a batch; False for each request that there is no room for. Raises SerializationException."""
        try:
            requests = [(AsyncRequest(**request), b64decode(body)) for request, body in document]
        except (TypeError, ValueError) as error:
            raise SerializationException(f"These are no asynchronous requests: {error!r}") from error
        kept = await self._queue.add(requests, self._bound)
        for queue in {request.queue for request, _ in requests}:
            self._notify(queue)
        return kept
