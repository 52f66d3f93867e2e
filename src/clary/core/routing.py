"""Where an invocation goes: an immutable table, and one function that picks from it.

The control plane makes a new table whenever what is ready changes; gateways swap it in by reference and go on with
the last one while the control plane is away. As JSON it is what travels between the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict


@dataclass(frozen=True, slots=True)
class Target:
    """One container that answers: `id` is the container's, `name` what ModelError calls it (`primary`)."""

    id: str
    host: str
    port: int
    name: str = "primary"


@dataclass(frozen=True, slots=True)
class VariantRoute:
    """A production variant. Only what is ready has targets; weight 0 gets targeted calls alone."""

    name: str
    weight: float
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class EndpointRoute:
    """An endpoint that exists, servable or not yet."""

    name: str
    status: str
    variants: tuple[VariantRoute, ...]


class VariantDocument(TypedDict):
    """A variant as JSON; a target is [id, host, port, name]."""

    name: str
    weight: float
    targets: list[tuple[str, str, int, str]]


class RouteDocument(TypedDict):
    """A route as JSON."""

    status: str
    variants: list[VariantDocument]


class TableDocument(TypedDict):
    """A table as JSON."""

    revision: int
    endpoints: dict[str, RouteDocument]


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Every endpoint by its name, at one revision."""

    revision: int
    endpoints: Mapping[str, EndpointRoute]

    def to_json(self) -> TableDocument:
        """Give the table as plain JSON values."""
        return {
            "revision": self.revision,
            "endpoints": {
                name: {
                    "status": route.status,
                    "variants": [
                        {
                            "name": variant.name,
                            "weight": variant.weight,
                            "targets": [(t.id, t.host, t.port, t.name) for t in variant.targets],
                        }
                        for variant in route.variants
                    ],
                }
                for name, route in self.endpoints.items()
            },
        }

    @classmethod
    def from_json(cls, document: TableDocument) -> RouteTable:
        """Read what `to_json` gave. Raises KeyError, TypeError or AttributeError for anything else."""
        endpoints = {
            name: EndpointRoute(
                name,
                route["status"],
                tuple(
                    VariantRoute(v["name"], v["weight"], tuple(Target(*target) for target in v["targets"]))
                    for v in route["variants"]
                ),
            )
            for name, route in document["endpoints"].items()
        }
        return cls(document["revision"], endpoints)


def pick(
    route: EndpointRoute, wanted: str | None, chance: float, load: Mapping[str, int]
) -> tuple[VariantRoute, Target] | None:
    """Choose a variant, by its weight or by name, and in it the target with the fewest requests under way.

    `chance` is a number in [0, 1) that decides between variants, and between targets that are equally busy; `load`
    counts requests by target id. None where nothing is ready: only variants with a ready target take part, so traffic
    moves away from one that is down.
    """
    if wanted is not None:
        ready = [variant for variant in route.variants if variant.name == wanted and variant.targets]
        return (ready[0], _least_loaded(ready[0].targets, chance, load)) if ready else None
    ready = [variant for variant in route.variants if variant.targets and variant.weight > 0]
    if not ready:
        return None
    if len(ready) == 1:  # nearly every endpoint, and this runs for each invocation
        return ready[0], _least_loaded(ready[0].targets, chance, load)
    point = chance * sum(variant.weight for variant in ready)
    chosen = ready[-1]
    for variant in ready:
        if point < variant.weight:
            chosen = variant
            break
        point -= variant.weight
    # What is left of `chance` is spread evenly over the chosen variant's share: it decides once more.
    return chosen, _least_loaded(chosen.targets, point / chosen.weight % 1.0, load)


def _least_loaded(targets: tuple[Target, ...], chance: float, load: Mapping[str, int]) -> Target:
    if len(targets) == 1:
        return targets[0]
    first = int(chance * len(targets))
    return min(targets[first:] + targets[:first], key=lambda target: load.get(target.id, 0))
