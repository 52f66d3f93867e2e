"""Where an invocation goes: an immutable table, and one function that picks from it.

The control plane makes a new table whenever what is ready changes; gateways swap it in by reference and go on with
the last one while the control plane is away. As JSON it is what travels between the two.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal, TypedDict, cast

Strategy = Literal["LEAST_OUTSTANDING_REQUESTS", "RANDOM"]


@dataclass(frozen=True, slots=True)
class Hop:
    """One container that answers: `id` is the container's, `name` what errors call it (`primary`, `container-2`)."""

    id: str
    host: str
    port: int
    name: str = "primary"


@dataclass(frozen=True, slots=True)
class Target:
    """One instance of a variant: its containers in the order of the pipeline, all ready. `id` is the instance's.

    In Direct mode, where they do not need each other, only those that are ready.
    """

    id: str
    hops: tuple[Hop, ...]


@dataclass(frozen=True, slots=True)
class VariantRoute:
    """A variant. Only what is ready has targets; weight 0 gets targeted calls alone."""

    name: str
    weight: float
    targets: tuple[Target, ...]
    direct: tuple[str, ...] = ()
    """Direct mode: the names of all containers, one of which a caller names. Empty: a request goes through all."""
    strategy: Strategy = "LEAST_OUTSTANDING_REQUESTS"
    role_arn: str = ""
    """As whom the objects of asynchronous requests are read and written; empty: nobody's."""
    multi_model: str = ""
    """The name of the container that serves many models, one of which a caller names. Empty: there is none."""


@dataclass(frozen=True, slots=True)
class DataCapture:
    """Which requests and answers of an endpoint are written down, and where (DataCaptureConfig)."""

    destination: str
    """`s3://bucket/prefix`."""
    percentage: int
    inputs: bool
    outputs: bool
    csv_types: tuple[str, ...] = ()
    json_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AsyncInference:
    """How an asynchronous endpoint answers (AsyncInferenceConfig)."""

    queue: str
    """Names the queue of this endpoint, and of no other one that had its name before or gets it later."""
    output_path: str
    """`s3://bucket/prefix`; empty where none was given, and then nothing can be asked."""
    failure_path: str = ""
    concurrency: int = 1
    """Requests that an instance is given at once."""
    success_topic: str = ""
    error_topic: str = ""
    include_success: bool = False
    include_error: bool = False
    """Whether notifications have the response in them (IncludeInferenceResponseIn)."""


@dataclass(frozen=True, slots=True)
class EndpointRoute:
    """An endpoint that exists, servable or not yet."""

    name: str
    status: str
    variants: tuple[VariantRoute, ...]
    shadows: tuple[VariantRoute, ...] = ()
    """These get copies of requests, as many as their weight's share of the variants' weights."""
    capture: DataCapture | None = None
    instances: tuple[str, ...] = ()
    """The ids of those that there are or are to be, ready or not: who asks for credentials of a role is one of them."""
    components: Mapping[str, EndpointRoute] | None = None
    """Of an endpoint whose variants have no models: the routes of its inference components, by name."""
    component: str = ""
    """The inference component that this is a route of: it has the endpoint's name, the component's status, and one
    variant, whose targets are the copies."""
    copies: int = 1
    """Of the component, that there are to be; with none, callers are told so."""
    adapter: str = ""
    """What the containers call it, where the component is an adapter: they get it with each request."""
    asynchronous: AsyncInference | None = None
    """None: requests are answered while the caller waits."""

    @property
    def has_capacity(self) -> bool:
        """Of a component: there are to be copies, and it is not the first of them that are still coming."""
        coming = bool(self.component) and self.status == "Updating" and not any(v.targets for v in self.variants)
        return self.copies > 0 and not coming

    @property
    def is_invokable(self) -> bool:
        """Tell whether the status lets requests through; it does during an update."""
        return self.status not in ("Creating", "Failed", "Deleting")


class VariantDocument(TypedDict):
    """A variant as JSON; a target is [id, [[id, host, port, name], ...]]."""

    name: str
    weight: float
    targets: list[tuple[str, list[tuple[str, str, int, str]]]]
    direct: list[str]
    strategy: Strategy
    role_arn: str
    multi_model: str


class CaptureDocument(TypedDict):
    """A data capture as JSON."""

    destination: str
    percentage: int
    inputs: bool
    outputs: bool
    csv_types: list[str]
    json_types: list[str]


class AsyncDocument(TypedDict):
    """What makes an endpoint asynchronous, as JSON."""

    queue: str
    output_path: str
    failure_path: str
    concurrency: int
    success_topic: str
    error_topic: str
    include_success: bool
    include_error: bool


class RouteDocument(TypedDict):
    """A route as JSON."""

    status: str
    variants: list[VariantDocument]
    shadows: list[VariantDocument]
    capture: CaptureDocument | None
    instances: list[str]
    components: dict[str, RouteDocument] | None
    copies: int
    adapter: str
    asynchronous: AsyncDocument | None


class TableDocument(TypedDict):
    """A table as JSON."""

    revision: int
    endpoints: dict[str, RouteDocument]
    jobs: list[str]


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Every endpoint by its name, at one revision."""

    revision: int
    endpoints: Mapping[str, EndpointRoute]
    jobs: tuple[str, ...] = ()
    """The ids of the instances of transform jobs, which have roles like others and are not invoked."""

    def has_instance(self, id: str) -> bool:
        """Tell whether there is an instance of this id, or is to be one."""
        return id in self.jobs or any(id in route.instances for route in self.endpoints.values())

    def to_json(self) -> TableDocument:
        """Give the table as plain JSON values."""
        return {
            "revision": self.revision,
            "endpoints": {name: _route_document(route) for name, route in self.endpoints.items()},
            "jobs": list(self.jobs),
        }

    @classmethod
    def from_json(cls, document: TableDocument) -> RouteTable:
        """Read what `to_json` gave. Raises KeyError, TypeError, ValueError or AttributeError for anything else."""
        endpoints = {name: _route(name, each) for name, each in document["endpoints"].items()}
        return cls(document["revision"], endpoints, tuple(document["jobs"]))


def _route_document(route: EndpointRoute) -> RouteDocument:
    components = route.components
    return {
        "status": route.status,
        "variants": [_variant_document(variant) for variant in route.variants],
        "shadows": [_variant_document(variant) for variant in route.shadows],
        "capture": _capture_document(route.capture),
        "instances": list(route.instances),
        "components": None if components is None else {name: _route_document(r) for name, r in components.items()},
        "copies": route.copies,
        "adapter": route.adapter,
        "asynchronous": _async_document(route.asynchronous),
    }


def _route(name: str, document: RouteDocument, component: str = "") -> EndpointRoute:
    components = document["components"]
    return EndpointRoute(
        name,
        document["status"],
        tuple(map(_variant, document["variants"])),
        tuple(map(_variant, document["shadows"])),
        _capture(document["capture"]),
        tuple(document["instances"]),
        None if components is None else {each: _route(name, found, each) for each, found in components.items()},
        component,
        document["copies"],
        document["adapter"],
        _asynchronous(document["asynchronous"]),
    )


def _variant_document(variant: VariantRoute) -> VariantDocument:
    return {
        "name": variant.name,
        "weight": variant.weight,
        "targets": [(t.id, [(h.id, h.host, h.port, h.name) for h in t.hops]) for t in variant.targets],
        "direct": list(variant.direct),
        "strategy": variant.strategy,
        "role_arn": variant.role_arn,
        "multi_model": variant.multi_model,
    }


def _variant(document: VariantDocument) -> VariantRoute:
    targets = tuple(Target(id, tuple(Hop(*hop) for hop in hops)) for id, hops in document["targets"])
    return VariantRoute(
        document["name"],
        document["weight"],
        targets,
        tuple(document["direct"]),
        document["strategy"],
        document["role_arn"],
        document["multi_model"],
    )


def _capture_document(capture: DataCapture | None) -> CaptureDocument | None:
    return None if capture is None else cast("CaptureDocument", asdict(capture))


def _capture(document: CaptureDocument | None) -> DataCapture | None:
    if document is None:
        return None
    return DataCapture(
        document["destination"],
        document["percentage"],
        document["inputs"],
        document["outputs"],
        tuple(document["csv_types"]),
        tuple(document["json_types"]),
    )


def _async_document(found: AsyncInference | None) -> AsyncDocument | None:
    return None if found is None else cast("AsyncDocument", asdict(found))


def _asynchronous(document: AsyncDocument | None) -> AsyncInference | None:
    return None if document is None else AsyncInference(**document)


def pick(
    route: EndpointRoute,
    wanted: str | None,
    chance: float,
    load: Mapping[str, int],
    avoid: Collection[str] = (),
) -> tuple[VariantRoute, Target] | None:
    """Choose a variant, by its weight or by name, and in it a target by the variant's strategy.

    `chance` is a number in [0, 1) that decides between variants, and between targets that are equally busy; `load`
    counts requests by target id. A target of `avoid` is chosen only where its variant has no other. None where nothing
    is ready: only variants with a ready target take part, so traffic moves away from one that is down.
    """
    if wanted is not None:
        ready = [variant for variant in route.variants if variant.name == wanted and variant.targets]
        return (ready[0], choose(ready[0], chance, load, avoid)) if ready else None
    ready = [variant for variant in route.variants if variant.targets and variant.weight > 0]
    if not ready:
        return None
    if len(ready) == 1:  # nearly every endpoint, and this runs for each invocation
        return ready[0], choose(ready[0], chance, load, avoid)
    point = chance * sum(variant.weight for variant in ready)
    chosen = ready[-1]
    for variant in ready:
        if point < variant.weight:
            chosen = variant
            break
        point -= variant.weight
    # What is left of `chance` is spread evenly over the chosen variant's share: it decides once more.
    return chosen, choose(chosen, point / chosen.weight % 1.0, load, avoid)


def narrowed(route: EndpointRoute, container: str) -> EndpointRoute:
    """Leave to the variants in Direct mode the targets on which this container is ready, and of those it alone."""
    variants = tuple(_narrowed(each, container) if each.direct else each for each in route.variants)
    return replace(route, variants=variants)


def _narrowed(variant: VariantRoute, container: str) -> VariantRoute:
    found = ((target.id, hop) for target in variant.targets for hop in target.hops if hop.name == container)
    return replace(variant, targets=tuple(Target(id, (hop,)) for id, hop in found))


def besides(route: EndpointRoute, ids: Collection[str]) -> EndpointRoute:
    """Leave out the targets of these ids."""
    variants = (replace(each, targets=tuple(t for t in each.targets if t.id not in ids)) for each in route.variants)
    return replace(route, variants=tuple(variants))


def find(route: EndpointRoute, wanted: str | None, target_id: str) -> tuple[VariantRoute, Target] | None:
    """Give the target of this id, and its variant, which must be the wanted one; None where it is not ready."""
    for variant in route.variants:
        if wanted is None or variant.name == wanted:
            for target in variant.targets:
                if target.id == target_id:
                    return variant, target
    return None


def copies(route: EndpointRoute, chances: Iterator[float]) -> list[VariantRoute]:
    """Choose the shadows that get a copy of this request. Each decides for itself, by a number of `chances`.

    A shadow's share is its weight by the sum of the variants' weights, at most everything (ShadowProductionVariants).
    """
    total = sum(variant.weight for variant in route.variants)
    return [shadow for shadow in route.shadows if shadow.targets and next(chances) * total < shadow.weight]


def choose(variant: VariantRoute, chance: float, load: Mapping[str, int], avoid: Collection[str] = ()) -> Target:
    """Choose a target of a variant that has one, by the variant's strategy; the parameters are those of `pick`."""
    targets = variant.targets
    if len(targets) == 1:
        return targets[0]
    if avoid:
        targets = tuple(target for target in targets if target.id not in avoid) or targets
    first = int(chance * len(targets))
    if variant.strategy == "RANDOM":
        return targets[first]
    return min(targets[first:] + targets[:first], key=lambda target: load.get(target.id, 0))
