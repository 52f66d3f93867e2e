"""Blocks of ports: no two containers of one machine have the same, whichever Clary they are of."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator

import pytest

from clary.engines import ports as module
from clary.engines.ports import WIDTH, Ports
from clary.errors import Transient

FIRST, LAST = 10_000, 16_000
"""Not where Clarys have theirs: those of other tests neither take a block in between nor lack one."""


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST", FIRST)
    monkeypatch.setattr(module, "LAST", LAST)


@pytest.fixture
def seed() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def ports(seed: str) -> Iterator[Ports]:
    made = Ports(seed)
    yield made
    made.close()


def test_two_clarys_that_begin_in_the_same_place_take_different_blocks(ports: Ports, seed: str) -> None:
    other = Ports(seed)
    try:
        mine, theirs = ports.take(), other.take()
        assert mine != theirs
        other.give_back(theirs.port)
        assert ports.take() == theirs
    finally:
        other.close()


def test_where_somebody_listens_is_no_block(ports: Ports) -> None:
    first = ports.take()
    ports.give_back(first.port)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", first.port))
        assert ports.take() != first


def test_a_container_of_an_earlier_life_keeps_its_block(ports: Ports) -> None:
    expected = ports.take()
    ports.close()
    ports.keep(expected.port)
    assert ports.take() != expected


def test_blocks_come_to_an_end(ports: Ports) -> None:
    for port in range(FIRST, LAST, WIDTH):
        ports.keep(port)
    with pytest.raises(Transient, match="no free port between 10000 and 16000"):
        ports.take()
