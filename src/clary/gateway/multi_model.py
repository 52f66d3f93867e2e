"""Requests that name a model of a multi-model container: they go to an instance that has it, or wait until one has."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Set
from dataclasses import replace
from random import random
from time import perf_counter

from clary.core.residency import Wish
from clary.core.routing import Target, VariantRoute, choose, find, narrowed
from clary.core.target_model import model_id, refusal
from clary.errors import AwsError
from clary.gateway import answers
from clary.gateway.placement import CONTAINER, Placed
from clary.gateway.residency import TARGET_MODEL, WAIT, NotLoaded, Resident

NOT_THERE, NO_MEMORY = 404, 507
"""What a container answers that does not have the model, and one that has too little memory to answer with it."""


class MultiModel(Placed):
    """Finds the model that a request names, where its variant has many."""

    _target_model: str | None = None
    _resident: Resident | None = None
    """The model's load that gets the request."""
    _wish: Wish | None = None
    """What is waited for."""
    _sought_at = _waited = 0.0
    """Since when the model is waited for; seconds for which it was."""
    _doubted = False
    """It was asked once whether the container really has the model."""

    @abstractmethod
    def _fail(self, error: AwsError) -> None:
        """Answer with an error."""

    @abstractmethod
    def _refused_by_model(self, body: bytes | None) -> None:
        """Fail with the container's answer."""

    @abstractmethod
    def time_out(self) -> None:
        """What is waited for has taken too long."""

    def _pick(self) -> None:
        super()._pick()
        variant = self._variant
        assert variant is not None
        if variant.multi_model or TARGET_MODEL in self._head.headers:
            self._pick_model(variant)

    def _pick_model(self, variant: VariantRoute) -> None:
        """Choose an instance that has the model. Where none has, none is chosen yet. Raises ValidationError."""
        headers, target = self._head.headers, self._target
        assert target is not None
        name = headers.get(TARGET_MODEL)
        if not variant.multi_model or (variant.direct and headers.get(CONTAINER) != variant.multi_model.encode()):
            if name is None:
                return  # another container of a pipeline in Direct mode
            raise answers.no_multi_model(self._endpoint)
        if name is None:
            raise answers.no_target_model(self._request_id)
        self._target_model = name.decode("latin-1")
        held = self._state.models.find(self._endpoint, variant.name, model_id(self._target_model))
        if target.id not in held or target.id in self._avoided:
            self._unload()
            chosen = self._having(variant, held.keys()) if held else None
            if chosen is None:
                return
            self._put_on(chosen)
            target = chosen
        self._hold(held[target.id])

    @property
    def _avoided(self) -> Set[str]:
        """The instances that are left alone while there are others: a retry goes elsewhere."""
        out, tried = self._state.outliers.out, self._tried
        if not tried:
            return out
        return tried | out if self._is_untried(tried | out) else tried

    def _is_untried(self, but: Set[str]) -> bool:
        """Tell whether the variant has an instance that is none of these."""
        return self._variant is not None and any(target.id not in but for target in self._variant.targets)

    def _having(self, variant: VariantRoute, ids: Collection[str]) -> Target | None:
        """Choose among the instances that have the model; None where it should rather be loaded on another."""
        having = tuple(target for target in variant.targets if target.id in ids)
        able = tuple(target for target in having if target.id not in self._avoided)
        if not able and any(target.id not in self._avoided for target in variant.targets):
            return None
        among = able or having
        return choose(replace(variant, targets=among), random(), self._state.load) if among else None  # noqa: S311

    def _hold(self, resident: Resident) -> None:
        assert self._target_model is not None
        self._resident = resident
        self._state.models.take(resident, self._target_model)

    def _enter(self) -> None:
        if self._target_model is not None and self._resident is None:
            self._seek()
        else:
            super()._enter()

    def _unload(self) -> None:
        if self._resident is not None:
            self._state.models.release(self._resident)
            self._resident = None
        super()._unload()

    # -- waiting for a model -----------------------------------------------------------------------------------------

    def _seek(self) -> None:
        """Wait until the model is loaded somewhere. The time of the answer has not begun yet.

        Raises ValidationError for what can be no model's key: whoever invents keys costs the control plane nothing.
        """
        assert self._variant is not None
        assert self._target_model is not None
        if (why := refusal(self._target_model)) is not None:
            raise answers.validation_error(why)
        self._disarm()
        state = self._state
        self._sought_at = perf_counter()
        state.loading[self] = state.loop.time() + WAIT
        avoid = tuple(target.id for target in self._variant.targets if target.id in self._avoided)
        self._wish = Wish(self._endpoint, self._variant.name, self._target_model, avoid)
        state.models.want(self._wish, self._found)

    def _found(self, answer: Resident | AwsError | NotLoaded) -> None:
        self._stop_seeking()
        if isinstance(answer, NotLoaded):
            self._not_loaded(answer)
            return
        if isinstance(answer, AwsError):
            self._fail(answer)
            return
        try:
            route = self._find_route()
            assert self._variant is not None
            if self._variant.direct:
                route = narrowed(route, self._variant.multi_model)
            found = find(route, self._variant.name, answer.held.instance)
            if found is None:  # it has gone in this very moment
                raise answers.nothing_ready(route, None, None)
            self._put_on(found[1])
            self._hold(answer)
            self._arm()
            super()._enter()
        except AwsError as error:
            self._fail(error)

    def _stop_seeking(self) -> None:
        if self._wish is not None:
            self._state.models.withdraw(self._wish, self._found)
            self._wish = None
            self._state.loading.pop(self, None)
            self._waited += perf_counter() - self._sought_at

    def _not_loaded(self, failure: NotLoaded) -> None:
        """Fail in the words with which the container has refused the model."""
        assert self._variant is not None
        container, body = self._variant.multi_model, failure.body.encode()
        self._fail(answers.model_error(self._owner, container, failure.status, body))

    # -- what a container says of a model ----------------------------------------------------------------------------

    def _is_doubtful(self, status: int) -> bool:
        """Tell whether an answer may mean that the container has no such model (any more), or no memory for it."""
        return self._resident is not None and not self._doubted and status in (NOT_THERE, NO_MEMORY)

    async def _ask_back(self, status: int, body: bytes | None) -> None:
        """Have the control plane look, and try again if the model had gone: that is no answer of the model's."""
        resident = self._resident
        assert resident is not None
        held = await self._state.models.is_held(resident, spent=status == NO_MEMORY)
        if self._done:
            return
        if held or status == NO_MEMORY:
            self._refused_by_model(body)
            return
        self._state.models.lose(resident)
        self._unload()
        try:
            self._pick()
            self._arm()
            self._enter()
        except AwsError as error:
            self._fail(error)
