"""The seams: what the middle of Clary needs from the outside, each at most six methods and each with a fake in
`clary.testing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from clary.core.containers import (
    LOCAL,
    Capacity,
    Container,
    ContainerSpec,
    ModelData,
    Placed,
    Progress,
    Repository,
    Usage,
)
from clary.core.identities import Role, User
from clary.core.metrics import Point, Selection, Series
from clary.core.resources import Kind, Resource


class Engine(Protocol):
    """Runs containers. Every method is idempotent; containers outlive the engine object and are found again by id."""

    @property
    def name(self) -> str: ...

    async def launch(self, spec: ContainerSpec, progress: Progress) -> Container:
        """Download, unpack, prepare and start; return once the process runs (not: answers).

        Raises LaunchFailure (useless to repeat) or Transient. Cancelling it leaves nothing behind.
        """
        ...

    async def observe(self) -> Sequence[Container]:
        """Give every container there is, whoever launched it, those of an earlier life included."""
        ...

    async def stop(self, id: str, grace: float) -> None:
        """SIGTERM to all of it, SIGKILL after `grace` seconds, then forget it. Logs stay. Unknown ids are fine."""
        ...

    async def logs(self, id: str, lines: int) -> Sequence[str]:
        """Give the last lines that it wrote; empty where it wrote none."""
        ...

    async def capacity(self, instance_type: str = LOCAL) -> Capacity:
        """Give what an instance of a type has here; of one that is not known, what the machine has."""
        ...

    async def close(self) -> None:
        """Let go of everything but the containers: they run on."""
        ...


@runtime_checkable
class KnowsImages(Protocol):
    """What an engine offers beside `Engine` where it can tell which images there are before it runs one."""

    async def knows_image(self, image: str, repository: Repository) -> bool | None:
        """Tell whether an image could be had; None where that cannot be found out now.

        Raises LaunchFailure, and nothing else, where it could not and the engine knows more to say of that.
        """
        ...


@runtime_checkable
class ShowsSockets(Protocol):
    """What an engine offers beside `Engine` where it can see where its containers listen."""

    async def listens(self, id: str) -> Sequence[str]:
        """Give the addresses with their ports, `127.0.0.1:8080`; empty where there are none, or it cannot be seen."""
        ...


@runtime_checkable
class HoldsModels(Protocol):
    """What an engine offers beside `Engine` where it can run multi-model containers (ContainerSpec.models).

    A model is named by what is a safe name of a file. All of it is idempotent.
    """

    async def place(self, id: str, model: str, data: ModelData, role_arn: str | None) -> Placed:
        """Show a model's files to the running container `id`, below /opt/ml/models; what is there stays as it is.

        Raises LaunchFailure (download, unpack, size; useless to repeat) or Transient, of which DiskFull and
        ContainerGone are two.
        """
        ...

    async def discard(self, id: str, model: str) -> None:
        """Remove a model's files. The container must not have it loaded."""
        ...

    async def placed(self, id: str) -> Mapping[str, Placed]:
        """Give the models whose files there are."""
        ...


@runtime_checkable
class Meters(Protocol):
    """What an engine offers beside `Engine` where it can measure its containers."""

    async def observe(self) -> Sequence[Container]:
        """As in `Engine`."""
        ...

    async def usage(self) -> Mapping[str, Usage]:
        """Give what each running container uses, by its id."""
        ...


@dataclass(frozen=True, slots=True)
class ListQuery:
    """A List request, whatever the kind. Times in seconds since the epoch."""

    sort_by: Literal["Name", "CreationTime", "Status"] = "CreationTime"
    descending: bool = True
    limit: int = 10
    name_contains: str | None = None
    created_before: float | None = None
    """Strictly before."""
    created_after: float | None = None
    """At or after."""
    modified_before: float | None = None
    modified_after: float | None = None
    status_equals: str | None = None
    members: tuple[tuple[str, str | None], ...] = ()
    """Members of the spec, of the first level, and the text that each must have; None: it must be absent."""
    after: tuple[str | float, int] | None = None
    """Where the last page ended: the sort value and the row's sequence number."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of resources, and where the next one starts (None on the last)."""

    resources: Sequence[Resource]
    next: tuple[str | float, int] | None = None


class ResourceStore(Protocol):
    """Keeps resources. What a call has returned from survives the death of the process."""

    async def insert(self, resource: Resource, tags: Mapping[str, str]) -> Resource | None:
        """Store a new one with its tags, in one transaction; None where the name is taken. Sets both times."""
        ...

    async def get(self, kind: Kind, name: str) -> Resource | None: ...

    async def list(self, kind: Kind, query: ListQuery) -> Page: ...

    async def set_status(self, resource: Resource, status: Mapping[str, object], *, touch: bool = True) -> bool:
        """Write the status if the stored generation is still `resource.generation`. `touch`: LastModifiedTime moves."""
        ...

    async def mark_deleting(self, kind: Kind, name: str, status: Mapping[str, object]) -> Resource | None:
        """Set `deleting`, write the status, raise the generation; None where there is no such resource."""
        ...

    async def remove(self, kind: Kind, name: str) -> bool:
        """Delete the row and its tags; False where there was none."""
        ...


class SpecStore(Protocol):
    """Changes what is wanted of a resource that is there."""

    async def replace(self, resource: Resource, spec: Mapping[str, object]) -> Resource | None:
        """Write the spec and raise the generation, if it still is `resource.generation`; else None. Sets one time."""
        ...


class TagStore(Protocol):
    """Tags under ARNs, which are compared without regard to case."""

    async def exists(self, arn: str) -> bool: ...

    async def tags(self, arn: str) -> Mapping[str, str]: ...

    async def put_tags(self, arn: str, tags: Mapping[str, str], limit: int) -> Mapping[str, str] | None:
        """Add or overwrite and give all; None, and nothing written, where there would be more than `limit`."""
        ...

    async def remove_tags(self, arn: str, keys: Sequence[str]) -> None: ...

    async def stored_arn(self, arn: str) -> str | None:
        """Give an ARN as it is stored, in whatever case it is asked for; None where no resource has it."""
        ...


class IdentityStore(Protocol):
    """Keeps users and roles. Secrets lie in it in the clear: signatures are verified with them."""

    async def add_user(self, user: User) -> bool:
        """Store a user with its key; False where the name is taken."""
        ...

    async def add_role(self, role: Role) -> bool: ...

    async def remove_user(self, name: str) -> bool: ...

    async def remove_role(self, name: str) -> bool: ...

    async def users(self) -> Sequence[User]: ...

    async def roles(self) -> Sequence[Role]: ...

    async def has_had_roles(self) -> bool:
        """Tell whether there is a role or was one: from the first on, what names a role must name one that is there."""
        ...


class MetricStore(Protocol):
    """Keeps datapoints. What a call has returned from survives the death of the process."""

    async def record(self, points: Sequence[Point], source: str = "", number: int = 0) -> bool:
        """Add points to what there is, in one transaction.

        With a source, its deliveries count from 1 on, and one whose number was there before is left out: False.
        """
        ...

    async def series(self, selection: Selection, after: int, limit: int) -> Sequence[tuple[int, Series]]:
        """Give series with their row numbers, those after row `after`; units of one metric are series of their own."""
        ...

    async def points(self, series: Series, start: int, end: int) -> Sequence[Point]:
        """Give the points from `start` to before `end` in order of time, whatever their units."""
        ...

    async def prune(self, before: int) -> None:
        """Delete points that start before this second, and series that have none any more."""
        ...
