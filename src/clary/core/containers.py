"""What an engine is given to run, and what it tells of it: values alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from clary.core.resources import ENDPOINT, TRANSFORM_JOB, TRANSFORM_LOGS, component_log_group, log_group

LOCAL = "ml.clary.local"
"""The instance type that is the whole machine."""

Progress = Callable[[str], None]
"""Told in a few words what a launch is doing now: `download 12 of 240 MB`."""

ModelDataForm = Literal["archive", "object", "prefix"]
"""What a model's URL stands for: a model.tar.gz to unpack, one file as it is, or every object below a prefix."""


class ModelData(NamedTuple):
    """Where files come from that a container finds below /opt/ml."""

    url: str
    form: ModelDataForm = "archive"
    channel: str = ""
    """Names an additional source; empty: the model itself."""
    manifest: str = ""
    """The URL of a list of the objects that are wanted of a prefix; empty: all."""
    etag: str = ""
    """The version that the one object must be; empty: any."""
    manifest_etag: str = ""

    @property
    def place(self) -> str:
        """Give the directory below /opt/ml."""
        return f"additional-model-data-sources/{self.channel}" if self.channel else "model"


class ModelPrefix(NamedTuple):
    """Where a multi-model container's models come from: each is an archive, by its key below the URL."""

    url: str
    cached: bool = True
    """Models stay loaded until their memory is needed; otherwise until they have answered (ModelCacheSetting)."""


class Placed(NamedTuple):
    """A model's files, where a container finds them. Size in bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Network:
    """What a container may reach."""

    isolated: bool = False
    """EnableNetworkIsolation: nothing; only the gateway reaches it."""
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    """VpcConfig: the engine's operator says which of its networks these stand for."""


@dataclass(frozen=True, slots=True)
class Repository:
    """How an image is fetched (ImageConfig)."""

    access_mode: Literal["Platform", "Vpc"] = "Platform"
    credentials_provider_arn: str | None = None
    """A Lambda function that gives user name and password for one pull."""

    @classmethod
    def of(cls, config: Mapping[str, Any] | None) -> Repository:
        """Read a container's ImageConfig."""
        given = config or {}
        auth = given.get("RepositoryAuthConfig") or {}
        return cls(given.get("RepositoryAccessMode", "Platform"), auth.get("RepositoryCredentialsProviderArn"))


@dataclass(frozen=True, slots=True)
class Share:
    """What a container gets of its instance, where others run beside it. Memory in bytes."""

    cpus: float
    memory: int
    devices: tuple[int, ...] = ()
    """The numbers of the instance's accelerators that are its own."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container to run. Equal ids mean the same container: launching twice is launching once."""

    id: str
    """Chosen by the planner, unique on the engine, safe as a file name."""
    endpoint: str
    variant: str
    instance_id: str
    """Looks like EC2's (`i-` and 17 hexadecimal digits). The containers of a pipeline share it."""
    image: str
    environment: Mapping[str, str] = field(default_factory=dict)
    """As in CreateModel. The engine adds the contract's own variables."""
    model_data: tuple[ModelData, ...] = ()
    """What is to be downloaded; without one for the model itself, /opt/ml/model is empty."""
    models: ModelPrefix | None = None
    """It is a multi-model container, and its models are placed while it runs."""
    instance_type: str = "ml.clary.local"
    download_timeout: float = 3600.0
    """Seconds for download and unpacking together (ModelDataDownloadTimeoutInSeconds)."""
    deployment: str = ""
    """Fingerprint of what it was launched from; a container of another deployment is stale."""
    role_arn: str | None = None
    """As whom its data is read, and whose temporary credentials it gets unless it is isolated; None: nobody's."""
    hostname: str = ""
    """Its name in a pipeline (ContainerHostname, or `container-N`); empty for a model of one container."""
    resolved_image: str | None = None
    """What an earlier launch resolved the image to: it stays pinned to that. None: resolve it now."""
    repository: Repository = Repository()
    network: Network = Network()
    component: str = ""
    """The inference component that it is a copy of."""
    share: Share | None = None
    """None: all that its instance has."""
    kind: str = ENDPOINT.name
    """The kind of resource that it runs for, whose name is `endpoint`."""
    since: int = 0
    """When the transform job was created, in seconds since the epoch: a part of its log streams' names."""

    @property
    def takes_files(self) -> bool:
        """Tell whether models or adapters are placed for it below /opt/ml/models while it runs."""
        return self.models is not None or bool(self.component)

    @property
    def log_group(self) -> str:
        if self.kind == TRANSFORM_JOB.name:
            return TRANSFORM_LOGS
        return component_log_group(self.component) if self.component else log_group(self.endpoint)

    @property
    def log_stream(self) -> str:
        """Give the name in AWS's form, then what tells containers of an instance apart.

        `<variant>/<instance id>` of an endpoint, `<job>/<instance id>-<epoch>` of a transform job; then its name in a
        pipeline, and the container's id where copies of components share the instance.
        """
        place = (self.variant, self.instance_id)
        if self.kind == TRANSFORM_JOB.name:
            place = (self.endpoint, f"{self.instance_id}-{self.since}")
        return "/".join(filter(None, (*place, self.id if self.component else self.hostname)))


@dataclass(frozen=True, slots=True)
class Container:
    """A container that the engine knows: running, or exited and not yet stopped (that is, cleaned up)."""

    id: str
    endpoint: str
    variant: str
    instance_id: str
    deployment: str
    phase: Literal["running", "exited"]
    host: str
    port: int
    started_at: float
    pid: int | None = None
    image: str = ""
    """As specified."""
    resolved_image: str = ""
    """What it was resolved to; a digest where the engine has digests."""
    exit_reason: str | None = None
    """`exited with 3`, `killed by SIGKILL`, `killed for memory (limit 8 GiB)`; None while it runs."""
    exited_at: float | None = None
    kind: str = ENDPOINT.name
    """The kind of resource that it runs for."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What an instance has. Memory in bytes."""

    cpus: float
    memory: int
    notes: tuple[str, ...] = ()
    """What this machine cannot enforce, as sentences for `clary doctor` and the log."""
    accelerators: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container has used. Sizes in bytes."""

    cpu_seconds: float
    """Since its start."""
    memory: int
    memory_limit: int
    disk_percent: float
    """How full the disk is that it writes to."""
