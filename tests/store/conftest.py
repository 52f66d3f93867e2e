"""A store on a real file, with a clock that is told the time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from clary.core.resources import Kind, Partition, Resource
from clary.store.store import Store
from tests.stores import new_store

PARTITION = Partition("123456789012", "us-east-1")


class Clock:
    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def resource(kind: Kind, name: str, **fields: Any) -> Resource:
    return Resource(kind.name, name, PARTITION.arn(kind, name), fields.pop("spec", {}), **fields)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    store = await new_store(tmp_path / "state", clock)
    yield store
    await store.close()
