"""The short way of plain invocations, where this installation has it: `shortcut/way.pyx`, compiled.

Without it everything goes the long way, to the same answers. What the compiled part must know of the rest is here:
which routes, signers and callers are plain, and how an invocation that turns out not to be goes on.
"""

from __future__ import annotations

import re
from dataclasses import replace
from random import random

from clary.core import routing
from clary.core.routing import EndpointRoute, Hop, Target, VariantRoute
from clary.core.target_model import model_id
from clary.errors import AwsError
from clary.gateway import access
from clary.gateway.connection import Connection, Exchange, ShortWay
from clary.gateway.head import Head
from clary.gateway.invocation import Invocation, PlainInvocation
from clary.gateway.passage import beginning, beginning_of
from clary.gateway.residency import TARGET_MODEL, Resident
from clary.gateway.shortcut.compiled import compiled
from clary.gateway.state import State
from clary.wire.signer import KnownSigner

_LINE = re.compile(rb"POST (/endpoints/([a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,62})/invocations) HTTP/1\.1")
_CARRIED = (b"content-type", b"x-amzn-sagemaker-custom-attributes", b"x-amzn-sagemaker-inference-id", b"accept")


def is_compiled() -> bool:
    """Tell whether this installation has the short way."""
    return compiled() is not None


def way(state: State) -> ShortWay | None:
    """Give what takes plain requests; None where it is not compiled, or instances have limits."""
    module = compiled()
    if state.admission is not None or module is None:
        return None
    shortcut = module.Shortcut(LongWay(state))
    state.plain_requests = lambda: shortcut.taken
    state.pool.ear = shortcut.container_ear
    found: ShortWay = shortcut
    return found


class LongWay:
    """What the short way asks of the rest of the gateway."""

    lines = tuple(dict(Invocation.LINES)[name] for name in _CARRIED)
    """The beginnings of the lines that carry these headers to a container, in this order."""
    beginning = staticmethod(beginning)
    beginning_of = staticmethod(beginning_of)

    def __init__(self, state: State) -> None:
        self.state = state

    def path(self, line: bytes) -> tuple[str, bytes] | None:
        """Read a request line of InvokeEndpoint whose target needs no decoding: the endpoint and the target."""
        match = _LINE.fullmatch(line)
        return (match[2].decode(), match[1]) if match is not None else None

    def is_plain(self, route: EndpointRoute) -> bool:
        """Tell whether invocations of an endpoint need nothing but a container: whatever else it has is not plain."""
        plain = EndpointRoute(
            route.name, route.status, route.variants,
            instances=route.instances, component=route.component, copies=route.copies,
        )  # fmt: skip
        one_kind = len(route.variants) == 1 or not any(variant.multi_model for variant in route.variants)
        return route == plain and route.is_invokable and one_kind and all(map(_is_plain, route.variants))

    def component(self, route: EndpointRoute, name: bytes) -> EndpointRoute | None:
        """Give the route of an inference component, where its endpoint has it and can be invoked."""
        return (route.components or {}).get(name.decode()) if route.is_invokable else None

    def only(self, route: EndpointRoute) -> tuple[VariantRoute, Target] | None:
        """Give the variant and the target of a route that has no other."""
        if len(route.variants) != 1 or len(route.variants[0].targets) != 1:
            return None
        return routing.pick(route, None, 0.0, {})

    def signer(self, prefix: bytes) -> KnownSigner | None:
        """Give who signs with an Authorization header that begins so, if that was seen before."""
        return self.state.verifier.known(prefix) if self.state.verifier is not None else None

    def is_current(self, signer: KnownSigner, stamp: bytes) -> bool:
        return self.state.verifier is not None and self.state.verifier.is_current(signer, stamp.decode("latin-1"))

    def is_owner(self, signer: KnownSigner) -> bool:
        return self.state.is_owner(signer.access_key_id)

    def has_many_models(self, route: EndpointRoute) -> bool:
        """Tell whether callers of a plain endpoint name a model."""
        return bool(route.variants and route.variants[0].multi_model)

    def resident(self, route: EndpointRoute, model: bytes) -> tuple[VariantRoute, Target, Resident] | None:
        """Choose an instance that has a model loaded; None where the one variant has none that is not left alone."""
        state, variant = self.state, route.variants[0]
        held = state.models.find(route.name, variant.name, model_id(model.decode()))
        able = [target for target in variant.targets if target.id in held and target.id not in state.outliers.out]
        if not able:
            return None
        target = able[0]
        if len(able) > 1:
            target = routing.choose(replace(variant, targets=tuple(able)), random(), state.load)  # noqa: S311
        return variant, target, held[target.id]

    def may(
        self, signer: KnownSigner, endpoint: str, user_agent: bytes, model: bytes | None, client: Connection
    ) -> bool:
        """Ask the signer's policies."""
        state = self.state
        assert state.verifier is not None
        try:
            principal = state.principal(state.verifier.identity(signer, "", b"", ""))
            if principal is not None:
                headers = {b"user-agent": user_agent} | ({} if model is None else {TARGET_MODEL: model})
                principal.require(access.invocation(state.partition, endpoint, headers, client.source))
        except AwsError:  # the long way says so
            return False
        return True

    def become(self, plain: PlainInvocation, data: bytes, client: Connection) -> Invocation:
        """Make the invocation that goes on with one that was sent."""
        head = _head(data, self.state)
        invocation = Invocation(self.state, head, client)
        invocation.go_on(plain)
        client.succeed(invocation, head)
        return invocation


def _is_plain(variant: VariantRoute) -> bool:
    targets, strategy, role = variant.targets, variant.strategy, variant.role_arn
    many = variant.multi_model
    plain = VariantRoute(variant.name, variant.weight, targets, strategy=strategy, role_arn=role, multi_model=many)
    hops = [hop for target in variant.targets for hop in target.hops]
    alone = all(len(target.hops) == 1 for target in variant.targets)
    return variant == plain and alone and all(hop == Hop(hop.id, hop.host, hop.port) for hop in hops)


def _head(data: bytes, state: State) -> Head:
    """Read a request's head as the long way does."""
    heads: list[Head] = []

    def opened(head: Head, _: Connection) -> Exchange:
        heads.append(head)
        return _Nobody()

    Connection(opened, state.outbox).data_received(data)
    return heads[0]


class _Nobody:
    """Wants to know nothing but the head."""

    def begin(self) -> None: ...

    def feed(self, data: bytes) -> None: ...

    def complete(self) -> None: ...

    def lost(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...
