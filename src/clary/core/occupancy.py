"""What is on which instance of an endpoint for inference components, to be shown to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from clary.core.component import Component, Memory
from clary.core.deployment import Desired
from clary.core.describe import ready_before
from clary.core.placement import Compute

State = Literal["ready", "starting", "leaving"]


@dataclass(frozen=True, slots=True)
class Occupant:
    """One copy of a component, with what is set aside for it."""

    component: str
    needs: Compute
    state: State
    id: str = ""
    """Of its container."""


@dataclass(frozen=True, slots=True)
class Occupied:
    """An instance and its copies."""

    id: str
    variant: str
    instance_type: str
    capacity: Compute
    occupants: tuple[Occupant, ...]

    def to_json(self) -> dict[str, object]:
        """Give it as plain JSON values."""
        return {
            "id": self.id,
            "variant": self.variant,
            "instance_type": self.instance_type,
            "capacity": _amounts(self.capacity),
            "occupants": [[each.component, _amounts(each.needs), each.state, each.id] for each in self.occupants],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Occupied:
        """Read what `to_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        occupants = (
            Occupant(str(component), Compute(*needs), cast("State", state), str(id))
            for component, needs, state, id in document["occupants"]
        )
        return cls(
            document["id"],
            document["variant"],
            document["instance_type"],
            Compute(*document["capacity"]),
            tuple(occupants),
        )


def occupancy(
    endpoint: Desired, components: Sequence[Component], capacities: Mapping[str, Compute]
) -> tuple[Occupied, ...]:
    """Give the instances in order, by what was last written of the components; `capacities` are by instance type."""
    found = []
    for variant in endpoint.variants:
        there: dict[int, list[Occupant]] = {
            number: [] for number in range(variant.scaling[0] if variant.scaling else variant.count)
        }
        for component in sorted(components, key=lambda each: (each.created_at, each.name)):
            if component.variant == variant.name:
                for number, occupant in _occupants(component):
                    there.setdefault(number, []).append(occupant)
        found += [
            Occupied(
                endpoint.instance_id(variant.name, number),
                variant.name,
                variant.instance_type,
                capacities[variant.instance_type],
                tuple(occupants),
            )
            for number, occupants in sorted(there.items())
        ]
    return tuple(found)


def _occupants(component: Component) -> list[tuple[int, Occupant]]:
    ready = ready_before(component.status)
    found = []
    for copy in Memory.of(component.status).copies:
        id = component.id_of(copy)
        state: State = "leaving" if copy.retired else "ready" if id in ready else "starting"
        found.append((copy.instance, Occupant(component.name, copy.needs, state, id)))
    return found


def _amounts(amount: Compute) -> list[float]:
    return [amount.cpus, amount.memory, amount.accelerators]
