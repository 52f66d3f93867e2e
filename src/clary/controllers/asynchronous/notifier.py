"""Sends the notifications that wait in the store, each at least once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from uuid import NAMESPACE_OID, uuid5

from clary.controllers.asynchronous.publishers import Publisher
from clary.core.notification import greetings
from clary.core.queues import Outbox, Unsent
from clary.core.routing import AsyncInference
from clary.errors import Fatal, Transient
from clary.telemetry import logger

AT_ONCE = 16
"""Notifications that are on their way."""
PAGE = 200
RETRY = 5.0
"""Seconds before what could not be sent is tried again."""
PATIENCE = 3600.0
"""Seconds after which a notification that cannot be sent is given up."""
IDLE = 30.0
"""Seconds between looks when nobody says that there is something."""
FORGET = 600.0
"""Seconds for which ended requests are known: far longer than anybody tries to hand one over again."""


class Notifier:
    """Publishes what waits. `failed` is told endpoint and variant of what is given up."""

    def __init__(self, outbox: Outbox, publisher: Publisher, failed: Callable[[str, str], None]) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._failed = failed
        self._stirred = asyncio.Event()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._waits, self._trouble = 0, ""
        """How many could not be sent when that was tried last, and why one of them."""
        self._log = logger("notifications")

    def notify(self) -> None:
        """Look soon: something may wait."""
        self._stirred.set()

    async def greet(self, endpoint: str, config: AsyncInference) -> None:
        """Have the topics of a new endpoint told that there will be something."""
        try:
            await self._outbox.post(greetings(endpoint, config))
        except Exception:  # nobody depends on it
            self._log.exception("topics are not greeted", endpoint=endpoint)
        self.notify()

    async def run(self) -> None:
        """Send for ever."""
        while True:
            self._stirred.clear()
            try:
                left = await self.send()
                await self._outbox.forget(time.time() - FORGET)
            except Exception:  # the store, most likely
                self._log.exception("notifications could not be looked at")
                left = True
            if left:
                await asyncio.sleep(RETRY)
                continue
            try:
                async with asyncio.timeout(IDLE):
                    await self._stirred.wait()
            except TimeoutError:
                continue

    async def send(self) -> bool:
        """Try everything that waits once; tell whether anything is left."""
        after, left, waits = 0, False, self._waits
        self._waits = 0
        while page := await self._outbox.unsent(after, PAGE):
            after = page[-1].number
            done = await asyncio.gather(*(self._send(each) for each in page))
            if gone := [each.number for each, is_done in zip(page, done, strict=True) if is_done]:
                await self._outbox.sent(gone)
            left = left or not all(done)
        if self._waits != waits and self._waits:
            self._log.warning("notifications wait", count=self._waits, reason=self._trouble)
        return left

    async def _send(self, unsent: Unsent) -> bool:
        """Publish one; tell whether it is done with, for good or ill."""
        notification = unsent.notification
        try:
            async with self._places:
                await self._publisher.publish(notification.topic, json.dumps(notification.message), _id(unsent))
            return True
        except Transient as trouble:
            if time.time() - unsent.since < PATIENCE:
                self._waits, self._trouble = self._waits + 1, trouble.message
                return False
            reason = trouble.message
        except Fatal as error:
            reason = error.message
        self._log.error("a notification is given up", topic=notification.topic, reason=reason)
        self._failed(notification.endpoint, notification.variant)
        return True


def _id(unsent: Unsent) -> str:
    """Give the same each time that it is tried, by which a receiver knows what it has had already."""
    return str(uuid5(NAMESPACE_OID, f"{unsent.number} {unsent.since} {unsent.notification.topic}"))
