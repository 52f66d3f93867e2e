"""Blocks of loopback ports: one for each container, so that neither its port nor its safe range meets another's."""

from __future__ import annotations

import random
import socket
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
        self._taken: set[int] = set()

    def take(self) -> PortBlock:
        """Give a block of which nobody listens on the first port. Raises Transient when there is none."""
        for port in self._blocks:
            if port not in self._taken and _is_free(port):
                self._taken.add(port)
                return PortBlock(port)
        raise Transient(f"no free port between {FIRST} and {LAST}", retry_after=10.0)

    def keep(self, port: int) -> None:
        """Count a block as taken: it belongs to a container of an earlier life."""
        self._taken.add(port)

    def give_back(self, port: int) -> None:
        self._taken.discard(port)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
