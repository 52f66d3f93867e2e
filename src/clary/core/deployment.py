"""The nouns of the endpoint planner: what is wanted, what is seen, what to do. `core.endpoint` has the verbs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from clary.core.containers import Container, ContainerSpec, ModelData, ModelPrefix, Network, Repository
from clary.core.failure import Failure
from clary.core.routing import AsyncInference, DataCapture, EndpointRoute, Strategy

STARTUP_TIMEOUT = 480.0
"""Seconds from a container's start to its first good ping (ContainerStartupHealthCheckTimeoutInSeconds)."""
DOWNLOAD_TIMEOUT = 3600.0
"""Seconds for model data (ModelDataDownloadTimeoutInSeconds)."""
CALM = 300.0
"""Seconds of readiness after which earlier failures are forgotten."""

GraceKind = Literal["replace", "delete"]
Answer = Literal["ok", "refused", "closed", "status", "timeout"]
"""What GET /ping came to: 200, no connection, no response, another status, nothing in time."""


@dataclass(frozen=True, slots=True)
class ContainerTemplate:
    """One container of a model, as CreateModel describes it."""

    image: str
    environment: Mapping[str, str] = field(default_factory=dict)
    model_data: tuple[ModelData, ...] = ()
    models: ModelPrefix | None = None
    """It is a multi-model container."""
    hostname: str = ""
    """Its name in a pipeline; empty where it is the only one."""
    repository: Repository = Repository()

    @property
    def name(self) -> str:
        """Give what errors call it."""
        return self.hostname or "primary"


@dataclass(frozen=True, slots=True)
class Variant:
    """A production variant: what runs on each of its instances, how many there are, and their share of the traffic."""

    name: str
    containers: tuple[ContainerTemplate, ...]
    """In the order of the pipeline; one for most models."""
    direct: bool = False
    """Each container is invoked by its name, instead of one after the other."""
    instance_type: str = "ml.clary.local"
    count: int = 1
    weight: float = 1.0
    startup_timeout: float = STARTUP_TIMEOUT
    download_timeout: float = DOWNLOAD_TIMEOUT
    role_arn: str | None = None
    network: Network = Network()
    strategy: Strategy = "LEAST_OUTSTANDING_REQUESTS"
    shadow: bool = False
    """It gets copies of requests; its answers go nowhere."""
    scaling: tuple[int, int] | None = None
    """The fewest and the most instances that there may be (ManagedInstanceScaling); None: `count` of them."""

    @property
    def packed(self) -> bool:
        """Tell whether it has no model of its own: inference components share its instances."""
        return not self.containers


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one container: of which variant, which of its templates, on which instance."""

    variant: Variant
    template: ContainerTemplate
    spec: ContainerSpec


@dataclass(frozen=True, slots=True)
class Desired:
    """What was asked for, in the planner's words."""

    name: str
    arn: str
    config_name: str
    created_at: float
    deployment: str = ""
    """Fingerprint: containers of another one are stale."""
    variants: tuple[Variant, ...] = ()
    capture: DataCapture | None = None
    asynchronous: AsyncInference | None = None
    deleting: bool = False
    refusal: str | None = None
    """A sentence that says why Clary cannot run this at all."""

    @property
    def packed(self) -> bool:
        """Tell whether it is an endpoint for inference components."""
        return any(variant.packed for variant in self.variants)

    def slots(self) -> Iterator[Slot]:
        """Give each container that there should be."""
        for variant in self.variants:
            for number in range(variant.count):
                for template in variant.containers:
                    yield Slot(variant, template, self._container(variant, number, template))

    def instance_id(self, variant: str, number: int) -> str:
        """Give the id of a variant's instance."""
        return f"i-{hashlib.sha256(self._seed(variant, number).encode()).hexdigest()[:17]}"

    def _seed(self, variant: str, number: int) -> str:
        # The creation time keeps an endpoint that is made anew under the same name from adopting the old containers.
        return f"{self.arn}\n{self.created_at:.6f}\n{variant}\n{number}"

    def _container(self, variant: Variant, number: int, template: ContainerTemplate) -> ContainerSpec:
        seed = self._seed(variant.name, number)
        instance = hashlib.sha256(seed.encode()).hexdigest()[:17]
        unique = hashlib.sha256(f"{seed}\n{template.hostname}".encode()).hexdigest()[:17]
        return ContainerSpec(
            id=f"{self.name[:40].lower()}-{unique if template.hostname else instance}",
            endpoint=self.name,
            variant=variant.name,
            instance_id=f"i-{instance}",
            image=template.image,
            environment=template.environment,
            model_data=template.model_data,
            models=template.models,
            hostname=template.hostname,
            repository=template.repository,
            network=variant.network,
            role_arn=variant.role_arn,
            instance_type=variant.instance_type,
            download_timeout=variant.download_timeout,
            deployment=self.deployment,
        )


@dataclass(frozen=True, slots=True)
class Ping:
    """The newest answer to GET /ping, and how many of the last ones in a row were bad."""

    answer: Answer
    status: int = 200
    failures: int = 0

    @property
    def words(self) -> str:
        return {
            "ok": "ping answered 200",
            "refused": "port never opened",
            "closed": "ping got no answer: the connection was closed",
            "status": f"ping answered {self.status}",
            "timeout": "ping too slow: no answer within 2 s",
        }[self.answer]


@dataclass(frozen=True, slots=True)
class Launching:
    """The engine is at work on it."""

    since: float
    progress: str = ""


@dataclass(frozen=True, slots=True)
class Present:
    """The engine has it, running or exited."""

    container: Container
    ping: Ping | None = None
    log: tuple[str, ...] = ()
    listens: tuple[str, ...] = ()
    """Where its port does not answer: what it listens on instead, as far as it is known."""

    @property
    def is_unheard(self) -> bool:
        """Nothing says a word at the port where it should answer."""
        return self.ping is not None and self.ping.answer in ("refused", "closed")

    @property
    def words(self) -> str:
        """What the pings say."""
        if self.ping is None:
            return "not pinged yet"
        elsewhere = f" (it listens on {', '.join(self.listens)})" if self.is_unheard and self.listens else ""
        return self.ping.words + elsewhere


@dataclass(frozen=True, slots=True)
class LaunchFailed:
    """The engine could not start it."""

    at: float
    step: str
    message: str
    transient: bool = False
    log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stopping:
    """It is being stopped and cleaned up."""

    grace: GraceKind


Sighting = Launching | Present | LaunchFailed | Stopping


@dataclass(frozen=True, slots=True)
class Attempts:
    """The failures of one container that still count, and the launch that is under way."""

    failures: int = 0
    first_at: float = 0.0
    last: Failure | None = None
    ready_since: float | None = None
    begun: int = 0
    """How often the launch was begun: once more whenever the control plane that was at it has died."""
    begun_at: float = 0.0
    """When it was for the first time."""

    def beginning(self, now: float) -> Attempts:
        """Count that the launch is begun."""
        return replace(self, begun=self.begun + 1, begun_at=self.begun_at if self.begun else now)

    def launched(self) -> Attempts:
        """Forget the launch: it is over."""
        return replace(self, begun=0, begun_at=0.0) if self.begun else self

    def after(self, failure: Failure) -> Attempts:
        """Count a failure, once for each run, and afresh when it was calm before."""
        if self.last is not None and self.last.run == failure.run:
            return self
        calm = self.ready_since is not None and failure.at - self.ready_since >= CALM
        fresh = calm or not self.failures
        return Attempts(1 if fresh else self.failures + 1, failure.at if fresh else self.first_at, failure)


@dataclass(frozen=True, slots=True)
class Observed:
    """What there is. `status` is what was last written; `containers` and `attempts` are by container id."""

    status: Mapping[str, object]
    containers: Mapping[str, Sighting] = field(default_factory=dict)
    attempts: Mapping[str, Attempts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Launch:
    spec: ContainerSpec


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop and clean up; a launch that is under way is cancelled."""

    id: str
    grace: GraceKind


@dataclass(frozen=True, slots=True)
class Remove:
    """Nothing is left: the record can go."""


Action = Launch | Stop | Remove


@dataclass(frozen=True, slots=True)
class Judgement:
    """One slot's container: how it is, and what to do about it."""

    spec: ContainerSpec
    phase: str
    attempts: Attempts
    message: str = ""
    container: Container | None = None
    action: Action | None = None
    wake_at: float | None = None

    @property
    def ready(self) -> bool:
        return self.phase == "ready"

    @property
    def host(self) -> ModelHost | None:
        """Give it as a multi-model container that is ready, if it is one."""
        if self.spec.models is None or self.container is None or not self.ready:
            return None
        return ModelHost(self.container, self.spec.models, self.spec.role_arn)


@dataclass(frozen=True, slots=True)
class ModelHost:
    """A multi-model container that is ready."""

    container: Container
    models: ModelPrefix
    role_arn: str | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """The containers of one instance: it serves when all of them do."""

    id: str
    containers: tuple[Judgement, ...]

    @property
    def ready(self) -> bool:
        return all(container.ready for container in self.containers)


@dataclass(frozen=True, slots=True)
class VariantGroup:
    """A variant and its instances as they are."""

    variant: Variant
    instances: tuple[Instance, ...]

    @property
    def containers(self) -> tuple[Judgement, ...]:
        return tuple(container for instance in self.instances for container in instance.containers)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, say and route now. `route` None: the endpoint is in no table."""

    status: Mapping[str, object]
    actions: tuple[Action, ...] = ()
    route: EndpointRoute | None = None
    wake_at: float | None = None
    """When to plan again even if nothing happens."""
    judgements: tuple[Judgement, ...] = ()

    @property
    def model_hosts(self) -> tuple[ModelHost, ...]:
        """The multi-model containers that requests may be sent to."""
        serves = self.route is not None and self.route.status == "InService"
        hosts = (judged.host for judged in self.judgements) if serves else ()
        return tuple(host for host in hosts if host is not None)

    @property
    def attempts(self) -> Mapping[str, Attempts]:
        """To be handed to the next plan."""
        return {judged.spec.id: judged.attempts for judged in self.judgements}
