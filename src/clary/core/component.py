"""The nouns of inference components: what is wanted of one, what is remembered of it. `core.rollout` and `core.packing`
have the verbs.

An update makes a new revision of a component, whose copies take the place of the old one's. What is remembered is kept
in the component's status, in members that begin with an underscore and never leave the store.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import Any, Literal, cast

from clary.core.containers import ContainerSpec, ModelData, Network, Share
from clary.core.deployment import DOWNLOAD_TIMEOUT, STARTUP_TIMEOUT, ContainerTemplate
from clary.core.placement import Compute, Item, Strategy

ENDPOINT_KEY, BASE, REVISION, REVISIONS = "_Endpoint", "_Base", "_Revision", "_Revisions"
"""Private members of the spec, which the API writes and the controller reads: the endpoint's name in lower case, and
an adapter's base, to be found by; the number of the revision that is wanted; and each revision's definition by its
number as a text, `{"Specification": {...}, "Model": {...}, "CopyCount": n}`."""


@dataclass(frozen=True, slots=True)
class Size:
    """Some of a component's copies (InferenceComponentCapacitySize)."""

    kind: Literal["COPY_COUNT", "CAPACITY_PERCENT"] = "CAPACITY_PERCENT"
    value: int = 100

    def of(self, copies: int) -> int:
        """Give a number of copies, one at least; percentages are rounded down."""
        number = self.value if self.kind == "COPY_COUNT" else math.floor(copies * self.value / 100)
        return max(1, number)


@dataclass(frozen=True, slots=True)
class Rolling:
    """How an update proceeds (RollingUpdatePolicy). Times in seconds."""

    batch: Size = Size()
    """At most so many new copies at a time: fewer where there is no room for more."""
    wait: float = 0.0
    """Between the readiness of a batch and the end of the old copies that it replaces."""
    limit: float | None = None
    """For the whole update; beyond it is rolled back."""
    rollback: Size = Size()


@dataclass(frozen=True, slots=True)
class Revision:
    """What each copy runs, and how many there are to be."""

    number: int
    copies: int
    template: ContainerTemplate
    needs: Compute
    """What is set aside for a copy."""
    memory_limit: int | None = None
    """Bytes that a copy may use (MaxMemoryRequiredInMb); None: what the instance has."""
    strategy: Strategy = "SPREAD"
    startup_timeout: float = STARTUP_TIMEOUT
    download_timeout: float = DOWNLOAD_TIMEOUT
    role_arn: str | None = None
    network: Network = Network()
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Adapter:
    """What is loaded into each copy of the base."""

    data: ModelData
    role_arn: str | None = None
    timeout: float = DOWNLOAD_TIMEOUT
    """Seconds for the download, and as many for the container to load it."""


@dataclass(frozen=True, slots=True)
class Component:
    """What was asked for, and the status as it was last written."""

    name: str
    arn: str
    created_at: float
    generation: int
    """Counts what was asked for: a change is settled when its generation is."""
    endpoint: str
    variant: str
    status: Mapping[str, object]
    revisions: Mapping[int, Revision] = field(default_factory=dict)
    """The one that is wanted, and the one that serves until it does."""
    wanted: int = 0
    rolling: Rolling = Rolling()
    deleting: bool = False
    refusal: str | None = None
    """A sentence that says why Clary cannot run this at all."""
    base: str = ""
    """Of an adapter, the component into whose copies it is loaded; it has `adapters` for `revisions`."""
    adapters: Mapping[int, Adapter] = field(default_factory=dict)

    def id_of(self, copy: Copy) -> str:
        """Give the id of a copy's container."""
        # The creation time keeps a component that is made anew under the same name from adopting the old containers.
        seed = f"{self.arn}\n{self.created_at:.6f}\n{copy.revision}\n{copy.number}"
        return f"{self.name[:40].lower()}-{hashlib.sha256(seed.encode()).hexdigest()[:17]}"

    def item(self, copy: Copy) -> Item:
        """Give a copy as placement knows it."""
        revision = self.revisions.get(copy.revision)
        return Item(self.id_of(copy), self.name, copy.needs, revision.strategy if revision else "SPREAD")


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy of a revision, on an instance."""

    revision: int
    number: int
    needs: Compute
    instance: int = -1
    """Its number in the variant; -1: none yet."""
    devices: tuple[int, ...] = ()
    """The numbers of the instance's accelerators that are its own."""
    retired: bool = False
    """It is being stopped for good, and takes room until it is gone."""


@dataclass(frozen=True, slots=True)
class Bench:
    """The instances of a variant that copies are put on."""

    variant: str
    instance_type: str
    capacity: Compute
    instance_ids: Mapping[int, str]
    """By their numbers: those that there may be."""

    def spec(self, component: Component, revision: Revision, copy: Copy) -> ContainerSpec:
        """Give the container of a copy."""
        template, needs = revision.template, revision.needs
        return ContainerSpec(
            id=component.id_of(copy),
            endpoint=component.endpoint,
            variant=self.variant,
            component=component.name,
            instance_id=self.instance_ids[copy.instance],
            image=template.image,
            environment=template.environment,
            model_data=template.model_data,
            repository=template.repository,
            network=revision.network,
            role_arn=revision.role_arn,
            instance_type=self.instance_type,
            share=Share(
                needs.cpus or self.capacity.cpus,
                revision.memory_limit or self.capacity.memory,
                copy.devices,
            ),
            download_timeout=revision.download_timeout,
            deployment=revision.fingerprint,
        )


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered from plan to plan. Times in seconds since the epoch; revisions and generations by number."""

    copies: tuple[Copy, ...] = ()
    serving: int = 0
    """The revision that came into service last; 0: none has."""
    abandoned: int = 0
    """The revision of the last update that failed."""
    settled: int = 0
    """The newest generation of which no more comes, well or not."""
    baked: int = 0
    """Copies of the new revision that have stood their waiting time."""
    baking_since: float | None = None
    began: float | None = None
    """When the update that is under way began."""
    reason: str | None = None
    """FailureReason."""
    images: Mapping[int, tuple[str, float]] = field(default_factory=dict)
    """What each revision's image was resolved to, and when."""
    unproven: bool = False
    """Of an adapter: it came into service while its base had no copies, and none has loaded it since."""

    @classmethod
    def of(cls, status: Mapping[str, object]) -> Memory:
        """Read what `members` gave."""
        given = cast("Mapping[str, Any]", status)
        progress = given.get("_Progress") or {}
        return cls(
            tuple(
                Copy(revision, number, Compute(*needs), instance, tuple(devices), retired)
                for revision, number, needs, instance, devices, retired in given.get("_Copies", ())
            ),
            progress.get("serving", 0),
            progress.get("abandoned", 0),
            progress.get("settled", 0),
            progress.get("baked", 0),
            progress.get("baking_since"),
            progress.get("began"),
            given.get("FailureReason"),
            {int(number): (resolved, at) for number, (resolved, at) in given.get("_Images", {}).items()},
            progress.get("unproven", False),
        )

    def members(self) -> dict[str, object]:
        """Give the members of the status that keep this; values are JSON's own."""
        kept: dict[str, object] = {
            "_Copies": [
                [c.revision, c.number, list(astuple(c.needs)), c.instance, list(c.devices), c.retired]
                for c in self.copies
            ],
            "_Progress": {
                "serving": self.serving,
                "abandoned": self.abandoned,
                "settled": self.settled,
                "baked": self.baked,
                "baking_since": self.baking_since,
                "began": self.began,
                "unproven": self.unproven,
            },
            "_Images": {str(number): list(found) for number, found in self.images.items()},
        }
        return {**kept, "FailureReason": self.reason} if self.reason else kept
