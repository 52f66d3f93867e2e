"""Models: CreateModel and its kin. A model made from a package takes what the package says now; later edits of the
package do not change the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clary.api import definition
from clary.api.crud import Crud, Request, Spec
from clary.api.definition import Container
from clary.api.packages import ModelPackages
from clary.api.world import World
from clary.core.ports import ResourceStore
from clary.core.resources import MODEL, Partition

_RESOLVED = "_Containers"
"""Private member of the spec: what to run, where model packages are part of the definition."""


class Models(Crud):
    """CreateModel, DescribeModel, ListModels, DeleteModel.

    Without a `world` the checks beyond the request are left to the endpoint.
    """

    kind = MODEL

    def __init__(
        self, store: ResourceStore, partition: Partition, packages: ModelPackages, world: World | None = None
    ) -> None:
        super().__init__(store, partition)
        self._packages = packages
        self._world = world

    async def prepare(self, request: Request) -> dict[str, object]:
        """Check the definition; the service fills in each container's Mode and EnableNetworkIsolation."""
        definition.check_sources(request)
        containers = definition.containers(request)
        resolved = [each for container in containers for each in await self._resolved(container)]
        definition.check(request if resolved == containers else deployable({**request, _RESOLVED: resolved}))
        if self._world is not None:
            await self._world.check(resolved, request.get("ExecutionRoleArn", ""))
        spec = _with_defaults(request)
        return spec if resolved == containers else {**spec, _RESOLVED: resolved}

    async def _resolved(self, container: Container) -> Sequence[Container]:
        return await self._packages.deployable(container) if "ModelPackageName" in container else [container]


def deployable(spec: Spec) -> dict[str, Any]:
    """Give a model's definition with its packages replaced by what they say to run."""
    if _RESOLVED not in spec:
        return dict(spec)
    kept = {member: value for member, value in spec.items() if member not in (_RESOLVED, "PrimaryContainer")}
    return {**kept, "Containers": spec[_RESOLVED]}


def _with_defaults(request: Request) -> dict[str, object]:
    spec = {"EnableNetworkIsolation": False, **request}
    if not spec.get("Containers"):
        spec.pop("Containers", None)
        return {**spec, "PrimaryContainer": {"Mode": "SingleModel", **spec["PrimaryContainer"]}}
    return {**spec, "Containers": [{"Mode": "SingleModel", **container} for container in spec["Containers"]]}
