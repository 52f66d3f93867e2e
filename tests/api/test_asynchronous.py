"""Requests that gateways hand over, on a real socket and with a real store behind it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from clary.api.asynchronous import Intake
from clary.core.asynchronous import AsyncRequest
from clary.core.queues import Bound
from clary.errors import SerializationException
from clary.store.store import Store
from tests.stores import new_store


class World:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.notified: list[str] = []
        self.intake = Intake(store.async_requests, Bound(2, 1000), self.notified.append)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = await new_store(tmp_path)
    yield World(store)
    await store.close()


def handed_over(id: str, body: bytes = b"", queue: str = "q") -> list[Any]:
    request = AsyncRequest(id, queue, "ep", "mine", 1.0, 2.0, 60.0, f"s3://b/{id}.out", content_type="text/csv")
    return [asdict(request), b64encode(body).decode()]


async def test_a_batch_is_kept_and_its_queues_are_told_of(world: World) -> None:
    batch = [handed_over("a", b"\x00\xff"), handed_over("b"), handed_over("c"), handed_over("d", queue="other")]
    assert list(await world.intake.take(batch)) == [True, True, False, True]
    assert sorted(world.notified) == ["other", "q"]
    found = await world.store.async_requests.waiting("q", 0, 10)
    assert [(each.request.id, each.request.content_type) for each in found] == [("a", "text/csv"), ("b", "text/csv")]
    assert await world.store.async_requests.body("a") == b"\x00\xff"


@pytest.mark.parametrize("document", [None, [1], [[{}, ""]], [[{"id": "a"}, ""]], [["a", "b", "c"]], "ab"], ids=repr)
async def test_what_is_no_batch_is_refused(world: World, document: Any) -> None:
    with pytest.raises(SerializationException):
        await world.intake.take(document)
    assert world.notified == []
