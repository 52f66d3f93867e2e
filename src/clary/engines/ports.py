"""Blocks of loopback ports: one for each container, so that neither its port nor its safe range meets another's."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import sys
from dataclasses import dataclass

from clary.errors import Transient

# Below the range from which Linux takes ports for outgoing connections (32768 and up).
FIRST, LAST, WIDTH = 20_000, 32_000, 50


@dataclass(frozen=True, slots=True)
class PortBlock:
    """The ports from `port` on: it is what the container listens on, the rest is its safe range."""

    port: int

    @property
    def safe_range(self) -> str:
        """As SAGEMAKER_SAFE_PORT_RANGE has it: both ends included."""
        return f"{self.port + 1}-{self.port + WIDTH - 1}"


class Ports:
    """The blocks of one engine. `seed`: two Clarys on a machine begin in different places."""

    def __init__(self, seed: str) -> None:
        self._blocks = list(range(FIRST, LAST, WIDTH))
        random.Random(seed).shuffle(self._blocks)  # noqa: S311 - order, not secrecy
        self._taken: dict[int, int | None] = {}
        """By port, the descriptor that tells the other Clarys of this machine."""

    def take(self) -> PortBlock:
        """Give a block that no Clary has and on whose port nobody listens. Raises Transient when there is none."""
        for port in self._blocks:
            if port in self._taken or not _is_free(port):
                continue
            with contextlib.suppress(_HasIt):  # for a container that does not listen yet
                self._taken[port] = _claim(port)
                return PortBlock(port)
        raise Transient(f"no free port between {FIRST} and {LAST}", retry_after=10.0)

    def keep(self, port: int) -> None:
        """Count a block as taken: it belongs to a container of an earlier life."""
        if port not in self._taken:
            self._taken[port] = None
            with contextlib.suppress(_HasIt):  # since we were away
                self._taken[port] = _claim(port)

    def give_back(self, port: int) -> None:
        if (claim := self._taken.pop(port, None)) is not None:
            os.close(claim)

    def close(self) -> None:
        """Give all back; the containers that go on are known by their ports, where they listen."""
        for port in list(self._taken):
            self.give_back(port)


class _HasIt(Exception):
    """Another Clary has the block."""


def _claim(port: int) -> int | None:
    """Hold a name that one process of a network namespace can have, like a port. Raises _HasIt."""
    if sys.platform != "linux":
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
        try:
            claim.bind(f"\0clary-port-{port}")
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _HasIt from error
            raise
        return claim.detach()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
