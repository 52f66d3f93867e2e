"""Shadow variants: they get copies of requests, and nobody hears what they say.

A copy never delays or fails the request it is of: it is sent on its own, and dropped where its instance has no place
for it or too many are under way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import repeat, starmap
from random import random
from time import perf_counter

from clary.core.residency import Wish
from clary.core.routing import EndpointRoute, Hop, Target, VariantRoute, choose, copies
from clary.core.target_model import model_id
from clary.gateway.meter import Answered
from clary.gateway.passage import Lines, Passage
from clary.gateway.residency import TARGET_MODEL, Resident
from clary.gateway.state import State
from clary.gateway.upstream import is_ours

MOST = 128
"""Copies under way in one process."""
MOST_BYTES = 64 * 1024 * 1024
"""Bytes of the bodies that they hold; beyond, requests get no copy."""


def copy(
    state: State,
    route: EndpointRoute,
    lines: Lines,
    headers: Mapping[bytes, bytes],
    body: bytes,
    container: bytes | None,
) -> None:
    """Send copies of a request to the endpoint's shadows, as many as their weights say."""
    for variant in copies(route, starmap(random, repeat(()))):
        resident = None
        if variant.multi_model:
            held = _held(state, route.name, variant, headers)
            variant = replace(variant, targets=tuple(target for target in variant.targets if target.id in held))
            if not variant.targets:
                continue
        target = choose(variant, random(), state.load, state.outliers.out)  # noqa: S311
        if variant.multi_model:
            resident = held[target.id]
        hops = target.hops
        if variant.direct:
            hops = tuple(hop for hop in hops if hop.name.encode() == container)
        if not hops or state.shadows_under_way >= MOST or state.shadow_bytes + len(body) > MOST_BYTES:
            continue
        if state.admission is None or state.admission.take(target.id):
            shadow = Shadow(state, route.name, variant, target)
            shadow.model = resident
            shadow.begin(hops, lines, headers, body)


def _held(state: State, endpoint: str, variant: VariantRoute, headers: Mapping[bytes, bytes]) -> Mapping[str, Resident]:
    """Give where a shadow has the model that a request names; where it has not, it is loaded for the next ones."""
    name = headers.get(TARGET_MODEL, b"").decode("latin-1")
    held = state.models.find(endpoint, variant.name, model_id(name))
    if name and not held:
        state.models.wish(Wish(endpoint, variant.name, name))
    return held


class Shadow:
    """One copy under way: hears the answer and drops it."""

    __slots__ = ("_endpoint", "_passage", "_sent_at", "_size", "_state", "_status", "_target", "_variant", "model")

    def __init__(self, state: State, endpoint: str, variant: VariantRoute, target: Target) -> None:
        self._state = state
        self._endpoint = endpoint
        self._variant = variant
        self._target = target
        self._status = 0
        self._sent_at = perf_counter()
        self._passage: Passage | None = None
        self.model: Resident | None = None

    def begin(self, hops: tuple[Hop, ...], lines: Lines, headers: Mapping[bytes, bytes], body: bytes) -> None:
        state = self._state
        state.shadows_under_way += 1
        self._size = len(body)
        state.shadow_bytes += self._size
        state.load[self._target.id] = state.load.get(self._target.id, 0) + 1
        state.deadlines[self] = state.loop.time() + state.model_timeout
        self._passage = Passage(state, hops, lines, self)
        if self.model is not None:
            self._passage.model = self.model
            state.models.take(self.model, headers[TARGET_MODEL].decode("latin-1"))
        self._passage.begin(headers, body)

    # -- the container's side ----------------------------------------------------------------------------------------

    def head(self, status: int, headers: list[tuple[bytes, bytes]], *, final: bool) -> None:
        if final:
            self._status = status

    def body(self, data: bytes) -> None:
        return

    def received(self) -> None:
        return

    def end(self) -> None:
        self._state.outliers.answered(self._target.id)
        self._finish()

    def broken(self, error: Exception, *, answered: bool) -> None:
        if self._passage is not None and not self._passage.reused and not is_ours(error):
            self._state.outliers.failed(self._target.id, self._state.loop.time())
        self._finish(whole=False)

    def time_out(self) -> None:
        """The shadow has taken too long."""
        if self._passage is not None:
            self._passage.cancel()
        if not self._status:
            self._state.outliers.failed(self._target.id, self._state.loop.time())
        self._finish(whole=False)

    def _finish(self, *, whole: bool = True) -> None:
        state, id = self._state, self._target.id
        self._passage = None
        if self.model is not None:
            state.models.release(self.model)
        failed = not (whole and 200 <= self._status < 300)
        status = 500 if failed and self._status < 300 else self._status  # no answer, or not a whole one
        seconds = perf_counter() - self._sent_at
        answered = Answered(status, failed, seconds, 0.0, len(self._variant.targets))
        state.meter.count(self._endpoint, self._variant.name, answered)
        state.shadows_under_way -= 1
        state.shadow_bytes -= self._size
        state.deadlines.pop(self, None)
        left = state.load.get(id, 1) - 1
        if left > 0:
            state.load[id] = left
        else:
            state.load.pop(id, None)
        if state.admission is not None:
            state.admission.leave(id)
