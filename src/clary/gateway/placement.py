"""Which instance answers a request: the pick, the place on the instance, and giving it all back."""

from __future__ import annotations

import time
from abc import abstractmethod
from random import random
from typing import ClassVar

from clary.core.model_error import Owner
from clary.core.routing import EndpointRoute, Target, VariantRoute, besides, find, narrowed
from clary.gateway import answers
from clary.gateway.routed import Routed
from clary.gateway.stickiness import NEW

CONTAINER = b"x-amzn-sagemaker-target-container-hostname"
COMPONENT = b"x-amzn-sagemaker-inference-component"
_SESSION = b"x-amzn-sagemaker-session-id"


class Placed(Routed):
    """Picks an instance, by session, name, weight and load, and waits for a place on it where there is a limit."""

    OPENS_SESSIONS: ClassVar[bool] = True

    _route: EndpointRoute | None = None
    _variant: VariantRoute | None = None
    _target: Target | None = None
    _choice: tuple[EndpointRoute, str | None]
    """What was picked from, and which variant was wanted."""
    _bound = False
    """The instance was picked because it holds the session."""
    _tried: frozenset[str] = frozenset()
    """The instances that failed to answer."""
    _placed = _waiting = False
    """Holds a place on the target, or stands in line for one; both only where there is a limit."""

    @abstractmethod
    def _send(self) -> None:
        """Go on: there is a place."""

    @abstractmethod
    def _arm(self) -> None:
        """Begin the time within which there must be an answer."""

    @abstractmethod
    def _disarm(self) -> None:
        """Forget the time limit."""

    @property
    def _owner(self) -> Owner:
        component = self._route.component if self._route is not None else ""
        return Owner(self._state.partition, self._endpoint, component)

    def _pick(self) -> None:
        headers, state = self._head.headers, self._state
        route = self._route = self._find_route()
        if route.asynchronous is not None:
            raise answers.asynchronous_only(self._endpoint)
        wanted_header = headers.get(b"x-amzn-sagemaker-target-variant")
        wanted = wanted_header.decode("latin-1") if wanted_header is not None else None
        container = headers.get(CONTAINER)
        if container is not None:
            route = narrowed(route, container.decode("latin-1"))
        picked = self._of_session(route, wanted, headers[_SESSION]) if _SESSION in headers else None
        self._choice, self._bound = (route, wanted), picked is not None
        if picked is None and self._tried:
            picked = self._pick_untried()
        if picked is None:
            picked = state.pick(route, wanted, random(), state.load, state.outliers.out)  # noqa: S311
        if picked is None:
            self._variant = next((each for each in route.variants if wanted in (None, each.name)), None)
            raise answers.nothing_ready(route, wanted_header, container)
        variant, target = picked
        self._variant = variant
        self._put_on(target)
        if bool(variant.direct) != (container is not None):
            raise answers.wrong_mode(self._endpoint, variant)

    def _pick_untried(self) -> tuple[VariantRoute, Target] | None:
        """Pick an instance, of any variant that takes part, that has not failed to answer; None where there is none."""
        (route, wanted), state = self._choice, self._state
        picked = state.pick(besides(route, self._tried), wanted, random(), state.load, state.outliers.out)  # noqa: S311
        return find(route, wanted, picked[1].id) if picked is not None else None

    def _may_go_on(self) -> bool:
        """Tell whether a retry comes to an instance that has not failed yet; a session's has no other."""
        return not self._bound and self._pick_untried() is not None

    def _put_on(self, target: Target) -> None:
        self._target = target
        load = self._state.load
        load[target.id] = load.get(target.id, 0) + 1

    def _find_route(self) -> EndpointRoute:
        route = super()._find_route()
        header = self._component()
        if route.components is None:
            if header is not None:
                raise answers.foreign_component()
            return route
        component = route.components.get(header.decode("latin-1")) if header is not None else None
        if component is None or not component.is_invokable:
            raise answers.no_component(route, header, self._state.partition)
        return component

    def _component(self) -> bytes | None:
        """Give the name of the inference component that is asked for."""
        return self._head.headers.get(COMPONENT)

    def _of_session(
        self, route: EndpointRoute, wanted: str | None, header: bytes
    ) -> tuple[VariantRoute, Target] | None:
        """Find the instance that holds the session; None where it is new, unknown, over or its instance gone.

        Any instance gets it then, and the container says that it has no such session.
        """
        session = header.decode("latin-1")
        answers.check_session(session, may_be_new=self.OPENS_SESSIONS)
        if header == NEW:
            return None
        instance = self._state.stickiness.instance(self._endpoint, session, time.time())
        return find(route, wanted, instance) if instance is not None else None

    def _enter(self) -> None:
        """Send, or wait for a place on the instance. Raises AwsError (ServiceUnavailable)."""
        admission, target = self._state.admission, self._target
        if admission is not None and target is not None:
            if not admission.take(target.id):
                admission.wait(target.id, self._admitted)
                self._waiting = True
                return
            self._placed = True
        self._send()

    def _admitted(self) -> None:
        self._waiting, self._placed = False, True
        self._disarm()
        self._arm()  # the model's time begins now
        self._send()

    def _unload(self) -> None:
        target, state = self._target, self._state
        if target is None:
            return
        self._target = None
        left = state.load.get(target.id, 1) - 1
        if left > 0:
            state.load[target.id] = left
        else:
            state.load.pop(target.id, None)
        if self._waiting and state.admission is not None:
            self._waiting = False
            state.admission.withdraw(target.id, self._admitted)
        elif self._placed and state.admission is not None:
            self._placed = False
            state.admission.leave(target.id)
