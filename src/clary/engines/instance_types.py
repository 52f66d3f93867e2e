"""What an instance type has, for the limits that a container gets.

AWS's naming is regular: the family says how many GiB there are for each vCPU, the size how many vCPUs. Families that
break the rule in a size have that size in the table. Source: AWS's published instance specifications.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from clary.core.containers import Capacity, ContainerSpec

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container may use. Memory in bytes; `gpus` matters to engines that hand out devices."""

    cpus: float
    memory: int
    gpus: int = 0
    devices: tuple[int, ...] | None = None
    """Which ones; None: any."""


_SIZES = {"medium": 1, "large": 2, "xlarge": 4}

_GIB_PER_CPU = {
    "c4": 1.875, "c5": 2.0, "c5d": 2.0, "c5n": 2.625, "c6g": 2.0, "c6gd": 2.0, "c6gn": 2.0, "c6i": 2.0, "c6id": 2.0,
    "c6in": 2.0, "c7g": 2.0, "c7i": 2.0, "c8g": 2.0,
    "m4": 4.0, "m5": 4.0, "m5d": 4.0, "m6g": 4.0, "m6gd": 4.0, "m6i": 4.0, "m6id": 4.0, "m7g": 4.0, "m7i": 4.0,
    "m8g": 4.0,
    "r5": 8.0, "r5d": 8.0, "r6g": 8.0, "r6gd": 8.0, "r6i": 8.0, "r6id": 8.0, "r7g": 8.0, "r7i": 8.0, "r8g": 8.0,
    "g4dn": 4.0, "g5": 4.0, "g6": 4.0, "g6e": 8.0, "gr6": 8.0, "p2": 15.25, "p3": 7.625, "inf1": 2.0,
}  # fmt: skip

_IRREGULAR = {
    "t2.medium": (2, 4.0), "t2.large": (2, 8.0), "t2.xlarge": (4, 16.0), "t2.2xlarge": (8, 32.0),
    "t3.medium": (2, 4.0), "t3.large": (2, 8.0), "t3.xlarge": (4, 16.0), "t3.2xlarge": (8, 32.0),
    "c4.8xlarge": (36, 60.0), "m4.10xlarge": (40, 160.0),
    "p3dn.24xlarge": (96, 768.0), "p4d.24xlarge": (96, 1152.0), "p4de.24xlarge": (96, 1152.0),
    "p5.48xlarge": (192, 2048.0), "p5e.48xlarge": (192, 2048.0), "p5en.48xlarge": (192, 2048.0),
    "inf1.6xlarge": (24, 48.0), "inf2.xlarge": (4, 16.0), "inf2.8xlarge": (32, 128.0),
    "inf2.24xlarge": (96, 384.0), "inf2.48xlarge": (192, 768.0),
    "trn1.2xlarge": (8, 32.0), "trn1.32xlarge": (128, 512.0),
}  # fmt: skip

_GPUS = {
    "p2.xlarge": 1, "p2.8xlarge": 8, "p2.16xlarge": 16, "p3.2xlarge": 1, "p3.8xlarge": 4, "p3.16xlarge": 8,
    "p3dn.24xlarge": 8, "p4d.24xlarge": 8, "p4de.24xlarge": 8, "p5.48xlarge": 8, "p5e.48xlarge": 8, "p5en.48xlarge": 8,
    "g4dn.12xlarge": 4, "g5.12xlarge": 4, "g5.24xlarge": 4, "g5.48xlarge": 8, "g6.12xlarge": 4, "g6.24xlarge": 4,
    "g6.48xlarge": 8, "g6e.12xlarge": 4, "g6e.24xlarge": 4, "g6e.48xlarge": 8,
}  # fmt: skip
_ONE_GPU = frozenset({"g4dn", "g5", "g6", "g6e", "gr6"})
"""Families of which every size has one, but those of the table."""

_TYPE = re.compile(r"ml\.(?P<family>[a-z0-9]+)\.(?P<size>(?P<times>\d*)(?:xlarge|large|medium))")


def limits(instance_type: str) -> Limits | None:
    """Give what a container on this type may use; None: the whole machine."""
    match = _TYPE.fullmatch(instance_type)
    if match is None:
        return None
    family, size, times = match["family"], match["size"], match["times"]
    if (irregular := _IRREGULAR.get(f"{family}.{size}")) is not None:
        cpus, gib = irregular
    elif family in _GIB_PER_CPU:
        cpus = _SIZES["xlarge"] * int(times) if times else _SIZES[size]
        gib = cpus * _GIB_PER_CPU[family]
    else:
        return None
    gpus = _GPUS.get(f"{family}.{size}", int(family in _ONE_GPU))
    return Limits(float(cpus), int(gib * GIB), gpus)


def bounds(spec: ContainerSpec) -> Limits | None:
    """Give what a container may use: its share of its instance where it has one, else all of it."""
    if spec.share is None:
        return limits(spec.instance_type)
    return Limits(spec.share.cpus, spec.share.memory, len(spec.share.devices), spec.share.devices)


def capacity(machine: Capacity, instance_type: str) -> Capacity:
    """Give what an instance of a type has: what AWS's has, and for a type that is not known what the machine has."""
    found = limits(instance_type)
    return machine if found is None else Capacity(found.cpus, found.memory, machine.notes, found.gpus)
