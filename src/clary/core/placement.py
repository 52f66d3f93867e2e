"""Which copy of which model runs on which instance: `place(nodes, there, wanted)`.

What runs stays where it is: a copy is only ever put somewhere, never taken away, so placing costs no more moves than
there are copies without a place. Each is put where it fits entirely, by CPU, memory and accelerators at once; what fits
nowhere is left over, and the caller says what comes of that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Strategy = Literal["SPREAD", "BINPACK"]

_DUST = 1e-9
"""What sums of fractions may be off: ten tenths of a core are a core."""


@dataclass(frozen=True, slots=True)
class Compute:
    """An amount of what an instance has and a copy needs. Memory in bytes."""

    cpus: float = 0.0
    memory: int = 0
    accelerators: float = 0.0

    def __add__(self, other: Compute) -> Compute:
        return Compute(self.cpus + other.cpus, self.memory + other.memory, self.accelerators + other.accelerators)

    def __sub__(self, other: Compute) -> Compute:
        return Compute(self.cpus - other.cpus, self.memory - other.memory, self.accelerators - other.accelerators)

    def fits(self, room: Compute) -> bool:
        """Tell whether there is room for this."""
        return (
            self.cpus <= room.cpus + _DUST
            and self.memory <= room.memory
            and self.accelerators <= room.accelerators + _DUST
        )

    def share(self, whole: Compute) -> float:
        """Give how much of the whole this is, by whatever there is least of; 1 is all of it."""
        pairs = (
            (self.cpus, whole.cpus),
            (float(self.memory), float(whole.memory)),
            (self.accelerators, whole.accelerators),
        )
        return max((part / all_of_it for part, all_of_it in pairs if all_of_it > 0), default=0.0)


@dataclass(frozen=True, slots=True)
class Node:
    """An instance with room for copies."""

    id: str
    capacity: Compute


@dataclass(frozen=True, slots=True)
class Item:
    """One copy of a component, to be put on an instance."""

    id: str
    group: str
    """Its component: copies of one are spread, or not."""
    needs: Compute
    strategy: Strategy = "SPREAD"


def used(there: Iterable[tuple[Item, str]]) -> dict[str, Compute]:
    """Give what is taken of each node."""
    taken: defaultdict[str, Compute] = defaultdict(Compute)
    for item, node in there:
        taken[node] = taken[node] + item.needs
    return dict(taken)


def place(nodes: Sequence[Node], there: Sequence[tuple[Item, str]], wanted: Sequence[Item]) -> Mapping[str, str]:
    """Give a node's id for each wanted copy that fits somewhere, in the order in which they are wanted.

    `there` is what takes room already, by node; it may be on nodes that are none any more. SPREAD puts a copy where
    fewest of its component are, and of those where most is free; BINPACK where least is free.
    """
    taken = used(there)
    siblings: defaultdict[tuple[str, str], int] = defaultdict(int)
    for item, node_id in there:
        siblings[item.group, node_id] += 1
    found: dict[str, str] = {}
    for item in wanted:
        fitting = [node for node in nodes if item.needs.fits(node.capacity - taken.get(node.id, Compute()))]
        if not fitting:
            continue

        def rank(number: int, item: Item = item, fitting: Sequence[Node] = fitting) -> tuple[float, float, int]:
            node = fitting[number]
            filled = (taken.get(node.id, Compute()) + item.needs).share(node.capacity)
            return (
                (siblings[item.group, node.id], filled, number) if item.strategy == "SPREAD" else (0, -filled, number)
            )

        chosen = fitting[min(range(len(fitting)), key=rank)]
        found[item.id] = chosen.id
        taken[chosen.id] = taken.get(chosen.id, Compute()) + item.needs
        siblings[item.group, chosen.id] += 1
    return found


def surplus(copies: Sequence[tuple[Item, str]], number: int) -> list[Item]:
    """Choose which of a component's copies to give up: of those that are spread from where most of them are, of those
    that are packed from where fewest are, so that an instance comes free; among equals the last ones.
    """
    left = list(copies)
    chosen: list[Item] = []
    for _ in range(min(number, len(left))):
        crowd: defaultdict[str, int] = defaultdict(int)
        for _, node in left:
            crowd[node] += 1
        spread = left[0][0].strategy == "SPREAD"
        at = max(range(len(left)), key=lambda i: (crowd[left[i][1]] if spread else -crowd[left[i][1]], i))
        chosen.append(left.pop(at)[0])
    return chosen
