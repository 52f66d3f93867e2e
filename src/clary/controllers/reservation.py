"""The numbers of instances that inference components share: what is set aside on them, and what of it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from clary.core.containers import Usage
from clary.core.metrics import COMPONENTS, INSTANCES, Series, series
from clary.core.occupancy import Occupied

Measured = Mapping[str, tuple[Usage, float | None]]
"""What each container uses, by its id, and how many cores are busy with it; None at the first look."""


def numbers(endpoint: str, instance: Occupied, measured: Measured) -> Iterator[tuple[Series, float]]:
    """Give the values of one instance, in percent."""
    place, capacity = (endpoint, instance.variant), instance.capacity
    taken = [each.needs for each in instance.occupants]
    yield series(INSTANCES, "CPUReservation", *place), _percent(sum(each.cpus for each in taken), capacity.cpus)
    yield series(INSTANCES, "MemoryReservation", *place), _percent(sum(each.memory for each in taken), capacity.memory)
    if capacity.accelerators:
        used = sum(each.accelerators for each in taken)
        yield series(INSTANCES, "GPUReservation", *place), _percent(used, capacity.accelerators)
    found = [(each, *measured[each.id]) for each in instance.occupants if each.id in measured]
    if found:
        memory = sum(usage.memory for _, usage, _ in found)
        yield series(INSTANCES, "MemoryUtilization", *place), _percent(memory, capacity.memory)
    for copy, usage, cores in found:
        memory = copy.needs.memory or capacity.memory
        yield series(COMPONENTS, "MemoryUtilizationNormalized", copy.component), _percent(usage.memory, memory)
        if cores is not None:
            cpus = copy.needs.cpus or capacity.cpus
            yield series(COMPONENTS, "CPUUtilizationNormalized", copy.component), _percent(cores, cpus)


def _percent(part: float, whole: float) -> float:
    return 100.0 * part / whole if whole else 0.0
