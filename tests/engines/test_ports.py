"""Blocks of ports: no two containers of one machine have the same, whichever Clary they are of."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from clary.engines.ports import FIRST, LAST, WIDTH, Ports
from clary.errors import Transient


@pytest.fixture
def ports() -> Iterator[Ports]:
    made = Ports("seed")
    yield made
    made.close()


def test_two_clarys_that_begin_in_the_same_place_take_different_blocks(ports: Ports) -> None:
    other = Ports("seed")
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


def test_blocks_come_to_an_end() -> None:
    ports = Ports("seed")
    try:
        for port in range(FIRST, LAST, WIDTH):
            ports.keep(port)
        with pytest.raises(Transient, match="no free port"):
            ports.take()
    finally:
        ports.close()
