"""Where an invocation goes: an immutable table, and one function that picks from it.

The control plane makes a new table whenever what is ready changes; gateways swap it in by reference and go on with
the last one while the control plane is away. As JSON it is what travels between the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Every endpoint by its name, at one revision."""

    revision: int
    endpoints: Mapping[str, EndpointRoute]

    def to_json(self) -> dict[str, object]:
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
                            "targets": [[t.id, t.host, t.port, t.name] for t in variant.targets],
                        }
                        for variant in route.variants
                    ],
                }
                for name, route in self.endpoints.items()
            },
        }
