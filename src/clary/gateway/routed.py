"""What every request of the runtime begins with: which endpoint, who asks, and whether they may."""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import unquote_to_bytes

from clary.core.routing import EndpointRoute
from clary.gateway import access, answers
from clary.gateway.gathered import Gathered


class Routed(Gathered):
    """Knows its endpoint by its path, and its caller."""

    SUFFIX: ClassVar[bytes] = b"/invocations"
    ACTION: ClassVar[str] = "sagemaker:InvokeEndpoint"

    _endpoint = ""

    def _named(self) -> str:
        """Give the endpoint's name in `/endpoints/<name><suffix>`; what may follow a question mark means nothing."""
        name = self._head.path[len(b"/endpoints/") : -len(self.SUFFIX)]
        return (unquote_to_bytes(name) if name.find(b"%") >= 0 else name).decode("utf-8", "replace")

    def _authenticate(self, body: bytes) -> None:
        state, head = self._state, self._head
        identity = state.authenticate(head, body)
        if (principal := state.principal(identity)) is not None:
            source = self._client.source
            principal.require(access.invocation(state.partition, self._endpoint, head.headers, source, self.ACTION))

    def _find_route(self) -> EndpointRoute:
        state = self._state
        route = state.routes.table.endpoints.get(self._endpoint)
        if route is None:
            raise answers.no_such_endpoint(self._endpoint, state.partition)
        if route.is_invokable:
            return route
        if route.status == "Creating":
            raise answers.not_ready(self._endpoint)
        raise answers.not_invokable(route, state.partition)
