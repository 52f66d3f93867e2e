"""Asynchronous inference in the control plane: what it is built from."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from clary.api.asynchronous import Intake
from clary.api.cloudwatch.ledger import Ledger
from clary.api.identities import Identities
from clary.controllers.asynchronous.datalog import DataLog
from clary.controllers.asynchronous.delivery import Delivery
from clary.controllers.asynchronous.dispatcher import Dispatcher, Surroundings
from clary.controllers.asynchronous.notifier import Notifier
from clary.controllers.asynchronous.numbers import Numbers
from clary.controllers.asynchronous.publishers import File, Publisher, Sns, Webhook
from clary.controllers.desired import desired
from clary.controllers.routes import Routes
from clary.core.asynchronous import AsyncRequest
from clary.core.queues import Bound
from clary.core.resources import ENDPOINT
from clary.logs.folder import LogFolder
from clary.server.parts import objects
from clary.settings import MIB, Settings
from clary.store.store import Store


class Asynchronous:
    """Takes requests, works at them, and says what came of them."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        routes: Routes,
        identities: Identities,
        ledger: Ledger,
        logs: LogFolder,
    ) -> None:
        self._store = store
        self._numbers = Numbers(ledger.record)
        self._delivery = Delivery(objects(settings), identities.refusal, settings.async_payload * MIB)
        self._notifier = Notifier(store.notifications, _publisher(settings), self._numbers.failed_notification)
        self._log = DataLog(logs)
        around = Surroundings(self._gone, self._numbers, self._log, self._notifier, settings.region)
        self._dispatcher = Dispatcher(store.async_requests, routes, self._delivery, around)
        bound = Bound(settings.async_queue, settings.async_queue_size * MIB)
        self.intake = Intake(store.async_requests, bound, self._dispatcher.notify)

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """Give what goes on for as long as the control plane lives."""
        return [self._dispatcher.run(), self._notifier.run(), self._numbers.run(), self._log.run()]

    async def finish(self) -> None:
        """Write down what was counted, and let go of all connections."""
        await self._numbers.tell()
        await self._log.write()
        await self._delivery.close()

    async def _gone(self, request: AsyncRequest) -> bool:
        resource = await self._store.get(ENDPOINT, request.endpoint)
        if resource is None or resource.deleting or resource.status.get("EndpointStatus") == "Failed":
            return True
        config = desired(resource).asynchronous
        return config is None or config.queue != request.queue


def _publisher(settings: Settings) -> Publisher:
    if settings.sns_endpoint:
        own = (settings.access_key_id, settings.secret_access_key)
        given = (settings.sns_access_key_id, settings.sns_secret_access_key)
        return Sns(settings.sns_endpoint, *(given if settings.sns_access_key_id else own))
    if settings.notifications.startswith(("http://", "https://")):
        return Webhook(settings.notifications)
    given_file = Path(settings.notifications).expanduser() if settings.notifications else None
    return File(given_file or settings.data / "notifications.jsonl")
